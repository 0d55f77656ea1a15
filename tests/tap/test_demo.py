"""Tests of L{rvpfarm.tap.demo} and L{rvpfarm.tap.state}."""

from __future__ import annotations

import shutil
import stat
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.directory.model import Farm
from rvpfarm.directory.store import Store
from rvpfarm.tap.demo import prepare_farm
from rvpfarm.tap.plan import Plan
from rvpfarm.tap.state import State, User, open_state, read_passwords, write_passwords
from tests.tap.test_plan import plan_of


def mode_of(path: Path) -> int:
    """Who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


class StateTests(SynchronousTestCase):
    """The state directory is one farm's own."""

    def setUp(self) -> None:
        """A place for it."""
        self.place = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.place)

    def test_made(self) -> None:
        """It is made when it is not there, and nobody else may look into it."""
        state, lock = open_state(self.place / "some" / "where")
        self.addCleanup(lock.close)
        self.assertEqual(mode_of(state.path), 0o700)
        self.assertTrue(state.logs.is_dir())

    def test_one_farm_only(self) -> None:
        """While a farm runs in it another one is refused in a sentence; afterwards it is not."""
        _state, lock = open_state(self.place)
        error = self.assertRaises(SystemExit, open_state, self.place)
        self.assertIn("another farm runs in", str(error.code))
        lock.close()
        open_state(self.place)[1].close()

    def test_impossible_place(self) -> None:
        """A place that cannot be had is a sentence that names the option."""
        (self.place / "file").write_text("")
        error = self.assertRaises(SystemExit, open_state, self.place / "file" / "x")
        self.assertIn("--state-dir", str(error.code))

    def test_passwords(self) -> None:
        """Passwords are kept in a file that only its owner may read; spaces in them too."""
        path = self.place / "passwords.txt"
        self.assertEqual(read_passwords(path), {})
        passwords = {"alice@farm.localhost": "bcd-fgh", "bob@farm.localhost": "correct horse"}
        write_passwords(path, {})
        write_passwords(path, passwords)
        self.assertEqual(read_passwords(path), passwords)
        self.assertEqual(mode_of(path), 0o600)
        self.assertEqual([file.name for file in self.place.iterdir()], ["passwords.txt"])


class PrepareFarmTests(SynchronousTestCase):
    """The directory is made at the first start and found again at the next."""

    def setUp(self) -> None:
        """A state directory."""
        self.place = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.place)
        self.state = State(self.place)

    def prepare(self, plan: Plan | None = None, password: str | None = None) -> dict[str, User]:
        """The users, by alias."""
        users = prepare_farm(plan or plan_of(), self.state, password)
        return {user.alias: user for user in users}

    def store(self) -> Store:
        """The directory."""
        store = handlers.open_store(self.state.directory, self.state.key_file)
        self.addCleanup(store.close)
        return store

    def farm(self) -> Farm:
        """Everything farm-wide."""
        return handlers.farm_of(self.store())

    def refusal(self, plan: Plan) -> str:
        """Why a start is refused."""
        return str(self.assertRaises(SystemExit, self.prepare, plan).code)

    def test_first_start(self) -> None:
        """Domain, servers and users are there, and the passwords are as good as random ones are."""
        users = self.prepare()
        farm = self.farm()
        self.assertEqual(farm.domains["im.farm.localhost"].mail_domains, ("farm.localhost",))
        homes = {home.name: home for home in farm.homes.values()}
        self.assertEqual(
            (homes["home2"].host, homes["home2"].address, homes["home2"].port, homes["home2"].link_port),
            ("home2.farm.localhost", "127.0.0.12", 8080, 8081),
        )
        places = [server.metrics for server in (*farm.routers.values(), *farm.homes.values())]
        self.assertEqual(places, [f"127.0.0.1:{port}" for port in range(9464, 9468)])
        routers = {router.name: (router.host, router.address) for router in farm.routers.values()}
        self.assertEqual(
            routers,
            {"router1": ("im1.farm.localhost", "127.0.0.1"), "router2": ("im2.farm.localhost", "127.0.0.2")},
        )
        self.assertEqual(
            [(user.address, user.home) for user in users.values()],
            [
                ("alice@farm.localhost", "home1"),
                ("bob@farm.localhost", "home2"),
                ("carol@farm.localhost", "home1"),
                ("dave@farm.localhost", "home2"),
            ],
        )
        self.assertEqual(len({user.password for user in users.values()}), 4)
        self.assertTrue(all(len(user.password) >= 15 for user in users.values()))
        self.assertEqual(
            handlers.show_user(self.store(), "carol@farm.localhost").account.display_name, "Carol"
        )
        self.assertEqual(mode_of(self.state.key_file), 0o600)

    def test_second_start(self) -> None:
        """Nothing is made or changed again."""
        first = self.prepare()
        changes = len(handlers.list_audit(self.store()))
        self.assertEqual(self.prepare(), first)
        self.assertEqual(len(handlers.list_audit(self.store())), changes)

    def test_one_password(self) -> None:
        """One password for all, at the first start or a later one, stays until there is another."""
        self.prepare()
        self.assertEqual(
            {user.password for user in self.prepare(password="correct horse").values()}, {"correct horse"}
        )
        self.assertEqual({user.password for user in self.prepare().values()}, {"correct horse"})

    def test_weak_password(self) -> None:
        """A password that nobody should have is refused in a sentence."""
        error = self.assertRaises(SystemExit, self.prepare, password="x")
        self.assertTrue(str(error.code).startswith("rvp-farm: "))

    def test_lost_passwords(self) -> None:
        """When the file is gone the users get new passwords, since nobody knows the old ones."""
        first = self.prepare()
        self.state.passwords.unlink()
        second = self.prepare()
        self.assertNotEqual(first["alice"].password, second["alice"].password)
        self.assertEqual(self.prepare(), second)

    def test_password_of_an_administrator(self) -> None:
        """A password that an administrator set stays, and is not shown as another."""
        self.prepare()
        handlers.set_password(self.store(), "alice@farm.localhost", "battery staple")
        self.assertEqual(self.prepare()["alice"].password, "")
        self.assertNotEqual(self.prepare()["bob"].password, "")
        self.assertEqual(self.prepare(password="correct horse")["alice"].password, "correct horse")

    def test_disabled_user(self) -> None:
        """Whoever was disabled stays so."""
        self.prepare()
        handlers.disable_user(self.store(), "alice@farm.localhost")
        self.assertFalse(self.prepare()["alice"].enabled)

    def test_moved(self) -> None:
        """Records follow to new addresses, with the ids and the users they had."""
        self.prepare()
        before = self.farm()
        self.prepare(
            plan_of(
                routers=("127.0.0.12:8080",), homes=("127.0.0.11:80/90", "127.0.0.1:8080", "127.0.0.13:80")
            )
        )
        after = self.farm()
        homes = {home.name: (home.address, home.port, home.link_port) for home in after.homes.values()}
        self.assertEqual(
            homes,
            {
                "home1": ("127.0.0.11", 80, 90),
                "home2": ("127.0.0.1", 8080, 8081),
                "home3": ("127.0.0.13", 80, 81),
            },
        )
        self.assertLess(set(before.homes), set(after.homes))
        (router,) = after.routers.values()
        self.assertEqual((router.name, router.address), ("router1", "127.0.0.12"))

    def test_home_left_out(self) -> None:
        """A home with users cannot just be left out."""
        self.prepare()
        self.assertIn("home2", self.refusal(plan_of(homes=("127.0.0.11:8080",))))

    def test_other_domain(self) -> None:
        """A farm made for another domain is not mixed with this one."""
        self.prepare()
        other = Plan("other.test", "im.other.test", plan_of().members, plan_of().aliases)
        self.assertIn("im.farm.localhost", self.refusal(other))

    def test_lost_key(self) -> None:
        """Without its key the directory is of no use, and is not silently given another."""
        self.prepare()
        self.state.key_file.unlink()
        self.assertIn("farm.key", self.refusal(plan_of()))
