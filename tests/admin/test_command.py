"""The C{rvpfarm} command: what it prints, how it refuses, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from click import Command
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, update
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.command import rvpfarm
from rvpfarm.directory import tables
from rvpfarm.directory.schema import known_revisions
from tests.support.store import make_folder


class CommandCase(SynchronousTestCase):
    """Commands run in this process, on a directory of their own."""

    def setUp(self) -> None:
        """A folder for the directory."""
        self.folder = make_folder(self)
        self.url = f"sqlite:///{self.folder / 'directory.sqlite'}"

    def run_it(self, *args: str, stdin: str = "", status: int = 0, **environment: str | None) -> Result:
        """Run C{rvpfarm} with C{args}; it must end with C{status} and without a traceback."""
        result = self.invoke(*args, stdin=stdin, **environment)
        self.assertEqual(result.exit_code, status, result.output)
        if status:
            self.assertEqual(result.stdout, "")
        return result

    def invoke(self, *args: str, stdin: str = "", **environment: str | None) -> Result:
        """Run C{rvpfarm} with C{args}, however it ends, but without a traceback."""
        variables = {"RVPFARM_DIRECTORY": self.url, "RVPFARM_KEY_FILE": None, **environment}
        result = CliRunner().invoke(rvpfarm, args, input=stdin, env=variables)
        self.assertNotIn("Traceback", result.output)
        return result

    def make_farm(self) -> None:
        """One domain, two homes, one router."""
        self.run_it("init")
        self.run_it(
            "domain", "add", "im.fabrik.example", "--mail-domain", "fabrik.example", "--alias", "omnent"
        )
        for name in ("hs1", "hs2"):
            self.run_it("home", "create", name, "--host", f"{name}.fabrik.example", "--port", "8080")
        self.run_it("router", "create", "r1", "--host", "im.fabrik.example", "--address", "192.0.2.1")
        self.run_it("policy", "set", "address-form", "mail")  # or the machine's own DNS would be asked


class InitTests(CommandCase):
    """C{rvpfarm init}"""

    def test_init(self) -> None:
        """It says what it made, and the second time that there was nothing to do."""
        first = self.run_it("init").stdout
        self.assertIn(f"Made the farm key {self.folder / 'farm.key'}", first)
        self.assertIn("Made the directory sqlite:///", first)
        self.assertIn(f"is up to date (schema {known_revisions()[0]}).", self.run_it("init").stdout)

    def test_key_file(self) -> None:
        """The key can be kept elsewhere."""
        key_file = self.folder / "secret.key"
        self.run_it("--key-file", str(key_file), "init")
        self.assertTrue(key_file.exists())
        self.assertFalse((self.folder / "farm.key").exists())
        self.run_it("init", status=1)
        self.run_it("init", RVPFARM_KEY_FILE=str(key_file))

    def test_before_init(self) -> None:
        """Any other command says what to run first."""
        shown = self.run_it("user", "list", status=1).stderr
        self.assertEqual(
            shown,
            f"rvpfarm: user list: there is no directory at {self.folder / 'directory.sqlite'}; "
            f'run "rvpfarm --directory {self.url} init"\n',
        )
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_which_directory(self) -> None:
        """Without a directory it is wrong usage; asking for help is not."""
        self.assertIn("which directory?", self.run_it("init", status=2, RVPFARM_DIRECTORY=None).stderr)
        self.assertIn("--dry-run", self.run_it("user", "enable", "--help", RVPFARM_DIRECTORY=None).stdout)

    def test_which_key(self) -> None:
        """Where the directory is no file, the key has no usual place."""
        shown = self.run_it("--directory", "postgresql://ann:hush@192.0.2.1/rvp", "init", status=2).stderr
        self.assertIn("--key-file", shown)
        self.assertNotIn("hush", shown)


class FarmTests(CommandCase):
    """C{rvpfarm domain|home|router|policy|network|audit}"""

    def setUp(self) -> None:
        """A small farm."""
        super().setUp()
        self.make_farm()

    def test_made(self) -> None:
        """What was made is said, and how users will be addressed."""
        self.assertIn("addressed as NAME@im.x.example", self.run_it("domain", "add", "im.x.example").stdout)
        made = self.run_it("home", "create", "hs3", "--host", "HS3.fabrik.example", "--address", "192.0.2.3")
        self.assertEqual(
            made.stdout,
            "Created home hs3: clients reach it as hs3.fabrik.example port 80, "
            "farm members on port 8081 at 192.0.2.3.\n",
        )
        beside = self.run_it(
            *("home", "create", "hs4", "--host", "HS4.fabrik.example", "--address", "192.0.2.3"),
            *("--link-port", "8082"),
        )
        self.assertEqual(
            beside.stdout.splitlines()[1],
            'It has the address and port of hs3: run them in one process, "twistd rvp-home --name hs3 --name hs4".',
        )

    def test_not_fully_qualified(self) -> None:
        """The sentence of KB 319758."""
        self.assertEqual(
            self.run_it("home", "create", "HS9", status=1).stderr,
            'rvpfarm: home create: "HS9" is not a fully qualified name; give --host the name that clients '
            "resolve, such as hs1.example.com (KB 319758)\n",
        )

    def test_lists(self) -> None:
        """Lists are tables for people."""
        self.assertIn("fabrik.example", self.run_it("domain", "list").stdout)
        homes = self.run_it("home", "list").stdout.splitlines()
        self.assertEqual(homes[0].split(), ["home", "host", "port", "link", "port", "address"])
        self.assertEqual(homes[1].split(), ["hs1", "hs1.fabrik.example", "8080", "8081"])
        self.assertIn("192.0.2.1", self.run_it("router", "list").stdout)
        self.assertIn("no range", self.run_it("network", "list").stdout.lower())

    def test_lists_for_programs(self) -> None:
        """With C{--json} the keys are those that the help names."""
        for noun in ("domain", "home", "router", "policy"):
            (first, *_) = json.loads(self.run_it(noun, "list", "--json").stdout)
            words = " ".join(self.run_it(noun, "list", "--help").stdout.split())
            for key in first:
                self.assertIn(key, words)
        (domain,) = json.loads(self.run_it("domain", "list", "--json").stdout)
        self.assertEqual(
            domain,
            {
                "name": "im.fabrik.example",
                "mail_domains": ["fabrik.example"],
                "aliases": ["omnent"],
                "netbios": "",
            },
        )

    def test_policy(self) -> None:
        """A policy is set, shown, and taken back."""
        shown = self.run_it("policy", "set", "referral", "never", "--domain", "im.fabrik.example").stdout
        self.assertEqual(shown, "Policy referral is now never for im.fabrik.example.\n")
        values = {
            one["name"]: one["value"]
            for one in json.loads(
                self.run_it("policy", "list", "--domain", "im.fabrik.example", "--json").stdout
            )
        }
        self.assertEqual(values["referral"], "never")
        back = self.run_it("policy", "set", "referral", "--default", "--domain", "im.fabrik.example").stdout
        self.assertIn("now auto", back)
        self.run_it("policy", "set", "referral", status=2)
        self.run_it("policy", "set", "referral", "never", "--default", status=2)
        self.assertIn("one of auto", self.run_it("policy", "set", "referral", "perhaps", status=1).stderr)

    def test_network(self) -> None:
        """Ranges come, are listed, and go."""
        self.run_it("network", "add", "inside", "192.0.2.0/24")
        self.assertEqual(
            json.loads(self.run_it("network", "list", "--json").stdout),
            [{"kind": "inside", "first": "192.0.2.0", "last": "192.0.2.255"}],
        )
        self.assertIn("no longer", self.run_it("network", "remove", "inside", "192.0.2.0/24", "--yes").stdout)
        self.run_it("network", "add", "outside", "192.0.2.0/24", status=2)

    def test_audit(self) -> None:
        """The trail is listed and checked; tampering is an error."""
        rows = json.loads(self.run_it("audit", "list", "--json").stdout)
        self.assertEqual([row["action"] for row in rows][:2], ["init", "domain add"])
        self.assertEqual(rows[1]["after"]["domain"]["name"], "im.fabrik.example")
        self.assertIn("home create", self.run_it("audit", "list", "--subject", "hs1").stdout)
        self.assertTrue(self.run_it("audit", "verify").stdout.startswith("The audit trail is whole.\n"))
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(
                update(tables.audit).where(tables.audit.c.seq == 2).values(actor="somebody else")
            )
        engine.dispose()
        self.assertIn("row 2 does not follow", self.run_it("audit", "verify", status=1).stderr)


class UserTests(CommandCase):
    """C{rvpfarm user}"""

    def setUp(self) -> None:
        """A small farm."""
        super().setUp()
        self.make_farm()

    def test_enable(self) -> None:
        """It ends with the three things that the original's wizard ended with."""
        shown = self.run_it(
            "user",
            "enable",
            "Petra@fabrik.example",
            "--home",
            "hs2",
            "--password-stdin",
            stdin="Blue-Kite-41\n",
        ).stdout
        self.assertEqual(
            shown.splitlines(),
            [
                "Enabled Petra@fabrik.example on home hs2.",
                "IM address: Petra@fabrik.example",
                "Public URL: http://im.fabrik.example/instmsg/aliases/Petra",
                "Home URL:   http://hs2.fabrik.example:8080/instmsg/local/im.fabrik.example"
                "/instmsg/aliases/Petra",
            ],
        )

    def test_dry_run(self) -> None:
        """It shows the same and does nothing."""
        shown = self.run_it("user", "enable", "petra@fabrik.example", "--dry-run").stdout
        self.assertIn("Would enable petra@fabrik.example on home hs1; nothing was changed.", shown)
        self.assertIn("IM address: petra@fabrik.example", shown)
        self.assertEqual(json.loads(self.run_it("user", "list", "--json").stdout), [])

    def test_passwords(self) -> None:
        """A password is generated, read or left out, but never guessed at."""
        shown = self.run_it("user", "enable", "petra@fabrik.example", "--generate-password").stdout
        self.assertRegex(shown, r"Password:    \w{5}-\w{5}-\w{5}  \(not shown again\)")
        shown = self.run_it("user", "enable", "tomasz@fabrik.example", "--no-password").stdout
        self.assertIn("No password is set", shown)
        self.assertIn("no terminal", self.run_it("user", "enable", "ann@fabrik.example", status=2).stderr)
        both = ("--password-stdin", "--generate-password")
        self.run_it("user", "enable", "ann@fabrik.example", *both, status=2)
        self.run_it("user", "passwd", "tomasz", *both, status=2)
        self.run_it("user", "passwd", "tomasz", "--password-stdin", stdin="Green-Kite-42\n")
        self.assertIn("Password:", self.run_it("user", "passwd", "tomasz", "--generate-password").stdout)
        self.assertIn("digest-md5", self.run_it("user", "show", "tomasz").stdout)
        self.assertIn(
            "too short",
            self.run_it("user", "passwd", "tomasz", "--password-stdin", stdin="x\n", status=1).stderr,
        )
        self.run_it("user", "passwd", "tomasz", status=2)
        self.assertIn("no user", self.run_it("user", "passwd", "nobody", status=1).stderr)

    def test_disable(self) -> None:
        """It asks, unless told not to; a dry run only tells."""
        self.run_it("user", "enable", "petra@fabrik.example", "--no-password")
        self.assertIn("Would disable", self.run_it("user", "disable", "petra", "--dry-run").stdout)
        refused = CliRunner().invoke(
            rvpfarm, ["--directory", self.url, "user", "disable", "petra"], input="n\n"
        )
        self.assertEqual(refused.exit_code, 1)
        self.assertTrue(json.loads(self.run_it("user", "show", "petra", "--json").stdout)["enabled"])
        agreed = self.run_it("user", "disable", "petra", stdin="y\n").stdout
        self.assertIn("Disabled petra@fabrik.example; the address stays reserved.", agreed)
        self.assertIn("disabled already", self.run_it("user", "disable", "petra", "--yes", status=1).stderr)
        self.assertIn(
            "disabled already", self.run_it("user", "disable", "petra", "--dry-run", status=1).stderr
        )
        back = self.run_it("user", "enable", "petra").stdout
        self.assertTrue(back.startswith("Enabled petra@fabrik.example on home hs1."))

    def test_show_for_programs(self) -> None:
        """With C{--json} the keys are those that the help names, and their order is fixed."""
        self.run_it(
            "user", "enable", "petra@fabrik.example", "--display-name", "Petra [Novak]", "--generate-password"
        )
        shown = json.loads(self.run_it("user", "show", "petra", "--json").stdout)
        self.assertEqual(
            list(shown),
            [
                "address",
                "display_name",
                "email",
                "domain",
                "home",
                "enabled",
                "public_url",
                "home_url",
                "id",
                "key",
                "alias",
                "schemes",
                "password_set",
                "works",
                "missing",
                "forbidden",
                "policies",
                "remedy",
            ],
        )
        self.assertEqual(shown["schemes"], ["digest-md5", "digest-sha-256", "nt"])
        self.assertNotIn("secret", json.dumps(shown))
        (listed,) = json.loads(self.run_it("user", "list", "--json").stdout)
        self.assertEqual(listed, {key: shown[key] for key in listed})
        for verb in ("show", "list"):
            words = " ".join(self.run_it("user", verb, "--help").stdout.split())
            self.assertTrue(all(key in words for key in listed))

    def test_list(self) -> None:
        """The table shows names as they are, and can be narrowed."""
        self.assertEqual(self.run_it("user", "list").stdout, "There is no user yet.\n")
        self.run_it(
            "user", "enable", "petra@fabrik.example", "--no-password", "--display-name", "[red]Petra[/red]"
        )
        self.assertIn("[red]Petra[/red]", self.run_it("user", "list").stdout)
        self.assertNotIn("petra", self.run_it("user", "list", "--home", "hs2").stdout)
        self.assertIn("one of hs1, hs2", self.run_it("user", "list", "--home", "hs9", status=1).stderr)

    def test_lost_key(self) -> None:
        """Without the farm key, names can still be read, but no password can be set."""
        self.run_it("user", "enable", "petra@fabrik.example", "--no-password")
        (self.folder / "farm.key").unlink()
        self.run_it("user", "show", "petra")
        shown = self.run_it("user", "passwd", "petra", "--generate-password", status=1).stderr
        self.assertIn("farm key", shown)

    def test_wrong_usage(self) -> None:
        """Wrong usage is status 2."""
        self.run_it("user", "enable", status=2)
        self.run_it("user", "frobnicate", status=2)
        self.run_it("home", "create", "hs9", "--host", "hs9.fabrik.example", "--port", "0", status=2)


class HelpTests(CommandCase):
    """Every command explains itself."""

    def test_every_option_has_help(self) -> None:
        """No command, argument or option is without words."""
        waiting: list[Command] = list(rvpfarm.commands.values())
        while waiting:
            command = waiting.pop()
            self.assertTrue(command.help, command.name)
            waiting.extend(getattr(command, "commands", {}).values())
            for parameter in command.params:
                if parameter.param_type_name == "option":
                    self.assertTrue(getattr(parameter, "help", ""), f"{command.name} {parameter.name}")

    def test_version(self) -> None:
        """The version is that of the package."""
        self.assertRegex(self.run_it("--version").stdout, r"^rvpfarm, version \d")


class InstalledTests(SynchronousTestCase):
    """The console script, as it is installed."""

    def test_installed(self) -> None:
        """It runs as a program: makes a directory, and refuses with status 1 on standard error."""
        folder = make_folder(self)
        program = Path(sys.executable).parent / "rvpfarm"
        if not program.exists():
            from twisted.trial.unittest import SkipTest

            raise SkipTest("rvpfarm is not installed beside this interpreter")
        environment = {**os.environ, "RVPFARM_DIRECTORY": f"sqlite:///{folder / 'directory.sqlite'}"}
        made = subprocess.run([program, "init"], env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.assertIn("Made the directory", made.stdout)
        refused = subprocess.run(
            [program, "home", "create", "HS1"], env=environment, capture_output=True, text=True, timeout=60
        )
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertTrue(refused.stderr.startswith('rvpfarm: home create: "HS1" is not a fully qualified'))
