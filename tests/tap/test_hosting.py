"""Several homes in one process: each its own, one listener, and nobody goes over a link to a sister."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.ntlm import nt_hash
from rvpfarm.directory.model import Domain, Home, Router, Verifier
from rvpfarm.tap.hosting import all_draining, check_together, listeners_of, state_files
from rvpfarm.tap.settings import HostPort
from rvpfarm.web.responses import Response
from tests.support.directory import make_account, make_farm
from tests.support.homes import leased, message
from tests.support.ntlm import NtlmClient
from tests.support.store import make_folder
from tests.support.village import FOLLOWER, Process, Village

FABRIK, ORCHARD = Domain("im.fabrik.example"), Domain("im.orchard.example")
#: Two homes at one place, one at another of the same process, and one of another process.
HS1 = Home("id-1", "hs1", "hs1.fabrik.example", 80, 8081, "192.0.2.10")
HS2 = Home("id-2", "hs2", "hs2.orchard.example", 80, 8082, "192.0.2.10")
HS3 = Home("id-3", "hs3", "hs3.orchard.example", 8080, 8083, "192.0.2.10")
FAR = Home("id-4", "far", "far.fabrik.example", 80, 8081, "192.0.2.11")
R1 = Router("id-9", "r1", "im.fabrik.example", 80, "192.0.2.1")
PLACE, ASIDE = ("192.0.2.10", 80), ("192.0.2.10", 8080)

PETRA = f"http://{FABRIK.name}/instmsg/aliases/petra"
INGRID = f"http://{ORCHARD.name}/instmsg/aliases/ingrid"


class DrainingTests(SynchronousTestCase):
    """A process is taken away when the last of its homes is."""

    def test_all(self) -> None:
        """One home that is to stay keeps the process; one that is listed no longer does too."""
        leaving = [replace(home, state="draining") for home in (HS1, HS2)]
        for listed, expected in (
            ([HS1, HS2], False),
            ([leaving[0], HS2], False),
            (leaving, True),
            ([leaving[0]], False),
        ):
            self.assertIs(all_draining(make_farm([FABRIK], listed, [R1]), [HS1, HS2]), expected)


class HostingCase(SynchronousTestCase):
    """A process of three homes, of two IM domains, beside one of another home."""

    policies: ClassVar[dict[str, str]] = {"authentication": "off"}

    def setUp(self) -> None:
        """Everybody runs."""
        farm = make_farm([FABRIK, ORCHARD], [HS1, HS2, HS3, FAR], [R1], **self.policies)
        accounts = [
            make_account(f"{domain.name}/instmsg/aliases/{alias}", home)
            for domain, alias, home in (
                (FABRIK, "petra", HS1),
                (ORCHARD, "ingrid", HS2),
                (ORCHARD, "olga", HS3),
                (FABRIK, "tomasz", FAR),
            )
        ]
        self.village = Village(farm, accounts)
        self.addCleanup(self.village.stop)
        self.process: Process = self.village.home("hs1", "hs2", "hs3")
        self.village.home("far")

    def ask(
        self,
        method: str,
        url: str,
        body: str = "",
        *,
        at: tuple[str, int] = PLACE,
        host: str = "",
        who: str = "",
        **headers: str,
    ) -> Response:
        """One request for the node at a logical URL; C{host} stands for another C{Host}."""
        domain, slash, path = url.removeprefix("http://").partition("/")
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if who:
            fields["RVP-From-Principal"] = who
        return self.village.call(at, method, slash + path, body, host=host or domain, headers=fields)

    def login(self, url: str, port: int, **more: str) -> Response:
        """Log in with a call-back at C{port}."""
        return self.ask(
            "SUBSCRIBE",
            url,
            who=url,
            Notification_Type="pragma/notify",
            Subscription_Lifetime="14400",
            Call_Back=f"http://10.9.8.7:{port}",
            **more,
        )


class ReceptionTests(HostingCase):
    """Whoever asks at the common place is answered by the home of the node."""

    def test_each_its_own(self) -> None:
        """Each node is answered for by its home, by whichever name and in whatever form it is asked."""
        local = f"/instmsg/local/{ORCHARD.name}/instmsg/aliases/ingrid"
        for url, host, name in (
            (PETRA, "", "hs1"),
            (INGRID, "", "hs2"),
            (PETRA, HS1.host, "hs1"),
            (INGRID, HS2.host, "hs2"),
            (INGRID, f"{HS2.host.upper()}:80", "hs2"),
            (f"http://{HS2.host}{local}", "", "hs2"),
            (f"http://{HS1.host}{local}", "", "hs2"),
            (f"http://{ORCHARD.name}/instmsg/aliases/olga", "", "hs3"),
        ):
            with self.subTest(url=url, host=host):
                self.assertEqual(self.ask("PROPFIND", url, host=host).status, 207)
                self.assertEqual(self.village.took()[-1], name)
        self.assertEqual(self.process.links.connected, 0)

    def test_absolute_form(self) -> None:
        """The host in an absolute target counts, and not C{Host}."""
        answer = self.village.call(PLACE, "PROPFIND", INGRID, host=HS1.host)
        self.assertEqual(answer.status, 207)

    def test_other_place(self) -> None:
        """A listener of one home answers for the others of the process too."""
        self.assertEqual(self.ask("PROPFIND", PETRA, at=ASIDE).status, 207)
        self.assertEqual(self.village.took(), ["hs1", "hs3"])

    def test_unknown_node(self) -> None:
        """For a name that does not exist the host chooses, else it is the first; a foreign domain is 404."""
        for host, name in (
            (HS2.host, "hs2"),
            (f"{HS2.host}:80", "hs2"),
            (HS1.host, "hs1"),
            (FABRIK.name, "hs1"),
        ):
            answer = self.ask("PROPFIND", "http://x/instmsg/aliases/nobody", host=host)
            self.assertEqual((answer.status, self.village.took()), (404, [name]))
        self.assertEqual(
            self.ask("PROPFIND", "http://im.elsewhere.example/instmsg/aliases/petra").status, 404
        )

    def test_options(self) -> None:
        """What is asked of no node at all is asked of the home that the host names."""
        answer = self.village.call(PLACE, "OPTIONS", "*", host=HS2.host)
        self.assertEqual((answer.status, self.village.took()), (501, ["hs2"]))

    def test_far_node(self) -> None:
        """A node of another process is reached over its link, as ever."""
        self.assertEqual(self.ask("PROPFIND", f"http://{FABRIK.name}/instmsg/aliases/tomasz").status, 207)
        self.assertEqual((self.village.took(), self.process.links.connected), (["far", "hs1"], 1))

    def test_cold_directory(self) -> None:
        """Who is not remembered is looked up first, and then it is as before."""
        self.process.directory.remembered.clear()
        self.assertEqual(self.ask("PROPFIND", INGRID).status, 207)
        self.assertEqual(self.village.took(), ["hs1", "hs2"])

    def test_moved_between_sisters(self) -> None:
        """A user who moves from one to the other is at once answered for by the other, at every old URL."""
        key = f"{FABRIK.name}/instmsg/aliases/petra"
        self.login(PETRA, 4001)
        self.process.directory.move(key, HS2)
        local = f"http://{HS1.host}/instmsg/local/{key}"
        self.assertEqual(self.ask("PROPFIND", local).status, 207)
        self.assertEqual(self.login(PETRA, 4001).status, 200)
        self.assertEqual([len(hosted.home.keeper) for hosted in self.process.homes.values()], [0, 1, 0])


class ReferralTests(HostingCase):
    """Who is referred to a home repeats the call at the same address and port, under the other host."""

    policies: ClassVar[dict[str, str]] = {"authentication": "off", "referral": "always"}

    def test_from_a_router(self) -> None:
        """A router's referrals to two homes of one process lead each to the right one."""
        self.village.start_router("r1")
        for url, name in (
            (PETRA, "hs1"),
            (INGRID, "hs2"),
            (f"http://{ORCHARD.name}/instmsg/aliases/olga", "hs3"),
        ):
            domain, slash, path = url.removeprefix("http://").partition("/")
            answer, referrals = self.village.follow(("192.0.2.1", 80), target=slash + path, host=domain)
            self.assertEqual((answer.status, referrals), (207, 1))
            self.assertEqual(self.village.took("hs1", "hs2", "hs3"), [name])

    def test_stale_referral(self) -> None:
        """One to the home that had the node before is answered by the sister that has it now."""
        router = self.village.start_router("r1")
        key = f"{FABRIK.name}/instmsg/aliases/petra"
        router.directory.move(key, HS2, silently=True)
        self.process.directory.move(key, HS2)
        answer, referrals = self.village.follow(("192.0.2.1", 80))
        self.assertEqual((answer.status, referrals), (207, 1))

    def test_forwarded(self) -> None:
        """A router that still has the old home is told to look again, though its sister has the node."""
        router = self.village.start_router("r1")
        key = f"{FABRIK.name}/instmsg/aliases/petra"
        router.directory.move(key, HS2, silently=True)
        self.process.directory.move(key, HS2)
        server = {"RVP-From-Principal": FABRIK.name}  # a server is not referred
        answer = self.village.call(("192.0.2.1", 80), headers=server)
        self.assertEqual(answer.status, 207)
        self.assertEqual(router.directory.forgotten, [key])


class SeparateStateTests(HostingCase):
    """Each has its own book of nodes, journal and figures; a change at one is told at the other."""

    def test_across(self) -> None:
        """Presence and messages go from one to the other without a link, and are each home's own."""
        self.assertEqual(self.login(PETRA, 4001).status, 200)
        self.assertEqual(self.login(INGRID, 4002).status, 200)
        watched = self.ask(
            "SUBSCRIBE",
            PETRA,
            who=INGRID,
            Notification_Type="update/propchange",
            Subscription_Lifetime="14400",
            Call_Back=INGRID,
        )
        self.assertEqual(watched.status, 207)
        self.assertEqual(self.ask("PROPPATCH", PETRA, leased("busy"), who=PETRA).status, 207)
        self.village.network.pump()
        (told,) = self.process.outgoing.take()
        self.assertEqual(told.port, 4002)
        self.assertIn(b"<r:busy/>", told.wire)
        self.assertEqual(told.call.headers[b"rvp-hop-count"], b"2")
        told.reply()
        self.process.outgoing.answers[4001] = 200
        text = message(INGRID, PETRA, "Coffee?")
        self.assertEqual(self.ask("NOTIFY", PETRA, text, who=INGRID, RVP_Ack_Type="DeepOr").status, 200)
        (heard,) = self.process.outgoing.take()
        self.assertEqual((heard.port, heard.call.headers[b"rvp-hop-count"]), (4001, b"2"))
        self.assertEqual(self.process.links.connected, 0)
        for name, logins, watchers in (("hs1", 1, 1), ("hs2", 1, 0), ("hs3", 0, 0)):
            self.assertEqual(self.process.metric("rvp_subscriptions", node=name, type="login"), logins)
            self.assertEqual(self.process.metric("rvp_subscriptions", node=name, type="property"), watchers)
        self.assertEqual(
            [len(hosted._journal.written) > 0 for hosted in self.process.homes.values()],  # type: ignore[attr-defined]
            [True, True, False],
        )

    def test_watcher_signs_off(self) -> None:
        """A watcher whom the sister cannot reach is no fault, and nothing is tried again for it."""
        self.ask(
            "SUBSCRIBE",
            PETRA,
            who=INGRID,
            Notification_Type="update/propchange",
            Subscription_Lifetime="14400",
            Call_Back=INGRID,
        )
        self.ask("PROPPATCH", PETRA, leased("busy"), who=PETRA)
        self.village.network.advance(5)
        self.assertEqual(self.process.outgoing.take(), [])
        self.assertEqual(self.process.metric("rvp_notifications_total", node="hs1", outcome="retried"), 0)

    def test_requests(self) -> None:
        """A request is counted for the home that was asked; one that cannot be read, for the first."""
        labels = {"verb": "PROPFIND", "code": "207"}
        self.ask("PROPFIND", INGRID, host=HS2.host)
        self.ask("PROPFIND", f"http://{HS2.host}/instmsg/local/{PETRA.removeprefix('http://')}")
        self.ask("PROPFIND", INGRID)
        self.process.directory.remembered.clear()
        self.process.directory.later = True
        self.village.clock.callLater(1, self.process.directory.answer_finds)
        self.ask("PROPFIND", INGRID, host=HS2.host)
        self.village.call(PLACE, "PROPFIND", "/", host=HS2.host)
        self.village.call(PLACE, "PROPFIND", PETRA, headers={"Content-Length": "x"})
        self.assertEqual(self.process.metric("rvp_requests_total", node="hs2", **labels), 3)
        self.assertEqual(self.process.metric("rvp_requests_total", node="hs1", **labels), 1)
        for name, code in (("hs2", "404"), ("hs1", "400")):
            requests = [
                sample.value
                for metric in self.process.registry.collect()
                for sample in metric.samples
                if sample.name == "rvp_requests_total"
                and (sample.labels["node"], sample.labels["code"]) == (name, code)
            ]
            self.assertEqual(requests, [1], (name, code))


class HandshakeTests(HostingCase):
    """Who proves himself to one home has proved himself to the process."""

    policies: ClassVar[dict[str, str]] = {"authentication": "required"}
    proof = (Verifier("nt", "petra", "", nt_hash("Blue-Kite-41").hex()),)

    def setUp(self) -> None:
        """Petra has a password."""
        super().setUp()
        account = make_account(f"{FABRIK.name}/instmsg/aliases/petra", HS1)
        self.process.directory.put(replace(account, verifiers=self.proof))

    def test_challenges(self) -> None:
        """The realm of a challenge is the domain of the node, whoever is asked."""
        for url, domain in ((PETRA, FABRIK.name), (INGRID, ORCHARD.name)):
            local = f"/instmsg/local/{url.removeprefix('http://')}"
            for asked in (url, f"http://{HS1.host}{local}", f"http://{HS2.host}{local}"):
                answer = self.ask("ACL", asked, User_Agent=FOLLOWER)
                self.assertEqual(answer.status, 401)
                self.assertTrue(any(f'realm="{domain}"'.encode() in line for line in answer.challenges))

    def test_ntlm(self) -> None:
        """A handshake goes on wherever its next leg is answered, and holds at every sister."""
        client, caller = NtlmClient("petra", "Blue-Kite-41"), self.village.dial(PLACE)
        local = f"/instmsg/local/{PETRA.removeprefix('http://')}"
        first = caller.ask(
            "PROPFIND", "/instmsg/aliases/ingrid", host=ORCHARD.name, headers={"Authorization": client.step()}
        )
        self.assertEqual(first.status, 401)
        proof = {"Authorization": client.step(first.challenges[0].decode())}
        self.assertEqual(caller.ask("ACL", local, host=HS2.host, headers=proof).status, 200)
        self.assertEqual(caller.ask("ACL", "/instmsg/aliases/petra", host=FABRIK.name).status, 200)
        who = {"RVP-From-Principal": PETRA}
        self.assertEqual(
            caller.ask("PROPFIND", "/instmsg/aliases/ingrid", host=ORCHARD.name, headers=who).status, 207
        )
        caller.close()
        self.assertEqual(self.ask("ACL", PETRA).status, 401)

    def test_guesses(self) -> None:
        """Wrong passwords are counted by the process, whichever home they are tried at."""
        for number in range(40):
            host = (HS1.host, HS2.host, FABRIK.name)[number % 3]
            path = f"/instmsg/local/{PETRA.removeprefix('http://')}"
            client, caller = NtlmClient("petra", "wrong"), self.village.dial(PLACE)
            first = caller.ask("ACL", path, host=host, headers={"Authorization": client.step()})
            proof = {"Authorization": client.step(first.challenges[0].decode())}
            self.assertEqual(caller.ask("ACL", path, host=host, headers=proof).status, 401)
            caller.close()
        counted = {
            cause: self.process.metric("rvp_auth_failures_total", node="hs1", method="ntlm", cause=cause)
            for cause in ("wrong-password", "throttled")
        }
        self.assertEqual(counted, {"wrong-password": 10, "throttled": 30})


class PlaceTests(SynchronousTestCase):
    """What homes can run together, and where they listen."""

    def home(self, name: str, port: int, link_port: int, address: str = "", host: str = "") -> Home:
        """A home."""
        return Home(name, name, host or f"{name}.fabrik.example", port, link_port, address)

    def test_listeners(self) -> None:
        """There is one listener for each address and port; one on every address takes the others in."""
        self.assertEqual(
            listeners_of([HS1, HS2, HS3, FAR]),
            {
                HostPort("192.0.2.10", 80): [HS1, HS2],
                HostPort("192.0.2.10", 8080): [HS3],
                HostPort("192.0.2.11", 80): [FAR],
            },
        )
        anywhere = self.home("hs5", 80, 8085)
        self.assertEqual(listeners_of([HS1, anywhere])[HostPort("", 80)], [HS1, anywhere])

    def test_together(self) -> None:
        """Homes of one address need a link port each; those of several addresses do not."""
        check_together([HS1, HS2, HS3, FAR])
        for one, other, why in (
            (HS1, self.home("hs5", 80, 8081, "192.0.2.10"), "would both listen on port 8081"),
            (HS1, self.home("hs5", 80, 8081), "would both listen on port 8081"),
            (HS1, self.home("hs5", 8081, 8085), "would both listen on port 8081"),
            (HS1, self.home("hs5", 8085, 80), "would both listen on port 80"),
            (HS1, self.home("hs5", 80, 8085, "192.0.2.10", HS1.host), "are both hs1.fabrik.example port 80"),
        ):
            with self.subTest(other=other):
                refused = self.assertRaises(SystemExit, check_together, [FAR, one, other])
                self.assertIn(why, str(refused))


class StateFilesTests(SynchronousTestCase):
    """One home has its state in the directory, several have one each below it."""

    def setUp(self) -> None:
        """A directory that is still to be made."""
        self.top: Path = make_folder(self) / "state"

    def test_made(self) -> None:
        """Directories are made, and nobody else may read them."""
        self.assertEqual(state_files(str(self.top), ["hs1"]), [self.top / "home.sqlite"])
        found = state_files(str(self.top), ["hs1", "hs2"])
        self.assertEqual(found, [self.top / "hs1" / "home.sqlite", self.top / "hs2" / "home.sqlite"])
        for file in found:
            self.assertEqual(file.parent.stat().st_mode & 0o777, 0o700)

    def test_nothing_forgotten(self) -> None:
        """A state that the homes would not find is not passed over in silence."""
        (alone,) = state_files(str(self.top), ["hs1"])
        alone.touch()
        refused = self.assertRaises(SystemExit, state_files, str(self.top), ["hs1", "hs2"])
        self.assertIn(
            f"move home.sqlite* to {self.top / 'hs1'} if it was hs1, else delete them", str(refused)
        )
        alone.rename(self.top / "hs1" / "home.sqlite")
        state_files(str(self.top), ["hs1", "hs2"])
        refused = self.assertRaises(SystemExit, state_files, str(self.top), ["hs1"])
        self.assertIn(f"give --state-dir {self.top / 'hs1'} to run hs1 alone", str(refused))
        state_files(str(self.top), ["hs3"])

    def test_not_to_be_had(self) -> None:
        """Where no directory can be made, that is said in one sentence."""
        self.top.write_text("in the way")
        for names in (["hs1"], ["hs1", "hs2"]):
            refused = self.assertRaises(SystemExit, state_files, str(self.top), names)
            self.assertIn(f"rvp-home: --state-dir {self.top}: ", str(refused))
