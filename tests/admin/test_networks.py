"""Ranges of addresses: given as a whole, with what they mean; and what a router does with a call."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from rvpfarm.admin import handlers, routes
from rvpfarm.admin.networks import consequence, enumerate_ranges, range_text, warnings_about
from rvpfarm.directory.model import Domain, Farm, Home, Network
from rvpfarm.directory.referral import Redirect, route
from tests.admin.test_command import CommandCase
from tests.admin.test_handlers import HandlerCase

PETRA_AT_HS1 = "http://hs1.fabrik.example/instmsg/local/im.fabrik.example/instmsg/aliases/petra"


class SetTests(HandlerCase):
    """C{network set} replaces the ranges of one kind, in one change."""

    def shown(self, kind: str) -> list[str]:
        """The ranges of C{kind} that count."""
        networks = handlers.farm_of(self.store).networks
        return sorted(range_text(one) for one in networks if one.kind == kind)

    def test_set(self) -> None:
        """Exactly the given ranges count, the others of that kind no longer, those of other kinds still."""
        handlers.add_network(self.store, "inside", "192.0.2.0/24")
        handlers.add_network(self.store, "call-back", "192.0.2.0/24")
        done = handlers.set_networks(
            self.store, "inside", ["10.0.0.0/8", "2001:DB8::/32", "192.0.2.7", "198.51.100.1-198.51.100.9"]
        )
        self.assertEqual(
            self.shown("inside"), ["10.0.0.0/8", "192.0.2.7", "198.51.100.1-198.51.100.9", "2001:db8::/32"]
        )
        self.assertEqual(self.shown("call-back"), ["192.0.2.0/24"])
        self.assertEqual([range_text(one) for one in done.removed], ["192.0.2.0/24"])
        self.assertEqual(len(done.added), 4)
        self.assertEqual(done.farm.networks, handlers.farm_of(self.store).networks)

    def test_one_change(self) -> None:
        """It is one row of the audit trail; giving the same again is none."""
        handlers.set_networks(self.store, "inside", ["10.0.0.0/8", "192.0.2.0/24"], actor="ann")
        row = handlers.list_audit(self.store)[-1]
        self.assertEqual((row.actor, row.action, row.subject), ("ann", "network set", "inside"))
        self.assertEqual(json.loads(row.before)["networks"], {"kind": "inside", "ranges": []})
        self.assertEqual(
            json.loads(row.after)["networks"]["ranges"],
            [["10.0.0.0", "10.255.255.255"], ["192.0.2.0", "192.0.2.255"]],
        )
        again = handlers.set_networks(self.store, "inside", ["192.0.2.0/24", "10.0.0.0/8"])
        self.assertEqual((again.added, again.removed), ((), ()))
        self.assertEqual(handlers.list_audit(self.store)[-1], row)
        self.assertIs(handlers.check_audit(self.store), None)

    def test_none(self) -> None:
        """The list may be empty."""
        handlers.add_network(self.store, "inside", "192.0.2.0/24")
        handlers.set_networks(self.store, "inside", [])
        self.assertEqual(self.shown("inside"), [])

    def test_dry_run(self) -> None:
        """A rehearsal says what would come and go, and changes nothing."""
        handlers.add_network(self.store, "inside", "192.0.2.0/24")
        before = handlers.list_audit(self.store)
        done = handlers.set_networks(self.store, "inside", ["10.0.0.0/8"], dry_run=True)
        self.assertEqual((len(done.added), len(done.removed)), (1, 1))
        self.assertIn("10.0.0.0/8", consequence(done.farm, "inside")[0])
        self.assertEqual(self.shown("inside"), ["192.0.2.0/24"])
        self.assertEqual(handlers.list_audit(self.store), before)

    def test_overlapping(self) -> None:
        """Ranges that overlap, adjoin or are repeated are accepted, and said to do so."""
        done = handlers.set_networks(
            self.store,
            "inside",
            ["10.0.0.128/25", "10.0.0.0/25", "10.0.0.0/24", "10.0.0.0/24", "10.0.1.0/24", "10.0.3.0/24"],
        )
        self.assertEqual(
            done.notes,
            (
                "1 of the ranges were given more than once.",
                "10.0.0.0/24 and 10.0.0.0/25 overlap; both are kept.",
                "10.0.0.0/24 and 10.0.0.128/25 overlap; both are kept.",
                "10.0.0.0/24 and 10.0.1.0/24 adjoin each other; both are kept.",
            ),
        )
        self.assertEqual(len(self.shown("inside")), 5)

    def test_refused(self) -> None:
        """One bad range refuses all of them."""
        self.refused(
            "no range of IP addresses", handlers.set_networks, "inside", ["10.0.0.0/8", "10.0.0.0/40"]
        )
        self.refused("one of inside", handlers.set_networks, "outside", ["10.0.0.0/8"])


class WordsTests(HandlerCase):
    """What ranges mean is said in words, and what is probably a mistake too (D24)."""

    def farm(self, *networks: Network, **policies: str) -> Farm:
        """A farm with these ranges and policies."""
        domain = Domain("im.fabrik.example", policies=policies)
        return Farm(domains={domain.name: domain}, networks=networks)

    def test_inside(self) -> None:
        """The sentences of product rule F23."""
        self.assertEqual(
            consequence(self.farm(Network("inside", "10.0.0.0", "10.255.255.255")), "inside"),
            (
                "This network is protected by a firewall: callers from 10.0.0.0/8 are referred when they can "
                "follow, everybody else is forwarded.",
            ),
        )
        self.assertTrue(consequence(self.farm(), "inside")[0].startswith("No inside range: everybody is"))

    def test_policy_against_ranges(self) -> None:
        """Where the policy makes ranges pointless, that is said."""
        farm = self.farm(Network("inside", "10.0.0.0", "10.0.0.1"), referral="never")
        self.assertIn("policy referral is never for im.fabrik.example", consequence(farm, "inside")[1])

    def test_other_kinds(self) -> None:
        """The other kinds have their own meaning, and another without ranges."""
        for kind, some, none in (
            ("trusted-proxy", "the address that the proxy's header names", "No trusted proxy"),
            ("call-back", "subscribe-others", "No call-back range"),
        ):
            self.assertIn(some, consequence(self.farm(Network(kind, "10.0.0.0", "10.0.0.1")), kind)[0])
            self.assertIn(none, consequence(self.farm(), kind)[0])

    def test_proxy_inside(self) -> None:
        """A trusted proxy within the inside ranges is warned of; a neighbour is not."""
        inside = Network("inside", "10.0.0.0", "10.0.0.255")
        farm = self.farm(inside, Network("trusted-proxy", "10.0.0.255", "10.0.1.9"))
        (warning,) = warnings_about(farm)
        self.assertIn("the trusted proxy 10.0.0.255-10.0.1.9 lies in an inside range", warning)
        self.assertIn("see that it writes X-Forwarded-For itself", warning)
        self.assertEqual(
            warnings_about(self.farm(inside, Network("trusted-proxy", "10.0.1.0", "10.0.1.9"))), ()
        )
        deaf = Farm(networks=farm.networks, policies={"forwarded-header": "none"})
        self.assertIn("all that comes through it counts as inside", warnings_about(deaf)[0])

    def test_everybody(self) -> None:
        """Ranges that take in nearly everybody are warned of, also in several pieces and in each version."""
        for networks, version in (
            ([("0.0.0.0", "255.255.255.255")], "IPv4"),
            ([("0.0.0.0", "127.255.255.255"), ("128.0.0.0", "255.255.255.255")], "IPv4"),
            ([("1.0.0.0", "223.255.255.255")], "IPv4"),
            ([("2000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")], "IPv6"),
        ):
            for kind in handlers.NETWORK_KINDS:
                found = warnings_about(self.farm(*(Network(kind, *ends) for ends in networks)))
                self.assertIn(f"nearly every {version} address counts as {kind}", found[0])
        both = warnings_about(self.farm(Network("inside", "::", "ffff:" * 7 + "ffff")))
        self.assertEqual(len(both), 2)
        private = [("10.0.0.0", "10.255.255.255"), ("172.16.0.0", "172.31.255.255"), ("fc00::", "fdff::")]
        self.assertEqual(warnings_about(self.farm(*(Network("inside", *ends) for ends in private))), ())

    def test_text(self) -> None:
        """A range is written as a prefix where it is one, and a long list is cut."""
        for first, last, text in (
            ("10.0.0.0", "10.255.255.255", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.2", "10.0.0.1-10.0.0.2"),
            ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
        ):
            self.assertEqual(range_text(Network("inside", first, last)), text)
        many = [Network("inside", f"10.0.{n}.7", f"10.0.{n}.7") for n in range(15)]
        self.assertTrue(enumerate_ranges(many).endswith("10.0.11.7 and 3 more"))


class ExplanationTests(HandlerCase):
    """What is explained is what a router does."""

    def setUp(self) -> None:
        """Petra on the first home, and ranges of every kind."""
        super().setUp()
        handlers.enable_user(self.store, "petra@fabrik.example", "hs1")
        handlers.set_networks(self.store, "inside", ["10.0.0.0/24"])
        handlers.set_networks(self.store, "trusted-proxy", ["192.0.2.80"])
        handlers.set_networks(self.store, "call-back", ["198.51.100.0/24"])

    def explain(self, peer: str, **more: str) -> routes.Explanation:
        """The explanation of a call to petra."""
        return routes.explain(routes.think_of(self.store, peer, user="petra", **more))

    def test_inside(self) -> None:
        """A follower inside is referred to the user's own home."""
        found = self.explain("10.0.0.255")
        self.assertEqual((found.inside, found.ranges, found.follows), (True, ("10.0.0.0/24",), True))
        self.assertEqual([one.url for one in found.decisions], [PETRA_AT_HS1])

    def test_forwarded(self) -> None:
        """A client that does not follow, or calls from outside, is forwarded."""
        for peer, more in (("10.0.0.1", {"user_agent": "curl/8"}), ("10.0.1.0", {})):
            (decision,) = self.explain(peer, **more).decisions
            self.assertEqual((decision.word, decision.url, decision.home.name), ("forward", "", "hs1"))

    def test_policy(self) -> None:
        """The policy of the domain goes before ranges and client."""
        handlers.set_policy(self.store, "referral", "always", "im.fabrik.example")
        found = self.explain("203.0.113.9", user_agent="")
        self.assertEqual((found.referral, found.decisions[0].word), ("always", "refer"))

    def test_proxy(self) -> None:
        """Behind a trusted proxy the caller is whom its header names; a stranger's header is ignored."""
        found = self.explain("192.0.2.80", forwarded="203.0.113.9, 10.0.0.7")
        self.assertEqual((found.caller.address, found.inside), ("10.0.0.7", True))
        found = self.explain("192.0.2.81", forwarded="10.0.0.7")
        self.assertEqual(
            (found.caller.address, found.caller.proxy, found.inside), ("192.0.2.81", False, False)
        )

    def test_unknown_caller(self) -> None:
        """A proxy that does not say who calls is no caller itself: nobody is referred for its sake."""
        for forwarded in (None, "unknown"):
            call = routes.think_of(self.store, "192.0.2.80", user="petra", forwarded=forwarded)
            found = routes.explain(call)
            self.assertEqual((found.caller.address, found.inside), ("", False))
            self.assertEqual((found.decisions[0].word, found.call_back), ("forward", "unknown"))
        self.assertEqual(self.explain("192.0.2.80", forwarded="10.0.0.256").decisions, ())

    def test_back(self) -> None:
        """A home whose URL leads back to a router is not referred to."""
        found = self.explain("10.0.0.7", host="HS1.fabrik.example")
        self.assertTrue(found.decisions[0].back)
        self.assertEqual(found.decisions[0].word, "forward")

    def test_host(self) -> None:
        """A host that means no domain here is said to be none."""
        self.assertTrue(self.explain("10.0.0.7", host="omnent:80").served)
        self.assertFalse(self.explain("10.0.0.7", host="im.elsewhere.example").served)

    def test_call_back(self) -> None:
        """Everybody may be called back at his own address; at others' only where a range allows it."""
        for peer, own, others in (
            ("198.51.100.7", None, None),
            ("203.0.113.9", None, "network"),
            ("127.0.0.1", None, "special"),
        ):
            found = self.explain(peer)
            self.assertEqual((found.call_back, found.call_back_by_others), (own, others))

    def test_anybody(self) -> None:
        """Without a user there is a decision for each home."""
        found = routes.explain(routes.think_of(self.store, "::ffff:10.0.0.1"))
        self.assertEqual([one.home.name for one in found.decisions], ["hs1", "hs2"])
        self.assertTrue(all(one.url.endswith("/instmsg/aliases/USER") for one in found.decisions))
        self.assertEqual(found.call.peer, "10.0.0.1")

    def test_refused(self) -> None:
        """What is unknown, unclear or contradictory is refused."""
        think = routes.think_of
        self.refused("is not an IP address", think, "hs1.fabrik.example")
        self.refused("there is no user", think, "10.0.0.1", user="nobody")
        self.refused("there is no IM domain", think, "10.0.0.1", domain="im.elsewhere.example")
        handlers.add_domain(self.store, "im.orchard.example")
        self.refused("in which domain?", think, "10.0.0.1")
        self.refused("leave --domain out", think, "10.0.0.1", user="petra", domain="im.orchard.example")

    def test_edges(self) -> None:
        """Each edge of what is inside is tried on both sides, and ranges that adjoin have none between."""
        handlers.set_networks(
            self.store, "inside", ["10.0.0.0/25", "10.0.0.128/25", "0.0.0.0/8", "2001:db8::7", "::"]
        )
        found = routes.edges(routes.think_of(self.store, "127.0.0.1"))
        self.assertEqual(
            [(edge.address, edge.inside, routes.summarize(edge.decisions)) for edge in found],
            [
                ("::", True, "refer"),
                ("::1", False, "forward"),
                ("0.0.0.0", True, "refer"),
                ("0.255.255.255", True, "refer"),
                ("1.0.0.0", False, "forward"),
                ("9.255.255.255", False, "forward"),
                ("10.0.0.0", True, "refer"),
                ("10.0.0.255", True, "refer"),
                ("10.0.1.0", False, "forward"),
                ("2001:db8::6", False, "forward"),
                ("2001:db8::7", True, "refer"),
                ("2001:db8::8", False, "forward"),
            ],
        )

    def test_homes_differ(self) -> None:
        """Where the decision depends on the home, that is said."""
        call = routes.think_of(self.store, "10.0.0.1", host="hs1.fabrik.example")
        self.assertEqual(routes.summarize(routes.explain(call).decisions), "forward to hs1; refer to hs2")

    @given(
        st.integers(0, 600).map(lambda n: str(ip_address("9.255.255.0") + n)),
        st.sampled_from(["msmsgs/5", "MSMSGS/4", "curl/8", ""]),
        st.sampled_from(["im.fabrik.example", "hs1.fabrik.example"]),
        st.sampled_from(["auto", "always", "never"]),
    )
    @settings(max_examples=60, deadline=None)
    def test_as_routers_decide(self, peer: str, user_agent: str, host: str, policy: str) -> None:
        """Whatever the call, the explanation ends as a router's decision does."""
        home = Home("1", "hs1", "hs1.fabrik.example", 80, 8081)
        domain = Domain("im.fabrik.example", policies={"referral": policy})
        farm = Farm({domain.name: domain}, {"1": home}, {}, (Network("inside", "10.0.0.0", "10.0.0.255"),))
        with self.store.read() as reading:
            account = reading.account("im.fabrik.example/instmsg/aliases/petra")
        assert account is not None
        call = routes.Call(peer, farm, domain.name, ((account, home),), user_agent, host)
        routed = route(account, home, farm, peer=peer, user_agent=user_agent.encode(), asked=host)
        found = routes.explain(call)
        self.assertEqual(found.decisions[0].url, routed.url if isinstance(routed, Redirect) else "")
        if policy == "auto":
            self.assertEqual(
                bool(found.decisions[0].url), found.inside and found.follows and not found.decisions[0].back
            )


class VerbTests(CommandCase):
    """The same, as an administrator types it."""

    def setUp(self) -> None:
        """A small farm."""
        super().setUp()
        self.make_farm()

    def test_set(self) -> None:
        """It says what came and went, and what it means."""
        self.run_it("network", "add", "inside", "192.0.2.0/24")
        told = self.run_it("network", "set", "inside", "10.0.0.0/8", "fd00::/8", "--dry-run").stdout
        self.assertEqual(
            told.splitlines(),
            [
                "Would add to inside: 10.0.0.0/8, fd00::/8",
                "Would remove from inside: 192.0.2.0/24",
                "Nothing was changed; it would mean:",
                "This network is protected by a firewall: callers from 10.0.0.0/8, fd00::/8 are referred when "
                "they can follow, everybody else is forwarded.",
            ],
        )
        self.assertIn("192.0.2.0", self.run_it("network", "list").stdout)
        told = self.run_it("network", "set", "inside", "10.0.0.0/8", "10.1.0.0/16").stdout
        self.assertIn("Note: 10.0.0.0/8 and 10.1.0.0/16 overlap; both are kept.", told)
        told = self.run_it("network", "set", "inside", "10.1.0.0/16", "10.0.0.0/8").stdout
        self.assertIn("are these already", told)
        self.assertIn("No inside range: everybody", self.run_it("network", "set", "inside", "--none").stdout)

    def test_set_usage(self) -> None:
        """Ranges or none of them, and of a kind that there is."""
        self.run_it("network", "set", "inside", status=2)
        self.run_it("network", "set", "inside", "10.0.0.0/8", "--none", status=2)
        self.run_it("network", "set", "outside", "10.0.0.0/8", status=2)
        refused = self.run_it("network", "set", "inside", "10.0.0.0/8", "ten", status=1).stderr
        self.assertIn('"ten" is no range of IP addresses', refused)

    def test_warnings(self) -> None:
        """What is probably a mistake is said on standard error, and done."""
        told = self.run_it("network", "set", "inside", "0.0.0.0/0").stderr
        self.assertIn("rvpfarm: warning: nearly every IPv4 address counts as inside", told)
        told = self.run_it("network", "add", "trusted-proxy", "192.0.2.1").stderr
        self.assertIn("the trusted proxy 192.0.2.1 lies in an inside range", told)

    def test_explained(self) -> None:
        """Every step of the decision is named, with the reason."""
        self.run_it("network", "set", "inside", "10.0.0.0/8")
        self.run_it("network", "set", "trusted-proxy", "192.0.2.80")
        self.run_it("user", "enable", "petra@fabrik.example", "--no-password")
        told = self.run_it(
            "network", "test", "192.0.2.80", "--user", "petra", "--forwarded", "10.1.2.3"
        ).stdout
        self.assertEqual(
            [re.sub(r":\s+", ": ", line, count=1) for line in told.splitlines()],
            [
                "Connection from: 192.0.2.80",
                "Trusted proxy: yes: its X-Forwarded-For is believed",
                "Caller: 10.1.2.3",
                "Inside: yes: in 10.0.0.0/8",
                "Asked: im.fabrik.example, for the domain im.fabrik.example",
                "Referral: auto (policy of im.fabrik.example)",
                "Follows: yes: the client is msmsgs/5.1",
                "For hs1: refer the caller to http://hs1.fabrik.example:8080/instmsg/local/im.fabrik.example"
                "/instmsg/aliases/petra",
                "Call-back: the caller itself may name one at that address: its own address",
                "By others: whoever may subscribe others may name none at that address: no call-back range "
                "contains it",
            ],
        )

    def test_explained_otherwise(self) -> None:
        """The other answers have words too."""
        self.run_it("network", "set", "trusted-proxy", "192.0.2.80")
        for args, words in (
            (["192.0.2.80"], "yes, but there is no X-Forwarded-For (--forwarded): who calls is unknown"),
            (["192.0.2.80"], "no: an unknown caller never is"),
            (["192.0.2.80"], "nobody knows where the caller is"),
            (["192.0.2.80", "--forwarded", "unknown"], "yes, but its X-Forwarded-For names no address"),
            (["192.0.2.80", "--forwarded", "x"], "yes, but its X-Forwarded-For cannot be read"),
            (["192.0.2.80", "--forwarded", "x"], "answer 400"),
            (["192.0.2.81", "--forwarded", "10.1.1.1"], "no; what it says about others is not believed"),
            (["192.0.2.81"], "there is no inside range, so everybody is"),
            (["192.0.2.81", "--user-agent", "curl/8"], "no: the client is curl/8"),
            (["192.0.2.81", "--user-agent", "curl/8"], "forward the call to hs2"),
            (["192.0.2.81", "--host", "hs1.fabrik.example"], "its URL would lead back to a router"),
            (["192.0.2.81", "--host", "elsewhere.example"], "the router answers 404"),
        ):
            self.assertIn(words, self.run_it("network", "test", *args).stdout)
        self.run_it("network", "test", status=2)
        self.run_it("network", "test", "192.0.2.1", "--edges", status=2)
        self.assertIn("is not an IP address", self.run_it("network", "test", "hs1", status=1).stderr)

    def test_for_programs(self) -> None:
        """With C{--json} the keys are those that the help names."""
        self.run_it("network", "set", "inside", "10.0.0.0/8")
        words = " ".join(self.run_it("network", "test", "--help").stdout.split())
        found = json.loads(self.run_it("network", "test", "10.0.0.1", "--json").stdout)
        for key in (*found, *found["decisions"][0]):
            self.assertIn(key, words)
        self.assertEqual([one["decision"] for one in found["decisions"]], ["refer", "refer"])
        self.assertEqual((found["header"], found["call_back"]), ("X-Forwarded-For", None))
        edges = json.loads(self.run_it("network", "test", "--edges", "--json").stdout)
        self.assertEqual(
            [(edge["address"], edge["inside"]) for edge in edges],
            [("9.255.255.255", False), ("10.0.0.0", True), ("10.255.255.255", True), ("11.0.0.0", False)],
        )

    def test_edges(self) -> None:
        """The edges are a table."""
        told = self.run_it("network", "test", "--edges").stdout
        self.assertEqual(told, "No inside range: everybody is inside.\n")
        self.run_it("network", "set", "inside", "10.0.0.0/8")
        told = self.run_it("network", "test", "--edges").stdout
        self.assertRegex(told, r"\n11\.0\.0\.0 +outside +forward\n")
