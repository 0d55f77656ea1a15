"""A home or router gets another name, and is found by the former one for as long as clients remember it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.dnsplan import plan_dns, zone_lines
from rvpfarm.admin.renaming import FORMER_SECONDS, rename_home, rename_router
from rvpfarm.directory.model import FormerHost, read_former, still_former
from rvpfarm.directory.names import names_of
from rvpfarm.directory.referral import Redirect, renamed
from tests.support.directory import make_account
from tests.support.store import make_farm_store

#: Far in the future, so that what is kept until some time after it is not over when it is read.
NOW = 4e9


class RenamingTests(SynchronousTestCase):
    """One transaction does what KB 319758 took five steps for."""

    def setUp(self) -> None:
        """A farm with two homes and a router."""
        self.store = make_farm_store(self)
        handlers.create_router(self.store, "r1", "r1.fabrik.example", address="192.0.2.1", actor="test")

    def rename(self, *names: str, **options: bool) -> None:
        """Rename a home."""
        rename_home(self.store, *names, now=NOW, actor="test", **options)  # type: ignore[arg-type]

    def test_home(self) -> None:
        """Name and host are new, users and id stay, and the former host still means the home."""
        before = handlers.farm_of(self.store)
        handlers.enable_user(self.store, "ann@fabrik.example", "hs1", actor="test")
        self.rename("hs1", "hs9", "hs9.fabrik.example")
        farm = handlers.farm_of(self.store)
        (home,) = [home for home in farm.homes.values() if home.name == "hs9"]
        self.assertIn(home.id, before.homes)
        self.assertEqual((home.host, home.former_hosts), ("hs9.fabrik.example", ("hs1.fabrik.example",)))
        self.assertEqual(read_former(home.former), (FormerHost("hs1.fabrik.example", NOW + FORMER_SECONDS),))
        self.assertEqual(names_of(farm).domain_of("hs1.fabrik.example"), "im.fabrik.example")
        self.assertEqual(names_of(before).domain_of("hs9.fabrik.example"), None)
        with self.store.read() as reading:
            account = reading.account("im.fabrik.example/instmsg/aliases/ann")
        assert account is not None
        self.assertEqual(account.home, home.id)
        (row,) = handlers.list_audit(self.store, "hs9")
        self.assertEqual(row.action, "home rename")

    def test_back(self) -> None:
        """Renaming it back leaves it as it was, and the name in between is the former one."""
        self.rename("hs1", "hs9", "hs9.fabrik.example")
        self.rename("hs9", "hs1", "hs1.fabrik.example")
        (home,) = [home for home in handlers.farm_of(self.store).homes.values() if home.name == "hs1"]
        self.assertEqual((home.host, home.former_hosts), ("hs1.fabrik.example", ("hs9.fabrik.example",)))

    def test_dry_run(self) -> None:
        """A dry run changes nothing."""
        before = handlers.farm_of(self.store)
        self.rename("hs1", "hs9", "hs9.fabrik.example", dry_run=True)
        self.assertEqual(handlers.farm_of(self.store), before)

    def test_plan(self) -> None:
        """The DNS plan has both hosts."""
        handlers.create_home(self.store, "hs3", "hs3.fabrik.example", address="192.0.2.13", actor="test")
        self.rename("hs3", "hs3", "hs9.fabrik.example")
        rename_router(self.store, "r1", "r1", "edge.fabrik.example", now=NOW, actor="test")
        lines = list(zone_lines(plan_dns(handlers.farm_of(self.store))))
        for host, address in (("hs3", 13), ("hs9", 13), ("r1", 1), ("edge", 1)):
            self.assertIn(f"{host}.fabrik.example. 60 IN A 192.0.2.{address}", lines)

    def test_end(self) -> None:
        """After 4 hours the former host means nothing any more."""
        text = "old.example=100 older.example=50"
        self.assertEqual(still_former(text, 99), "old.example=100")
        self.assertEqual(still_former(text, 100), "")
        rename_home(self.store, "hs1", "hs9", "hs9.fabrik.example", now=1.0, actor="test")
        farm = handlers.farm_of(self.store)
        self.assertEqual([home.former for home in farm.homes.values()], ["", ""])

    def test_refused(self) -> None:
        """A name that somebody has, or had until lately, is refused, and so is one that is none."""
        for arguments, why in (
            (("hs1", "hs2", "hs9.fabrik.example"), "taken"),
            (("hs1", "hs1", "hs2.fabrik.example"), "taken by home hs2"),
            (("hs1", "hs1", "hs9"), "not a fully qualified"),
            (("hs1", "hs1", "im.fabrik.example"), "means the IM domain"),
            (("hs1", "hs1"), "already"),
            (("hs7", "hs8"), "no home"),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(Refused, why):
                self.rename(*arguments)
        self.rename("hs1", "hs1", "hs9.fabrik.example")
        with self.assertRaisesRegex(Refused, "still means hs1"):
            self.rename("hs2", "hs2", "hs1.fabrik.example")

    def test_referral(self) -> None:
        """Whoever asks by the former host is referred if the client can follow, else answered."""
        self.rename("hs1", "hs1", "hs9.fabrik.example")
        farm = handlers.farm_of(self.store)
        (home,) = [home for home in farm.homes.values() if home.name == "hs1"]
        account = make_account("im.fabrik.example/instmsg/aliases/ann", home)

        def asked(host: str, agent: bytes) -> Redirect | None:
            return renamed(account, home, farm, peer="10.0.0.9", user_agent=agent, asked=host)

        url = "http://hs9.fabrik.example/instmsg/local/im.fabrik.example/instmsg/aliases/ann"
        self.assertEqual(asked("hs1.fabrik.example", b"msmsgs/4.6"), Redirect(url))
        self.assertIsNone(asked("hs1.fabrik.example", b"miranda"))
        self.assertIsNone(asked("hs9.fabrik.example", b"msmsgs/4.6"))
