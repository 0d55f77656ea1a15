"""The units for systemd: what they say is understood, by systemd and by the daemons."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.home import Options as HomeOptions
from rvpfarm.tap.router import Options as RouterOptions
from rvpfarm.tap.settings import EnvironmentOptions
from rvpfarm.web.server import DRAIN_SECONDS
from tests.support.folders import folder

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


def read(name: str) -> ConfigParser:
    """A unit; of options that stand several times the last."""
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign, assignment]  # as the standard library says
    unit.read(UNITS / name)
    return unit


class UnitsTests(SynchronousTestCase):
    """The units start daemons on the sockets that the socket units open, and stop them with patience."""

    def command(self, name: str) -> list[str]:
        """What a service runs."""
        return shlex.split(read(name)["Service"]["ExecStart"].replace("%i", "x1").replace("%S", "/var/lib"))

    def test_options(self) -> None:
        """The daemons understand their command lines, with the settings of the sample."""
        environment = dict(
            line.split("=", 1)
            for line in (UNITS / "rvpfarm.env").read_text().splitlines()
            if line and not line.startswith("#")
        )
        self.patch(os, "environ", environment)
        kinds: dict[str, type[EnvironmentOptions]] = {"rvp-router": RouterOptions, "rvp-home": HomeOptions}
        for plugin, kind in kinds.items():
            words = self.command(f"{plugin}@.service")
            options = kind()
            options.parseOptions(words[words.index(plugin) + 1 :])
            self.assertEqual(options["name"], "x1")
            self.assertEqual(options["directory"], "sqlite:////var/lib/rvpfarm/directory.sqlite")

    def test_samples_in_comments(self) -> None:
        """Every setting that the sample shows is one."""
        known = {*RouterOptions.environment.values(), *HomeOptions.environment.values()}
        shown = re.findall(r"^#?(RVPFARM_\w+)=", (UNITS / "rvpfarm.env").read_text(), re.MULTILINE)
        self.assertEqual(set(shown) - known, set())

    def test_sockets(self) -> None:
        """Each socket that a daemon wants is opened by a unit that the service asks for."""
        for service in ("rvp-router@.service", "rvp-home@.service"):
            unit = read(service)
            wanted = set(re.findall(r"fast:systemd:name=(\w+)", unit["Service"]["ExecStart"]))
            sockets = [word.replace("%i", "") for word in unit["Unit"]["Requires"].split()]
            opened = {read(name)["Socket"]["FileDescriptorName"] for name in sockets}
            self.assertEqual(opened, wanted, service)

    def test_stopping(self) -> None:
        """A stop is told to the main process alone, which may have workers to tell, and is not cut short."""
        for service in ("rvp-router@.service", "rvp-home@.service"):
            section = read(service)["Service"]
            self.assertEqual(section["KillMode"], "mixed")
            self.assertGreater(float(section["TimeoutStopSec"]), DRAIN_SECONDS + 30)
            self.assertEqual(section["Type"], "notify-reload")

    def test_systemd(self) -> None:
        """Systemd has nothing to say against them, where it is at hand."""
        analyze = shutil.which("systemd-analyze")
        if analyze is None:
            return
        where = folder(self)
        for unit in UNITS.iterdir():
            text = unit.read_text().replace("/opt/rvpfarm/bin/twistd", shutil.which("true") or "/bin/true")
            (where / unit.name).write_text(text)
        names = [
            unit.name.replace("@.", "@x1.")
            for unit in UNITS.iterdir()
            if unit.suffix in (".service", ".socket")
        ]
        done = subprocess.run(
            [analyze, "verify", "--man=no", "--recursive-errors=no", *names],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{where}:"},
        )
        # what systemd before 253 says, as the units themselves tell
        said = [line for line in done.stderr.splitlines() if not line.endswith("ignoring: notify-reload")]
        self.assertEqual(said, [])
