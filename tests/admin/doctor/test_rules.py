"""Each rule of the doctor: the thing is broken and the rule finds it; it is whole and the rule is quiet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.checks import Refused
from rvpfarm.admin.doctor.dnsview import (
    DnsView,
    Outcome,
    Said,
    Source,
    data_of,
    planned,
    questions_about,
)
from rvpfarm.admin.doctor.evidence import Evidence, Probe, audit
from rvpfarm.admin.doctor.figures import Figures, read_figures
from rvpfarm.admin.doctor.findings import Finding, Severity
from rvpfarm.admin.doctor.journey import Journey, Step
from rvpfarm.admin.doctor.table import NOT_APPLICABLE, RULES, chosen, examine, needs_of
from rvpfarm.admin.status import HomeView, Page, Place, Report, judge
from rvpfarm.directory.model import Domain, Farm, Home, Network, Router
from tests.support.directory import make_account, make_farm

MASTER, CACHE = Source(True, "192.0.2.53"), Source(False, "192.0.2.54")

DOMAIN = Domain("im.fabrik.example", ("fabrik.example",))
HS1 = Home("1", "hs1", "hs1.fabrik.example", 80, 8081, "192.0.2.11", metrics="192.0.2.11:9464")
HS2 = Home("2", "hs2", "hs2.fabrik.example", 80, 8081, "192.0.2.12", metrics="192.0.2.12:9464")
R1 = Router("r1", "r1", "r1.fabrik.example", 80, "192.0.2.1", metrics="192.0.2.1:9464")
R2 = Router("r2", "r2", "r2.fabrik.example", 80, "192.0.2.2", metrics="192.0.2.2:9464")
INSIDE = Network("inside", "10.0.0.0", "10.255.255.255")
NOW = 1_000_000.0


def the_farm(**changes: object) -> Farm:
    """A farm without a fault."""
    return replace(make_farm([DOMAIN], [HS1, HS2], [R1, R2], networks=[INSIDE]), **changes)  # type: ignore[arg-type]


def the_dns(
    farm: Farm, others: Mapping[tuple[Source, str, str], Sequence[str] | None] | None = None
) -> DnsView:
    """What the DNS says when the plan of C{farm} is published.

    @param others: what one server says instead: the data, or C{None} for no answer.
    """
    plan = planned(farm)
    said = []
    for question in questions_about(farm):
        for source in (MASTER, CACHE):
            data: frozenset[str] | None = data_of(plan.get(question, ()))
            key = (source, question.name, question.type)
            if others is not None and key in others:
                given = others[key]
                data = None if given is None else frozenset(given)
            if data is None:
                said.append(Said(source, question, Outcome.SILENT, why="no answer in time"))
            else:
                outcome = Outcome.FOUND if data else Outcome.NONE
                said.append(Said(source, question, outcome, data, 17 if source is CACHE else 60))
    return DnsView(tuple(said))


def everywhere(name: str, kind: str, *data: str) -> dict[tuple[Source, str, str], Sequence[str] | None]:
    """Both servers say so."""
    return {(source, name, kind): data for source in (MASTER, CACHE)}


def page(role: str, name: str, **changes: object) -> Page:
    """The page of a process that is well."""
    homes = {"hs1": HomeView("up"), "hs2": HomeView("up")} if role == "router" else {}
    whole = Page(
        role,
        name,
        "1.0",
        True,
        staleness_seconds=1.0,
        config="abc",
        time=NOW,
        disk_free=9e9,
        disk_total=1e10,
        homes=homes,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def report_of(farm: Farm, others: Mapping[str, Page | str] | None = None) -> Report:
    """The report of C{farm}, whose processes are well but for C{others}."""
    answers: list[tuple[Place, Page | str]] = []
    unknown: list[Home | Router] = []
    servers: list[Home | Router] = [*farm.routers.values(), *farm.homes.values()]
    for server in servers:
        role = "home" if isinstance(server, Home) else "router"
        host, _, port = server.metrics.rpartition(":")
        if not host:
            unknown.append(server)
            continue
        answer = (others or {}).get(server.name, page(role, server.name))
        answers.append((Place(role, server.name, host, int(port)), answer))
    return judge(farm, answers, unknown)


QUIET = """
rvp_requests_total{code="200"} 5000
rvp_requests_total{code="500"} 1
rvp_directory_up 1
rvp_queue_depth{queue="inbound"} 3
rvp_rejected_total{reason="queue"} 0
rvp_rejected_total{reason="conn"} 0
rvp_breaker_open{target="hs1"} 0
rvp_sessions_deaf 0
rvp_sessions 800
rvp_users_online 700
rvp_call_backs_failing 1
rvp_lease_late_total 2
rvp_lease_renewed_total{kind="presence"} 9000
rvp_auth_failures_total{method="ntlm",cause="wrong-password"} 4
rvp_connections 1000
rvp_connections_limit 20000
rvp_connections_private 2
rvp_user_agents_total{agent="msmsgs/4.6"} 900
rvp_subscriptions{type="login"} 800
rvp_certificate_expires_timestamp_seconds{listener="listen"} 9000000
"""


def figures(*changes: str) -> Figures:
    """The metrics of a process that is well, but for some lines."""
    lines = {line.rpartition(" ")[0]: line for line in QUIET.split("\n") if line}
    lines |= {line.rpartition(" ")[0]: line for line in changes}
    return read_figures("\n".join(lines.values()))


def well(**changes: object) -> Evidence:
    """A farm that nothing is wrong with, but for C{changes}."""
    farm = changes.get("farm", the_farm())
    assert isinstance(farm, Farm)
    users = [make_account(f"{DOMAIN.name}/instmsg/aliases/ann", HS1)]
    users = [replace(one, address=one.address.replace("@im.", "@")) for one in users]
    evidence = Evidence(
        farm,
        audit(farm, users),
        the_dns(farm),
        report_of(farm),
        {title: figures() for title in ("r1", "hs1")},
        probes=(Probe(DOMAIN.name, "192.0.2.1:80", True),),
        journey=Journey((Step("D04", "log in"), Step("D10", "send"))),
        now=NOW,
    )
    return replace(evidence, **changes)  # type: ignore[arg-type]


def shown(*lines: str, title: str = "hs1") -> Evidence:
    """One process shows these metrics."""
    return well(figures={title: figures(*lines)})


def accounts(**changes: object) -> Evidence:
    """One account is otherwise than it should be."""
    farm = the_farm()
    ann = replace(make_account(f"{DOMAIN.name}/instmsg/aliases/ann", HS1), address="ann@fabrik.example")
    return well(accounts=audit(farm, [replace(ann, **changes)]))  # type: ignore[arg-type]


def broken_journey(rule: str) -> Evidence:
    """A step of the journey failed."""
    return well(journey=Journey((Step(rule, "do it", "nothing came", "rvpfarm status"),)))


@dataclass(frozen=True, slots=True)
class Case:
    """Something broken.

    @ivar what: words that the finding must have; C{remedy} likewise.
    """

    rule: str
    evidence: Evidence
    what: str
    remedy: str
    severity: Severity = Severity.ERROR


def cases() -> list[Case]:
    """Every rule, broken in every way that it knows."""
    farm = the_farm()
    view = the_dns
    srv, im = "_rvp._tcp.fabrik.example", DOMAIN.name
    short = the_farm(homes={"1": replace(HS1, host="hs1"), "2": HS2})
    no_router = the_farm(routers={"r1": replace(R1, state="draining"), "r2": replace(R2, state="draining")})
    drained = the_farm(routers={"r1": R1, "r2": replace(R2, state="draining")})
    nowhere = the_farm(homes={"1": replace(HS1, metrics=""), "2": HS2})
    shared = the_farm(homes={"1": replace(HS1, host="r1.fabrik.example"), "2": HS2})
    wide = the_farm(networks=(Network("inside", "0.0.0.0", "255.255.255.255"),))
    proxied = the_farm(networks=(INSIDE, Network("trusted-proxy", "10.0.0.1", "10.0.0.1")))
    ported = the_farm(routers={"r1": replace(R1, port=8080), "r2": replace(R2, port=8080)})
    home_ported = the_farm(homes={"1": replace(HS1, port=8080), "2": HS2})
    ntlm = the_farm(policies={"schemes": "ntlm"})
    late_users = audit(farm, [make_account(f"{im}/instmsg/aliases/bob", HS1)])
    twins = audit(
        farm,
        [
            replace(make_account(f"{im}/instmsg/aliases/{name}", HS1), address="ann@fabrik.example")
            for name in ("ann", "ann2")
        ],
    )
    lacking = audit(farm, [], ["ann@fabrik.example"])
    warn, note = Severity.WARNING, Severity.INFO

    def pages(**others: Page | str) -> Evidence:
        return well(report=report_of(farm, others))

    return [
        Case(
            "D01",
            well(farm=short),
            "hs1, the host of home hs1, is no full",
            "rvpfarm home rename hs1 hs1 --host hs1.",
        ),
        Case(
            "D01",
            well(dns=view(farm, everywhere("hs2.fabrik.example", "A"))),
            "hs2.fabrik.example, the host of home hs2, has no address",
            "publish: hs2.fabrik.example. 60 IN A 192.0.2.12",
        ),
        Case(
            "D02",
            well(dns=view(farm, everywhere(srv, "SRV"))),
            f"there is no SRV record {srv}",
            f"publish: {srv}. 60 IN SRV 0 0 80 im.fabrik.example.",
        ),
        Case(
            "D02",
            well(dns=view(farm, everywhere(srv, "SRV", "0 0 80 r1.fabrik.example."))),
            "leads to r1.fabrik.example port 80, not to im.fabrik.example port 80",
            "SRV 0 0 80 im.fabrik.example.",
        ),
        Case("D02", well(farm=no_router), "no router is active", "rvpfarm router create"),
        Case(
            "D03", pages(hs1="connection refused"), "home hs1 does not answer", "systemctl start rvp-home@hs1"
        ),
        Case(
            "D03",
            pages(hs1=page("home", "hs1", ready=False, reasons=("not listening",))),
            "runs and is not ready: not listening",
            "journalctl",
        ),
        Case(
            "D03",
            well(farm=nowhere, report=report_of(nowhere)),
            "nobody knows where home hs1 shows",
            "rvpfarm home set hs1 --metrics ADDRESS:PORT",
            warn,
        ),
        Case("D03", well(dumb=("hs1",)), "hs1 shows its status and no metrics", "rvpfarm status", warn),
        Case("D04", broken_journey("D04"), "cannot do it: nothing came", "rvpfarm status"),
        Case(
            "D05",
            accounts(home="gone"),
            "1 account is on a home that there is not: ann",
            "rvpfarm user show ann",
        ),
        Case("D05", accounts(domain="gone.example"), "is in the IM domain gone.example", "rvpfarm user show"),
        Case("D05", accounts(address=""), "has no address", "rvpfarm user show"),
        Case(
            "D05", accounts(address="ann@elsewhere.example"), "a domain that is not served here", "readdress"
        ),
        Case("D05", accounts(path="/instmsg/aliases/eve"), "key that does not follow", "rvpfarm user show"),
        Case(
            "D05", well(accounts=twins), "has the address of another", "rvpfarm user show ann@fabrik.example"
        ),
        Case("D06", shown('rvp_requests_total{code="500"} 800'), "has answered 800 of 5800", "--rule D06"),
        Case("D06", broken_journey("D06"), "cannot do it", "rvpfarm status"),
        Case("D07", shown("rvp_directory_up 0"), "home hs1 cannot ask the directory", "rvpfarm domain list"),
        Case(
            "D07",
            pages(r2=page("router", "r2", staleness_seconds=900.0)),
            "is 900 s old",
            "rvpfarm domain list",
        ),
        Case(
            "D08",
            shown('rvp_queue_depth{queue="inbound"} 1000'),
            "1000 requests in work, of 1024",
            "inbound-queue",
            warn,
        ),
        Case(
            "D08",
            shown('rvp_rejected_total{reason="queue"} 7'),
            "turned 7 requests away",
            "add a router",
            warn,
        ),
        Case("D09", shown('rvp_breaker_open{target="hs2"} 1'), "cannot reach home hs2", "rvpfarm status hs2"),
        Case(
            "D09", shown('rvp_queue_depth{queue="outbound"} 5000'), "5000 notifications waiting", "hs1", warn
        ),
        Case("D10", broken_journey("D10"), "cannot do it", "rvpfarm status"),
        Case(
            "D11", shown("rvp_sessions_deaf 1"), "1 call-backs of home hs1 cannot be reached", "is dead", warn
        ),
        Case("D11", broken_journey("D11"), "cannot do it", "rvpfarm status"),
        Case(
            "D12", shown("rvp_sessions_deaf 600"), "600 call-backs of home hs1 are out of reach", "allow TCP"
        ),
        Case(
            "D14", shown("rvp_call_backs_failing 300"), "300 call-backs of home hs1 missed", "network", warn
        ),
        Case(
            "D15",
            shown("rvp_lease_late_total 4000"),
            "4000 presences at home hs1 ran out",
            "PropertyTimeout",
            warn,
        ),
        Case(
            "D16",
            well(accounts=late_users),
            "1 users have addresses at im.fabrik.example",
            "user readdress",
            note,
        ),
        Case(
            "D17",
            shown('rvp_auth_failures_total{method="ntlm",cause="proxied"} 3'),
            "3 sign-ins by NTLM",
            "rvpfarm policy set schemes",
            warn,
        ),
        Case(
            "D18", well(accounts=lacking), "1 enabled users cannot sign in", "rvpfarm user passwd ann@", warn
        ),
        Case(
            "D19",
            pages(hs2=page("home", "hs2", version="0.9")),
            "runs 2 versions: 0.9 at hs2",
            "upgrade",
            warn,
        ),
        Case("D19", pages(hs2=page("home", "hs2", config="old")), "hs2 differ from the rest", "D07", warn),
        Case(
            "D20",
            well(dns=view(farm, {(CACHE, im, "A"): ["192.0.2.9"]})),
            f"still says 192.0.2.9 for {im} A, for 17 seconds more",
            f"rndc flushname {im}",
            warn,
        ),
        Case(
            "D20",
            well(dns=view(farm, {(CACHE, im, "A"): None})),
            "the resolver 192.0.2.54 does not answer",
            "dig @192.0.2.54",
            warn,
        ),
        Case(
            "D21",
            well(dns=view(farm, everywhere(im, "A", "192.0.2.1"))),
            f"{im} lacks the address 192.0.2.2",
            f"publish: {im}. 60 IN A 192.0.2.2",
        ),
        Case(
            "D21",
            well(farm=drained, dns=view(farm)),
            "192.0.2.2 of router r2, which is not to be led to",
            f"take away: {im}. 60 IN A 192.0.2.2",
        ),
        Case(
            "D21",
            well(dns=view(farm, everywhere(im, "A", "192.0.2.1", "192.0.2.2", "192.0.2.77"))),
            "192.0.2.77 of no router of this farm",
            "take away",
        ),
        Case("D21", pages(r2="connection refused"), "router r2 does not answer", "rvpfarm router drain r2"),
        Case(
            "D22",
            well(dns=view(farm, everywhere("hs1.fabrik.example", "A", "192.0.2.11", "192.0.2.12"))),
            "has the addresses 192.0.2.11, 192.0.2.12",
            "take away: hs1.fabrik.example. IN A 192.0.2.12",
        ),
        Case(
            "D22",
            well(dns=view(farm, everywhere("hs1.fabrik.example", "A", "192.0.2.99"))),
            "leads to 192.0.2.99, and the directory says 192.0.2.11",
            "publish: hs1.fabrik.example. 60 IN A 192.0.2.11",
        ),
        Case(
            "D22",
            well(farm=shared),
            "is the host of home hs1 and of router r1",
            "rvpfarm home rename hs1 hs1 --host",
        ),
        Case(
            "D23",
            well(probes=(Probe(im, "192.0.2.1:80", False, "it says that it does not serve this domain"),)),
            f"{im} leads to 192.0.2.1:80, which does not serve it",
            "rvpfarm dns plan",
        ),
        Case("D24", well(farm=wide), "nearly every IPv4 address counts as inside", "rvpfarm network", warn),
        Case(
            "D24",
            well(farm=proxied),
            "the trusted proxy 10.0.0.1 lies in an inside range",
            "rvpfarm network",
            warn,
        ),
        Case(
            "D25",
            shown("rvp_connections_private 700", title="r1"),
            "700 of 1000 connections of router r1",
            "rvpfarm network add inside",
            warn,
        ),
        Case(
            "D29", shown("rvp_connections 17000"), "17000 connections of 20000", "max-connections 40000", warn
        ),
        Case(
            "D29",
            shown('rvp_rejected_total{reason="conn"} 9'),
            "turned 9 connections away",
            "max-connections",
            warn,
        ),
        Case(
            "D30", shown('rvp_user_agents_total{agent="msnp/9.0"} 5'), "msnp/9.0 (5)", "DisableUpdates", note
        ),
        Case("D32", well(farm=ported), "the routers listen on port 8080", "--port 80", warn),
        Case("D32", well(farm=home_ported), "home hs1 carry port 8080", "--port 80", warn),
        Case(
            "D33",
            shown('rvp_subscriptions{type="login"} 5000'),
            "5000 logins of 800 sessions",
            "leases",
            warn,
        ),
        Case("D34", well(farm=ntlm), "offers only ntlm", "rvpfarm policy set schemes", warn),
        Case(
            "E01",
            shown(f'rvp_certificate_expires_timestamp_seconds{{listener="listen"}} {NOW + 864000}'),
            "expires in 10 days",
            "systemctl reload",
            warn,
        ),
        Case(
            "E01",
            shown(f'rvp_certificate_expires_timestamp_seconds{{listener="listen"}} {NOW - 5}'),
            "has expired",
            "systemctl reload",
        ),
        Case(
            "E02", pages(hs1=page("home", "hs1", time=NOW - 90)), "home hs1 is 90 s behind", "chronyc", warn
        ),
        Case("E03", pages(hs1=page("home", "hs1", disk_free=1e6)), "home hs1 has 1 MB left", "df -h"),
        Case(
            "E04",
            pages(r1=page("router", "r1", homes={"hs1": HomeView("down"), "hs2": HomeView("up")})),
            "home hs1 is not reached over the farm link by r1",
            "link port",
        ),
        Case("E05", broken_journey("E05"), "cannot do it", "rvpfarm status"),
        Case("E06", broken_journey("E06"), "cannot do it", "rvpfarm status"),
    ]


class RulesTests(SynchronousTestCase):
    """What is broken is found by the rule for it, with what mends it; what is whole is left in peace."""

    def found(self, evidence: Evidence, rule: str) -> list[Finding]:
        """What one rule finds."""
        return examine(evidence, chosen([rule]))

    def test_quiet(self) -> None:
        """No rule says anything about a farm that is well."""
        self.assertEqual(examine(well(), RULES.values()), [])

    def test_nothing_seen(self) -> None:
        """What nobody looked at is not found to be wrong."""
        self.assertEqual(examine(Evidence(the_farm()), RULES.values()), [])

    def test_broken(self) -> None:
        """Each rule finds what is broken, says how bad it is, and names the remedy."""
        for case in cases():
            with self.subTest(rule=case.rule, what=case.what):
                found = self.found(case.evidence, case.rule)
                fitting = [one for one in found if case.what in one.what]
                self.assertEqual(len(fitting), 1, found)
                self.assertIn(case.remedy, fitting[0].remedy)
                self.assertEqual(fitting[0].severity, case.severity)

    def test_each_rule_is_broken_once(self) -> None:
        """There is a case for every rule."""
        self.assertEqual({case.rule for case in cases()}, set(RULES))

    def test_worst_first(self) -> None:
        """Errors stand before warnings, and these before what is only good to know."""
        evidence = replace(
            shown("rvp_sessions_deaf 600", 'rvp_user_agents_total{agent="msnp/9.0"} 5'), journey=None
        )
        found = examine(evidence, RULES.values())
        self.assertEqual([one.rule for one in found], ["D12", "D11", "D30"])

    def test_many_accounts(self) -> None:
        """However many accounts have a fault, a few are named and all are counted."""
        many = [make_account(f"{DOMAIN.name}/instmsg/aliases/user{number}", "gone") for number in range(1000)]
        (found,) = self.found(well(accounts=audit(the_farm(), many)), "D05")
        self.assertIn("1000 accounts are on a home that there is not", found.what)
        self.assertIn("and 995 more", found.what)


class TableTests(SynchronousTestCase):
    """The table of rules is whole."""

    def test_every_fault(self) -> None:
        """Each known fault has a rule, or a reason why it has none."""
        faults = {f"D{number:02}" for number in range(1, 35)}
        self.assertEqual({id for id in RULES if id.startswith("D")} | set(NOT_APPLICABLE), faults)
        self.assertFalse(set(RULES) & set(NOT_APPLICABLE))

    def test_chosen(self) -> None:
        """Rules are chosen by id in any letter case; others are refused with what to do."""
        self.assertEqual([rule.id for rule in chosen(["d05", "D01"])], ["D01", "D05"])
        with self.assertRaisesRegex(Refused, "does not apply here: there is no polling"):
            chosen(["D13"])
        with self.assertRaisesRegex(Refused, "no rule D99"):
            chosen(["D99"])
        self.assertEqual(needs_of(chosen(["D05"])), {"directory"})

    def test_document(self) -> None:
        """docs/doctor.md lists the rules as the code has them."""
        text = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text("utf-8")
        rows = re.findall(r"^\| ([DE]\d\d) \| (.+?) \| (.+?) \|(?: (.+?) \|)?$", text, re.MULTILINE)
        listed = {id: (what, why) for id, what, why, _ in rows}
        wanted = {rule.id: (rule.title, rule.why) for rule in RULES.values()}
        wanted |= {id: ("does not apply", why) for id, why in NOT_APPLICABLE.items()}
        self.assertEqual(listed, wanted)


class FiguresTests(SynchronousTestCase):
    """Metrics pages are read as far as they make sense."""

    def test_nonsense(self) -> None:
        """What is no sample, or no number, is passed over."""
        found = read_figures(
            '# HELP\nrvp_a 1\nrvp_b{x="1",y="a\\"b"} 2\nrvp_a nonsense\nrvp_c NaN\nother 3\n'
        )
        self.assertEqual(set(found.samples), {"rvp_a", "rvp_b"})
        self.assertEqual(found.total("b", x="1"), 2)
        self.assertEqual(found.total("b", x="2"), 0)
