"""A directory in a file belongs to one machine; a second one is refused, and told what to use instead."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.directory.hosts import VARIABLE, Host, is_shared, this_host
from rvpfarm.directory.reading import StoreProblem
from tests.support.processes import BIN, Ran, run
from tests.support.store import beside, make_farm_store, make_folder

ONE, OTHER = Host("id of one", "boot of one", "one"), Host("id of other", "boot of other", "other")


class HostTests(SynchronousTestCase):
    """What tells machines apart, and what does not."""

    def _machine(self, machine_id: str, boot: str, *files: str) -> Path:
        """The files of a machine that tell which it is."""
        root = make_folder(self)
        for name, content in (("etc/machine-id", machine_id), ("proc/sys/kernel/random/boot_id", boot)):
            (root / name).parent.mkdir(parents=True)
            (root / name).write_text(f"{content}\n")
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root

    def test_machine(self) -> None:
        """A machine is the same after it was started anew, and its id is not passed on as it is."""
        before, after = (this_host({}, self._machine("a1" * 16, boot)) for boot in ("b1", "b2"))
        self.assertEqual(before.id, after.id)
        self.assertNotIn("a1a1", before.id)
        self.assertFalse(after.is_other(before, shared=True))
        other = this_host({}, self._machine("c3" * 16, "b3"))
        self.assertTrue(other.is_other(before, shared=False))

    def test_container(self) -> None:
        """A container's id is no reason to refuse it: only a shared file system after another start is."""
        one = this_host({}, self._machine("a1" * 16, "b1", ".dockerenv"))
        anew = this_host({}, self._machine("c3" * 16, "b1", ".dockerenv"))
        later = this_host({}, self._machine("a1" * 16, "b2", ".dockerenv"))
        self.assertEqual(one.id, "")
        self.assertFalse(anew.is_other(one, shared=True))
        self.assertFalse(later.is_other(one, shared=False))
        self.assertTrue(later.is_other(one, shared=True))

    def test_named(self) -> None:
        """A name that was given goes before everything else, so containers anywhere can have one."""
        one, same, other = (
            this_host({VARIABLE: name}, self._machine("a1" * 16, boot, ".dockerenv"))
            for name, boot in (("m1", "b1"), ("m1", "b2"), ("m2", "b1"))
        )
        self.assertFalse(same.is_other(one, shared=True))
        self.assertTrue(other.is_other(one, shared=False))

    def test_unknown(self) -> None:
        """Where nothing tells, and of a directory that nobody took yet, nothing is refused."""
        nobody = this_host({}, make_folder(self))
        self.assertEqual((nobody.id, nobody.boot), ("", ""))
        self.assertFalse(ONE.is_other(Host("", "", ""), shared=True))
        self.assertEqual(this_host({}, self._machine("uninitialized", "b1")).id, "")

    def test_shared(self) -> None:
        """The file system under the file decides, the innermost one."""
        mounts = make_folder(self) / "mountinfo"
        mounts.write_text(
            "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
            "21 20 0:40 / /srv rw,relatime shared:3 - nfs4 filer:/srv rw\n"
            "22 21 8:2 / /srv/local rw - xfs /dev/sdb1 rw\n"
        )
        self.assertTrue(is_shared(Path("/srv/directory.sqlite"), mounts))
        self.assertFalse(is_shared(Path("/srv/local/directory.sqlite"), mounts))
        self.assertFalse(is_shared(Path("/var/directory.sqlite"), mounts))
        self.assertFalse(is_shared(Path("/srv/directory.sqlite"), mounts / "missing"))


class SecondHostTests(SynchronousTestCase):
    """The file of one machine on another."""

    def setUp(self) -> None:
        """A directory of L{ONE}."""
        self.folder = make_folder(self)
        mine = make_farm_store(self, self.folder)
        self.mine = beside(self, mine, mine.sealer, host=ONE)
        handlers.init(self.mine, actor="test", claim=True)
        self.theirs = beside(self, mine, mine.sealer, host=OTHER)

    def test_refused(self) -> None:
        """Neither read nor changed nor upgraded, and PostgreSQL is named."""
        for ask in (self.theirs.check, self.theirs.upgrade, lambda: handlers.init(self.theirs, actor="test")):
            problem = str(self.assertRaises(StoreProblem, ask))
            self.assertIn("belongs to the machine one, and this is other", problem)
            self.assertIn("postgresql://", problem)
            self.assertIn("init --claim", problem)
        self.mine.check()

    def test_claimed(self) -> None:
        """Taken over on purpose it is the other's, which the trail says; the first one is refused then."""
        self.assertEqual(handlers.init(self.theirs, actor="ann", claim=True).claimed, "one")
        self.theirs.check()
        (row,) = handlers.list_audit(self.theirs, newest=1)
        self.assertEqual((row.actor, row.action, row.after), ("ann", "init", '{"host":"other"}'))
        self.assertIs(handlers.check_audit(self.theirs), None)
        again = beside(self, self.mine, host=ONE)
        self.assertRaises(StoreProblem, again.check)

    def test_commands(self) -> None:
        """The commands of a second machine fail with that sentence until they claim the file."""
        folder = make_folder(self)

        def rvpfarm(machine: str, *words: str) -> Ran:
            url = f"sqlite:///{folder / 'directory.sqlite'}"
            return run(BIN / "rvpfarm", "--directory", url, *words, **{VARIABLE: machine})

        self.assertEqual(rvpfarm("m1", "init").status, 0)
        self.assertEqual(rvpfarm("m1", "home", "list").status, 0)
        refused = rvpfarm("m2", "home", "list")
        self.assertEqual(refused.status, 1)
        self.assertIn("postgresql://", refused.err)
        claimed = rvpfarm("m2", "init", "--claim")
        self.assertEqual(claimed.status, 0, claimed.err)
        self.assertIn("it belongs to this one now", claimed.out)
        self.assertEqual(rvpfarm("m2", "home", "list").status, 0)
        self.assertEqual(rvpfarm("m1", "home", "list").status, 1)

    def test_twistd(self) -> None:
        """A daemon says the same and does not start."""
        folder = make_folder(self)
        url = f"sqlite:///{folder / 'directory.sqlite'}"
        self.assertEqual(run(BIN / "rvpfarm", "--directory", url, "init", **{VARIABLE: "m1"}).status, 0)
        daemon = run(
            *(BIN / "twistd", "--nodaemon", "--pidfile=", "rvp-router", "--directory", url, "--name", "r1"),
            **{VARIABLE: "m2"},
        )
        self.assertNotEqual(daemon.status, 0)
        self.assertIn("init --claim", daemon.out + daemon.err)
