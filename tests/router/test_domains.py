"""One router serves many IM domains, each by its own names and its own rules (product F06)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Domain, Home, Network, Router
from rvpfarm.web.responses import Response
from tests.support.directory import make_account, make_farm
from tests.support.village import FOLLOWER, Village

FABRIK = Domain(
    "im.fabrik.example",
    ("fabrik.example", "fabrik.test"),
    ("omnent", "fabrik.example"),
    policies={"authentication": "off"},
)
ORCHARD = Domain(
    "im.orchard.example",
    ("orchard.example",),
    ("messenger.orchard.example",),
    policies={"referral": "always", "authentication": "off"},
)
MILL = Domain("im.mill.example", ("mill.example",), policies={"referral": "never"})
DOMAINS = (FABRIK, ORCHARD, MILL)
HS1 = Home("id-1", "hs1", "hs1.isp.example", 80, 8081, "192.0.2.11")
HS2 = Home("id-2", "hs2", "hs2.isp.example", 8080, 8081, "192.0.2.12")
R1 = Router("id-9", "r1", "r1.isp.example", 80, "192.0.2.1")
DOOR = ("192.0.2.1", 80)

PATH = "/instmsg/aliases/petra"


class DomainsTests(SynchronousTestCase):
    """Three domains, each with a petra; those of two are on one home, the third is on another."""

    def setUp(self) -> None:
        """A router and two homes."""
        farm = make_farm(
            DOMAINS, [HS1, HS2], [R1], networks=[Network("inside", "10.0.0.0", "10.255.255.255")]
        )
        self.village = Village(
            farm,
            [
                make_account(f"{domain.name}{PATH}", home, display_name=f"Petra of {domain.name}")
                for domain, home in ((FABRIK, HS1), (ORCHARD, HS2), (MILL, HS1))
            ],
        )
        self.addCleanup(self.village.stop)
        for name in ("hs1", "hs2"):
            self.village.home(name)
        self.village.start_router("r1")

    def ask(self, host: str, target: str = PATH, *, agent: str = "libwww-perl/6") -> Response:
        """Ask the router for a display name."""
        return self.village.call(DOOR, target=target, host=host, headers={"User-Agent": agent})

    def assert_answers(self, domain: Domain, answer: Response) -> None:
        """The answer is of the petra of C{domain}, by its canonical name."""
        self.assertEqual(answer.status, 207)
        self.assertIn(f"<d:href>http://{domain.name}{PATH}</d:href>".encode(), answer.body)
        self.assertIn(f"Petra of {domain.name}".encode(), answer.body)

    def test_names(self) -> None:
        """Each domain answers to its name and to its aliases, in any letter case and with any port."""
        for domain in (FABRIK, MILL):
            for name in (domain.name, *domain.aliases):
                for host in (name, name.upper(), f"{name}:80", f"{name}:8080", f"{name}."):
                    with self.subTest(host=host):
                        self.assert_answers(domain, self.ask(host))

    def test_targets(self) -> None:
        """The host in the target counts, before C{Host}; one inside a physical path before either."""
        for domain in (FABRIK, MILL):
            for name in (domain.name, *domain.aliases):
                for target, host in (
                    (f"http://{name}{PATH}", ORCHARD.name),
                    (f"HTTP://{name.upper()}:80{PATH}", "hs9.invalid"),
                    (f"/instmsg/local/{name}{PATH}", ORCHARD.name),
                    (f"http://{ORCHARD.name}/instmsg/local/{name}{PATH}", FABRIK.name),
                ):
                    with self.subTest(target=target, host=host):
                        self.assert_answers(domain, self.ask(host, target))

    def test_referral(self) -> None:
        """Each domain refers whom its own policy says, to the home of its own node."""
        local = f"http://hs2.isp.example:8080/instmsg/local/{ORCHARD.name}{PATH}"
        for name in (ORCHARD.name, *ORCHARD.aliases):
            for agent in (FOLLOWER, "libwww-perl/6", ""):
                answer = self.ask(name, agent=agent)
                self.assertEqual((answer.status, answer.headers[b"location"].decode()), (302, local))
        answer = self.ask("omnent", agent=FOLLOWER)
        self.assertEqual(answer.status, 302)
        self.assertEqual(
            answer.headers[b"location"], f"http://hs1.isp.example/instmsg/local/{FABRIK.name}{PATH}".encode()
        )
        self.assert_answers(MILL, self.ask(MILL.name, agent=FOLLOWER))

    def test_followed(self) -> None:
        """Whoever follows ends at the right node, whatever the domain."""
        for domain in DOMAINS:
            for name in (domain.name, *domain.aliases):
                answer, referrals = self.village.follow(DOOR, target=PATH, host=name)
                self.assert_answers(domain, answer)
                self.assertEqual(referrals, domain is not MILL)

    def test_servers_are_not_referred(self) -> None:
        """Another organisation's server reaches a domain that refers everybody: servers do not follow."""
        answer = self.village.call(
            DOOR, target=PATH, host=ORCHARD.name, headers={"RVP-From-Principal": FABRIK.name}
        )
        self.assert_answers(ORCHARD, answer)

    def test_authentication(self) -> None:
        """Who is asked to prove himself is asked by the domain of the node, with its realm."""
        headers = {"User-Agent": "libwww-perl/6"}
        fabrik, mill = (
            self.village.call(DOOR, "ACL", PATH, host=domain.name, headers=headers)
            for domain in (FABRIK, MILL)
        )
        self.assertEqual((fabrik.status, mill.status), (403, 401))
        self.assertTrue(any(b'realm="im.mill.example"' in line for line in mill.challenges))

    def test_strangers(self) -> None:
        """A host that is no name of any domain is 404, at the router and in whatever form."""
        for host in (
            "im.elsewhere.example",
            "mill.example",  # a mail domain, which nobody made an alias
            "fabrik.test",
            "petra.im.fabrik.example",
            "fabrik",
            "192.0.2.1",
        ):
            for target in (PATH, f"/instmsg/local/{host}{PATH}", f"http://{host}{PATH}"):
                named = host if target == PATH else FABRIK.name
                with self.subTest(host=host, target=target):
                    self.assertEqual(self.ask(named, target).status, 404)
        self.assertEqual(self.village.processes["r1"].links.connected, 0)

    def test_server_names(self) -> None:
        """A server's own name means the domain nearest to it, the same at every member."""
        for host in ("r1.isp.example", "hs1.isp.example", "HS2.isp.example:8080"):
            self.assert_answers(FABRIK, self.ask(host))
