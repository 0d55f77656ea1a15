"""Tests of L{rvpfarm.tap.plan}."""

from __future__ import annotations

import socket

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.plan import Plan, check_free, make_plan
from rvpfarm.tap.settings import HostPort


def plan_of(
    routers: tuple[str, ...] = ("127.0.0.1:8080", "127.0.0.2:8080"),
    homes: tuple[str, ...] = ("127.0.0.11:8080", "127.0.0.12:8080"),
    dns: str = "127.0.0.1:5300",
    metrics: str = "127.0.0.1:9464",
) -> Plan:
    """The usual plan, with something different."""
    return make_plan(
        routers, homes, dns, metrics, mail_domain="farm.localhost", aliases=("alice", "bob", "carol", "dave")
    )


class MakePlanTests(SynchronousTestCase):
    """Options become processes with names and addresses."""

    def test_the_demo(self) -> None:
        """Two routers, two homes with their links, DNS; metrics on consecutive ports in that order."""
        plan = plan_of()
        self.assertEqual(plan.im_domain, "im.farm.localhost")
        self.assertEqual(
            [(member.name, member.host, str(member.listen), str(member.metrics)) for member in plan.members],
            [
                ("router1", "im1.farm.localhost", "127.0.0.1:8080", "127.0.0.1:9464"),
                ("router2", "im2.farm.localhost", "127.0.0.2:8080", "127.0.0.1:9465"),
                ("home1", "home1.farm.localhost", "127.0.0.11:8080", "127.0.0.1:9466"),
                ("home2", "home2.farm.localhost", "127.0.0.12:8080", "127.0.0.1:9467"),
                ("dns", "ns.farm.localhost", "127.0.0.1:5300", "127.0.0.1:9468"),
            ],
        )
        self.assertEqual([str(home.link) for home in plan.homes], ["127.0.0.11:8081", "127.0.0.12:8081"])

    def test_users_are_dealt_to_homes(self) -> None:
        """Alice and Carol live on one home, Bob and Dave on the other."""
        plan = plan_of()
        homes = [plan.home_of(alias).name for alias in plan.aliases]
        self.assertEqual(homes, ["home1", "home2", "home1", "home2"])

    def test_other_sizes(self) -> None:
        """A farm may have any number of routers and homes."""
        plan = plan_of(routers=("127.0.0.1:80",), homes=("127.0.0.1:81/90", "127.0.0.1:82/91", "[::1]:80"))
        self.assertEqual(len(plan.routers), 1)
        self.assertEqual(plan.homes[1].link, HostPort("127.0.0.1", 91))
        self.assertEqual(plan.homes[2].link, HostPort("::1", 81))
        self.assertEqual(str(plan.nameserver.metrics), "127.0.0.1:9468")

    def test_one_address_for_two(self) -> None:
        """An address given twice is refused in a sentence that names both."""
        error = self.assertRaises(UsageError, plan_of, homes=("127.0.0.1:8080", "127.0.0.12:8080"))
        self.assertEqual(str(error), "127.0.0.1:8080 is given to both router1 and home1 (--home)")
        error = self.assertRaises(UsageError, plan_of, homes=("127.0.0.1:8081", "127.0.0.1:8082"))
        self.assertIn("127.0.0.1:8082", str(error))
        error = self.assertRaises(UsageError, plan_of, metrics="127.0.0.11:8080")
        self.assertIn("metrics", str(error))

    def test_nonsense(self) -> None:
        """What is no address is refused, naming the option."""
        for wrong in (
            {"routers": ("8080",)},
            {"homes": ("127.0.0.1:1/x",)},
            {"homes": ("127.0.0.1:65535",)},
            {"metrics": "127.0.0.1:65533"},
            {"dns": "dns"},
        ):
            error = self.assertRaises(UsageError, plan_of, **wrong)
            self.assertIn("--", str(error))


class CheckFreeTests(SynchronousTestCase):
    """What cannot be listened on is known before anything starts."""

    def sentence(self, plan: Plan) -> str:
        """What is said of a plan that cannot be had."""
        return str(self.assertRaises(SystemExit, check_free, plan).code)

    def bound(self, kind: socket.SocketKind) -> int:
        """A port that is taken, by us."""
        taken = socket.socket(socket.AF_INET, kind)
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        return int(taken.getsockname()[1])

    def test_busy(self) -> None:
        """A busy port is one sentence with the address, whose it was to be, and the option."""
        port = self.bound(socket.SOCK_STREAM)
        self.assertEqual(
            self.sentence(plan_of(routers=(f"127.0.0.1:{port}",))),
            f"rvp-farm: cannot listen on 127.0.0.1:{port} (router1): it is in use already; "
            "stop what uses it or choose another address with --router",
        )

    def test_busy_for_datagrams(self) -> None:
        """DNS needs its port for UDP too."""
        port = self.bound(socket.SOCK_DGRAM)
        plan = plan_of(routers=(), homes=(), dns=f"127.0.0.1:{port}")
        self.assertIn(f"127.0.0.1:{port} (dns)", self.sentence(plan))

    def test_not_ours(self) -> None:
        """An address of another machine, or none at all."""
        self.assertIn("this machine has no such address", self.sentence(plan_of(routers=("192.0.2.1:8080",))))
        self.assertIn("that is no IP address", self.sentence(plan_of(routers=("farm.example:8080",))))

    def test_free(self) -> None:
        """A free port is not kept."""
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            port = trial.getsockname()[1]
        plan = plan_of(routers=(), homes=(), dns=f"127.0.0.1:{port}", metrics=f"127.0.0.2:{port}")
        check_free(plan)
        check_free(plan)
