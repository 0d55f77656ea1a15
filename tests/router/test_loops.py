"""No call goes round in circles: whatever the directories say, few calls are made and one orderly answer comes.

A client that follows referrals without end, as Miranda does, is the measure of it (protocol notes 1.6).
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Account, Domain, Farm, Home, Router
from rvpfarm.web.responses import Response
from tests.support.directory import make_account, make_farm
from tests.support.homes import leased
from tests.support.village import FOLLOWER, Process, Village

IM = Domain("im.fabrik.example", aliases=("omnent",))
HS1 = Home("id-1", "hs1", "hs1.fabrik.example", 80, 8081, "192.0.2.11")
HS2 = Home("id-2", "hs2", "hs2.fabrik.example", 80, 8081, "192.0.2.12")
HS3 = Home("id-3", "hs3", "hs3.fabrik.example", 80, 8081, "192.0.2.13")
#: Shares the process of the third.
HS4 = Home("id-4", "hs4", "hs4.fabrik.example", 80, 8082, "192.0.2.13")
R1 = Router("id-8", "r1", "im.fabrik.example", 80, "192.0.2.1")
R2 = Router("id-9", "r2", "im2.fabrik.example", 80, "192.0.2.2")

PETRA = f"{IM.name}/instmsg/aliases/petra"
TOMASZ = f"{IM.name}/instmsg/aliases/tomasz"
LOCAL = f"/instmsg/local/{PETRA}"

#: Every place where a client may begin.
DOORS = [(member.address, 80) for member in (R1, R2, HS1, HS2, HS3)]

#: How many members may take one request: who is asked, whom he asks first, and whom he asks then; a home
#: that shares a process may take it for a sister, each time.
MOST = 6


class LoopCase(SynchronousTestCase):
    """Two routers, and four homes in three processes, where petra is at the first and tomasz at the second."""

    def build(self, *homes: Home, referral: str = "auto", seed: int = 0) -> None:
        """Start everything, with these homes in place of those of the same names."""
        known = {home.id: home for home in (HS1, HS2, HS3, HS4, *homes)}
        self.farm: Farm = make_farm(
            [IM], known.values(), [R1, R2], authentication="off", referral=referral, federation="open"
        )
        accounts = [make_account(PETRA, HS1), make_account(TOMASZ, HS2)]
        # where they are in truth; what the directory says of that may be wrong
        self.village = Village(
            replace(self.farm, homes={home.id: home for home in (HS1, HS2, HS3, HS4)}), accounts, seed
        )
        self.addCleanup(self.village.stop)
        self.homes: list[Process] = [
            self.village.home(*names) for names in (("hs1",), ("hs2",), ("hs3", "hs4"))
        ]
        self.routers: list[Process] = [self.village.start_router(name) for name in ("r1", "r2")]
        for process in (*self.homes, *self.routers):
            process.directory.set_farm(self.farm)

    def believe(self, process: Process, home: Home, key: str = PETRA) -> None:
        """What the directory of one process says; it says the same when it is asked again."""
        process.directory.move(key, home, silently=True)
        process.directory.forget(key)
        process.directory.find(key)

    def ask(
        self, door: tuple[str, int], target: str = "", *, host: str = IM.name, **headers: str
    ) -> Response:
        """Ask as a client that follows, and see that few calls are made of it, and at most one referral."""
        self.village.took()
        response, referrals = self.village.follow(
            door, target=target or "/instmsg/aliases/petra", host=host, headers=headers
        )
        took = self.village.took()
        self.assertLessEqual(len(took), MOST + referrals, took)
        self.assertLessEqual(referrals, 1)
        return response


class DisagreementTests(LoopCase):
    """Members that each take a node for another's."""

    def test_each_other(self) -> None:
        """Two homes that each believe that the other has the node ask each other in vain: 503, then as ever."""
        for referral in ("auto", "always", "never"):
            self.build(referral=referral)
            self.believe(self.homes[0], HS2)
            for door in DOORS:
                for target in ("/instmsg/aliases/petra", LOCAL):
                    for host in (IM.name, HS1.host, HS2.host):
                        with self.subTest(referral=referral, door=door, target=target, host=host):
                            for agent in (FOLLOWER, "libwww-perl/6"):
                                response = self.ask(door, target, host=host, **{"User-Agent": agent})
                                self.assertEqual(response.status, 503)
                                self.assertIn(b"retry-after", response.headers)
            self.believe(self.homes[0], HS1)
            self.village.network.advance(10)
            self.assertEqual([self.ask(door).status for door in DOORS], [207] * 5)

    def test_in_a_ring(self) -> None:
        """So do three in a ring, two of which share a process with others."""
        for referral in ("auto", "always"):
            self.build(referral=referral)
            self.believe(self.homes[0], HS2)
            self.believe(self.homes[1], HS3)
            self.believe(self.homes[2], HS1)
            for door in DOORS:
                self.assertEqual(self.ask(door).status, 503)

    def test_while_the_directory_is_down(self) -> None:
        """Nor does anything spin when nobody can look again."""
        self.build(referral="always")
        self.believe(self.homes[0], HS2)
        for process in self.village.processes.values():
            process.directory.unavailable = True
        for door in DOORS:
            for target in ("/instmsg/aliases/petra", LOCAL):
                self.assertEqual(self.ask(door, target).status, 503)

    def test_unknown_at_its_home(self) -> None:
        """A home that does not know the node which others send there says that there is none."""
        self.build()
        self.homes[0].directory.remove(PETRA)
        for door in DOORS:
            self.assertEqual(self.ask(door).status, 404)

    def test_known_to_no_router(self) -> None:
        """A router that knows no such node has a home say so, whichever it is."""
        self.build()
        for router in self.routers:
            router.directory.remove(PETRA)
        for door in DOORS[:2]:
            self.assertIn(self.ask(door).status, (207, 404, 503))
        for door in DOORS[2:]:
            self.assertEqual(self.ask(door).status, 207)

    def test_presence(self) -> None:
        """What a home tells a watcher whom nobody takes for his own is tried a few times, and given up."""
        self.build()
        self.believe(self.homes[0], HS2, TOMASZ)
        self.believe(self.homes[1], HS1, TOMASZ)
        who = {"RVP-From-Principal": f"http://{TOMASZ}"}
        watch = {
            **who,
            "Notification-Type": "update/propchange",
            "Subscription-Lifetime": "14400",
            "Call-Back": f"http://{TOMASZ}",
        }
        place = (HS1.address, 80)
        self.assertEqual(self.village.call(place, "SUBSCRIBE", headers=watch).status, 207)
        own = {"RVP-From-Principal": f"http://{PETRA}"}
        self.village.took()
        self.assertEqual(self.village.call(place, "PROPPATCH", body=leased("busy"), headers=own).status, 207)
        self.village.network.advance(600, pieces=600)
        self.assertEqual(len(self.village.took("hs2")), 10)  # five tries, of two calls each


class WrongRecordTests(LoopCase):
    """Records of homes that lead elsewhere."""

    def test_link_to_a_router(self) -> None:
        """A farm link that leads to a router's port, or to another home's, is no link: 503."""
        for wrong in (
            replace(HS1, address=R1.address, link_port=80),
            replace(HS1, address=R2.address, link_port=80),
            replace(HS1, address=HS1.address, link_port=80),
            replace(HS1, address=HS2.address),
            replace(HS1, address="192.0.2.99"),
        ):
            with self.subTest(wrong=wrong):
                self.build(wrong)
                for door in DOORS[:2] + DOORS[3:]:
                    attempts = self.village.network.attempts
                    self.assertEqual(self.ask(door, LOCAL).status, 503)
                    self.assertLessEqual(self.village.network.attempts - attempts, 4)
                self.assertEqual(self.ask(DOORS[2]).status, 207)

    def test_url_of_a_router(self) -> None:
        """A home whose URL is that of a router, a domain or another home is never referred to in a circle."""
        for wrong in (
            replace(HS1, host=IM.name),
            replace(HS1, host="omnent"),
            replace(HS1, host=R1.host),
            replace(HS1, host=R2.host),
            replace(HS1, host=HS2.host),
            replace(HS1, host="petra.fabrik.example"),
        ):
            for referral in ("auto", "always"):
                with self.subTest(wrong=wrong.host, referral=referral):
                    self.build(wrong, referral=referral)
                    for door in DOORS:
                        self.assertEqual(self.ask(door).status, 207)

    def test_address_of_a_router(self) -> None:
        """A home whose name leads to a router's machine: who is referred there is forwarded, if that can be."""
        self.build(referral="always")
        self.village.farm = replace(
            self.village.farm, homes={**self.village.farm.homes, HS1.id: replace(HS1, address=R2.address)}
        )
        for door in DOORS:
            self.assertEqual(self.ask(door).status, 207)

    def test_no_such_home(self) -> None:
        """A node at a home that the farm has not is nobody's: 503."""
        self.build(referral="always")
        gone = Home("id-7", "hs7", "hs7.fabrik.example", 80, 8081)
        for process in self.village.processes.values():
            self.believe(process, gone)
        for door in DOORS:
            for target in ("/instmsg/aliases/petra", LOCAL):
                self.assertEqual(self.ask(door, target).status, 503)


class TargetTests(LoopCase):
    """Requests made to be passed on and on."""

    def test_nested(self) -> None:
        """A physical URL inside a physical URL, or inside an alias of one, is refused where it arrives."""
        self.build(referral="always")
        for target, status in (
            (f"/instmsg/local/{HS1.host}{LOCAL}", 400),
            (f"/instmsg/local/{IM.name}{LOCAL}", 400),
            (f"/instmsg/local/{IM.name}/instmsg/local", 400),
            (f"/instmsg/lo%63al/{IM.name}/instmsg/%6cocal/{PETRA}", 400),
            (f"/instmsg/local/{IM.name}%2Finstmsg/aliases/petra", 400),
            (f"/instmsg/local/{IM.name}/../../instmsg/aliases/petra", 400),
            ("/instmsg/local/im.elsewhere.example/instmsg/aliases/petra", 404),
            (f"http://im.elsewhere.example/{PETRA}", 404),
        ):
            for door in DOORS:
                with self.subTest(target=target, door=door):
                    self.assertEqual(self.ask(door, target).status, status)
        self.assertEqual([process.links.connected for process in self.village.processes.values()], [0] * 5)

    def test_names_of_members(self) -> None:
        """A physical URL that names a member in place of a domain, or another member, ends at the home all the same."""
        self.build(referral="always")
        for target in (
            f"/instmsg/local/{HS2.host}/instmsg/aliases/petra",
            f"/instmsg/local/{R2.host}/instmsg/aliases/petra",
            f"/instmsg/local/{IM.name}:80/instmsg/aliases/petra",
            "/instmsg/local/OMNENT/instmsg/aliases/petra",
            f"http://{R2.host}{LOCAL}",
            f"http://{HS2.host}{LOCAL}",
            f"http://{HS4.host}/instmsg/aliases/petra",
        ):
            for door in DOORS:
                for host in (IM.name, HS2.host, R2.host):
                    with self.subTest(target=target, door=door, host=host):
                        self.assertEqual(self.ask(door, target, host=host).status, 207)

    def test_other_organisations(self) -> None:
        """A router passes nothing on to where it is asked to: what is not served here is 404."""
        self.build(referral="always")
        for host in ("im.elsewhere.example", "192.0.2.1", "im.fabrik.example.elsewhere.example", "[::1]"):
            for door in DOORS:
                self.assertEqual(self.ask(door, host=host).status, 404)

    def test_hops(self) -> None:
        """A message that has made eight hops makes no ninth to a client, by whichever door it comes."""
        self.build()
        body = "<x/>"
        for door in DOORS:
            for hops, statuses in (("9", (500,)), ("8", (500, 400, 415)), ("x", (400,)), ("0", (400,))):
                response = self.village.call(door, "NOTIFY", body=body, headers={"RVP-Hop-Count": hops})
                with self.subTest(door=door, hops=hops):
                    self.assertIn(response.status, statuses)

    def test_call_backs(self) -> None:
        """Nobody is called back at a member of the farm, nor at a node by whoever logs in."""
        self.build()
        for url in (
            f"http://{R1.address}/",
            f"http://{R1.host}/",
            f"http://{HS1.address}/",
            f"http://{HS2.host}:8081/",
            f"http://{HS3.address}:8082/x",
            f"http://{PETRA}",
            "http://omnent/instmsg/aliases/tomasz",
            f"http://{HS1.host}{LOCAL}",
        ):
            login = {
                "RVP-From-Principal": f"http://{PETRA}",
                "Notification-Type": "pragma/notify",
                "Subscription-Lifetime": "14400",
                "Call-Back": url,
            }
            for door in DOORS:
                with self.subTest(url=url, door=door):
                    response = self.village.call(door, "SUBSCRIBE", headers=login)
                    self.assertIn(response.status, (400, 403))


class _Fickle:
    """A directory that says something else each time it is asked, and something else again when it is peeked."""

    def __init__(self, process: Process, random: Random) -> None:
        self._process, self._random = process, random
        directory = process.directory
        directory.find = self.find  # type: ignore[method-assign]
        directory.peek = self.peek  # type: ignore[method-assign]

    def account(self) -> Account:
        """Petra, somewhere."""
        home = self._random.choice(list(self._process.directory.farm().homes.values()))
        return make_account(PETRA, home)

    def find(self, key: str) -> Deferred[Account | None]:
        """It is there, or there."""
        return succeed(self.account())

    def peek(self, key: str) -> Account | bool | None:
        """It is known to be there or there, or unknown."""
        return self.account() if self._random.random() < 0.5 else None


class WhateverTests(LoopCase):
    """Whatever the directories say, there are few calls and one orderly answer."""

    def test_any_belief(self) -> None:
        """Every member believes something else, and sticks to it."""
        random = Random(7)
        for seed in range(40):
            wrong = [self._spoiled(home, random) for home in (HS1, HS2, HS3, HS4) if random.random() < 0.3]
            self.build(*wrong, referral=random.choice(("auto", "always", "never")), seed=seed)
            for process in self.village.processes.values():
                self.believe(process, random.choice((HS1, HS2, HS3, HS4)))
                if random.random() < 0.2:
                    process.directory.remove(PETRA)
                process.directory.unavailable = random.random() < 0.2
            self._ask_everybody(random)

    def test_fickle(self) -> None:
        """No member believes the same thing twice."""
        random = Random(11)
        for seed in range(40):
            self.build(referral=random.choice(("auto", "always", "never")), seed=seed)
            for process in self.village.processes.values():
                _Fickle(process, random)
            self._ask_everybody(random)

    def _ask_everybody(self, random: Random) -> None:
        """Ask at every door, in some form."""
        for door in DOORS:
            target = random.choice(("/instmsg/aliases/petra", LOCAL, f"http://{HS2.host}{LOCAL}"))
            host = random.choice((IM.name, HS1.host, HS2.host, HS4.host, R2.host))
            response = self.ask(door, target, host=host)
            self.assertIn(response.status, (207, 404, 503))
        self.village.stop()

    def _spoiled(self, home: Home, random: Random) -> Home:
        """A record with a mistake in it."""
        other = random.choice((HS1, HS2, HS3, R1, R2))
        return random.choice(
            (
                replace(home, host=other.host),
                replace(home, address=other.address),
                replace(home, address=other.address, host=other.host),
                replace(home, link_port=80),
                replace(home, port=8081),
            )
        )
