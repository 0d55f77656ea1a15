"""A new machine is examined: each thing that would keep a server from working is found, with its remedy."""

from __future__ import annotations

import json
import os
import socket
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import preflight
from rvpfarm.admin.command import rvpfarm
from rvpfarm.admin.preflight import FAILED, OK, SKIPPED, WARNING, Result
from rvpfarm.auth.keys import FarmKey
from tests.support.processes import free_ports
from tests.support.store import make_farm_store, make_folder


class PreflightTests(SynchronousTestCase):
    """What is fit is said to be, and what is not comes with what to do."""

    def assert_found(self, result: Result, state: str, found: str = "", remedy: str = "") -> None:
        """It is so, in these words."""
        self.assertEqual(result.state, state, result)
        self.assertIn(found, result.found)
        self.assertIn(remedy, result.remedy)
        self.assertEqual(bool(result.remedy), state in (FAILED, WARNING), result)

    def test_python(self) -> None:
        """An old Python is found."""
        self.assert_found(preflight.check_python(), OK)
        self.assert_found(preflight.check_python((3, 10, 4)), FAILED, "3.10.4", "python3.11")

    def test_modules(self) -> None:
        """A module that is missing, or has another version, is found; what only tests need is not asked for."""
        self.assert_found(preflight.check_modules(), OK)

        def installed(name: str) -> str:
            if name == "gone":
                raise PackageNotFoundError(name)
            return "1.0"

        wanted = ["here==1.0", "gone==1.0", "old==2.0", 'tests==9; extra == "dev"', "Twisted[tls]==1.0"]
        found = preflight.check_modules(wanted, installed)
        self.assert_found(found, FAILED, "gone is missing; old is 1.0, not 2.0", "pip install")

    def test_port(self) -> None:
        """A port that somebody has is found, and so is an address that is not this machine's."""
        (port,) = free_ports(1)
        self.assert_found(preflight.check_port("127.0.0.1", port, "--port"), OK)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            found = preflight.check_port("127.0.0.1", port, "--port")
        self.assert_found(found, FAILED, "somebody listens", f"sport = :{port}")
        self.assert_found(
            preflight.check_port("192.0.2.1", port, "--port"), FAILED, "not 192.0.2.1", "--address"
        )

    def test_privileged_port(self) -> None:
        """A port that needs a right is found, where the user lacks it."""
        refused = preflight._refused_port("--port 80", "127.0.0.1", 80, "--port", PermissionError(13, "no"))
        self.assert_found(refused, FAILED, "may not listen", "CAP_NET_BIND_SERVICE")

    def test_system(self) -> None:
        """What the kernel offers is looked at, and left as it was."""
        self.assert_found(preflight.check_reuseport(), OK)
        self.assertIn(preflight.check_ipv6().state, (OK, WARNING))

    def test_files(self) -> None:
        """A limit below the connections that are allowed is found, with a policy that fits it."""
        self.assert_found(preflight.check_files(20000, (65536, 65536)), OK)
        found = preflight.check_files(20000, (4096, 524288))
        self.assert_found(
            found, FAILED, "4096", "LimitNOFILE=21000 in the unit, or: rvpfarm policy set max-conn"
        )
        self.assertIn("max-connections 3096", found.remedy)

    def test_clock(self) -> None:
        """A clock that nobody sets is found, and one that disagrees with the farm."""
        self.assert_found(preflight.check_clock(0, [0.2, -0.1]), OK, "agrees with 2 processes")
        self.assert_found(preflight.check_clock(5), WARNING, "nobody sets it", "chrony")
        self.assert_found(preflight.check_clock(0, [1.0, 95.0]), FAILED, "95 s behind the farm", "chrony")
        self.assert_found(preflight.check_clock(0, [-95.0]), FAILED, "95 s ahead of the farm", "chrony")
        self.assertIn(preflight.check_clock().state, (OK, WARNING, SKIPPED))

    def test_name(self) -> None:
        """A short name is found, and one that does not resolve."""
        known = {"hs1.fabrik.example": ["192.0.2.11"]}

        def resolve(host: str) -> list[str]:
            return known.get(host, [])

        self.assert_found(preflight.check_name("hs1.fabrik.example", resolve), OK, "192.0.2.11")
        self.assert_found(preflight.check_name("hs1", resolve), FAILED, "not a fully", "KB 319758")
        self.assert_found(
            preflight.check_name("hs2.fabrik.example", resolve), FAILED, "does not resolve", "dns plan"
        )

    def test_disk(self) -> None:
        """Too little room, a slow disk and a folder that cannot be written are found."""
        folder = make_folder(self)
        self.assert_found(preflight.check_disk(folder / "not" / "yet", 1), OK, str(folder))
        self.assert_found(preflight.check_disk(folder, 1 << 62), FAILED, "GB free", "--state-dir")
        self.assert_found(preflight.check_fsync(folder, 1e9), OK, "ms in the middle")
        self.assert_found(preflight.check_fsync(folder, 0), WARNING, "ms", "faster disk")
        self.assert_found(preflight.check_fsync(Path("/proc/self")), FAILED, "cannot write", "chown")
        self.assertEqual(os.listdir(folder), [])

    def test_key(self) -> None:
        """A farm key that is missing, or that others can read, is found."""
        path = make_folder(self) / "farm.key"
        self.assert_found(preflight.check_key(path), FAILED, "missing", "copy it")
        FarmKey.create(path)
        self.assert_found(preflight.check_key(path), OK)
        path.chmod(0o644)
        self.assert_found(preflight.check_key(path), FAILED, str(path), "chmod 600")
        self.assert_found(preflight.check_key(None), SKIPPED)


class CommandTests(SynchronousTestCase):
    """The command shows everything, and its exit status says whether the machine is fit."""

    def run_it(self, *words: str) -> tuple[int, dict[str, str]]:
        """Its exit status, and the state of each thing."""
        done = CliRunner().invoke(
            rvpfarm, [*words, "--json"], env={"RVPFARM_DIRECTORY": "", "RVPFARM_KEY_FILE": ""}
        )
        return done.exit_code, {one["name"]: one["state"] for one in json.loads(done.output)}

    def test_fit(self) -> None:
        """A machine on which everything is right; without a directory that is left out."""
        folder = make_folder(self)
        store = make_farm_store(self, folder)
        port, link = free_ports(2)
        options = ["preflight", "--role", "home", "--address", "127.0.0.1", "--port", str(port)]
        options += ["--link-port", str(link), "--state-dir", str(folder), "--host", "hs1.localhost"]
        _, found = self.run_it("--directory", f"sqlite:///{store.path}", *options)
        for name in (f"--port {port}", f"--link-port {link}", "python", "modules", "directory", "farm key"):
            self.assertEqual(found[name], OK, name)
        _, found = self.run_it(*options)
        self.assertEqual(found["directory"], SKIPPED)

    def test_unfit(self) -> None:
        """A directory that is not there makes it unfit."""
        folder = make_folder(self)
        status, found = self.run_it("--directory", f"sqlite:///{folder}/none.sqlite", "preflight")
        self.assertEqual((status, found["directory"], found["farm key"]), (1, FAILED, FAILED))
