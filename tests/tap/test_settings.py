"""Tests of L{rvpfarm.tap.settings}."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap import settings
from rvpfarm.tap.settings import (
    HomeOptions,
    HostPort,
    RouterOptions,
    StopAtEof,
    default_key_file,
    default_listen,
    parse_host_port,
)


class HostPortTests(SynchronousTestCase):
    """Addresses are read as they are typed."""

    def test_round_trip(self) -> None:
        """IPv4, IPv6 and names are read and written alike."""
        for text, value in (
            ("127.0.0.1:8080", HostPort("127.0.0.1", 8080)),
            ("[::1]:53", HostPort("::1", 53)),
            ("localhost:1", HostPort("localhost", 1)),
        ):
            self.assertEqual(parse_host_port(text, "listen"), value)
            self.assertEqual(str(value), text)

    def test_nonsense(self) -> None:
        """Anything else is refused in a sentence that names the option."""
        for text in ("", "8080", ":8080", "a:", "a:0", "a:65536", "a:+1", "::1:80", "a:\N{SUPERSCRIPT TWO}"):
            error = self.assertRaises(UsageError, parse_host_port, text, "metrics")
            self.assertIn("--metrics", str(error))


class DefaultsTests(SynchronousTestCase):
    """What is not given follows from what is."""

    def test_key_file(self) -> None:
        """The key lies beside the SQLite file, else in the working directory."""
        for url, path in (
            ("sqlite:////var/lib/rvpfarm/directory.sqlite", "/var/lib/rvpfarm/farm.key"),
            ("sqlite:///demo/directory.sqlite", "demo/farm.key"),
            ("sqlite+pysqlite:///directory.sqlite", "farm.key"),
            ("postgresql://db/rvpfarm", "farm.key"),
        ):
            self.assertEqual(default_key_file(url), path)

    def test_listen(self) -> None:
        """The endpoint of a record of the directory."""
        self.assertEqual(default_listen("", 80), "fast:tcp:80")
        self.assertEqual(default_listen("127.0.0.1", 8080), "fast:tcp:8080:interface=127.0.0.1")
        self.assertEqual(default_listen("::1", 80), "fast:tcp:80:interface=\\:\\:1")


class OptionsTests(SynchronousTestCase):
    """Options come from the command line, and else from the environment."""

    def setUp(self) -> None:
        """An environment of our own."""
        self.environment: dict[str, str] = {}
        self.patch(os, "environ", self.environment)

    def test_command_line(self) -> None:
        """Everything can be given as an option."""
        options = HomeOptions()
        given = (
            "--directory sqlite:///d/x.sqlite --name home1 --listen fast:tcp:80 --link fast:tcp:8081 "
            "--metrics 127.0.0.1:9464 --state-dir /var/lib/x"
        )
        options.parseOptions(given.split())
        self.assertEqual(options["metrics"], HostPort("127.0.0.1", 9464))
        self.assertEqual(options["key-file"], "d/farm.key")
        self.assertEqual(options["link"], "fast:tcp:8081")
        self.assertEqual(options["state-dir"], "/var/lib/x")

    def test_environment(self) -> None:
        """Everything can be given in the environment; an option wins."""
        self.environment.update(
            RVPFARM_DIRECTORY="postgresql://db/x",
            RVPFARM_NAME="r1",
            RVPFARM_KEY_FILE="/etc/farm.key",
            RVPFARM_LISTEN="fast:tcp:80",
            RVPFARM_METRICS="0.0.0.0:9464",
        )
        options = RouterOptions()
        options.parseOptions(["--name", "r2"])
        self.assertEqual(options["directory"], "postgresql://db/x")
        self.assertEqual(options["name"], "r2")
        self.assertEqual(options["key-file"], "/etc/farm.key")
        self.assertEqual(options["listen"], "fast:tcp:80")
        self.assertEqual(options["metrics"], HostPort("0.0.0.0", 9464))

    def test_missing(self) -> None:
        """What is needed and given nowhere is named, with its variable."""
        error = self.assertRaises(UsageError, RouterOptions().parseOptions, ["--name", "r1"])
        self.assertEqual(str(error), "--directory is needed (or RVPFARM_DIRECTORY in the environment)")
        error = self.assertRaises(UsageError, HomeOptions().parseOptions, ["-d", "sqlite:///x", "-n", "h"])
        self.assertIn("--state-dir", str(error))

    def test_dns(self) -> None:
        """A DNS server is given by its address, for it cannot well be looked up."""
        given = ["-d", "sqlite:///x", "-n", "h", "-s", "state", "--dns"]
        for text in ("192.0.2.53:53", "[2001:db8::53]:5353"):
            options = HomeOptions()
            options.parseOptions([*given, text])
            self.assertEqual(str(options["dns"]), text)
        for text in ("192.0.2.53", "ns.fabrik.example:53"):
            error = self.assertRaises(UsageError, HomeOptions().parseOptions, [*given, text])
            self.assertIn("--dns", str(error))

    def homes(self, *arguments: str) -> HomeOptions:
        """The options of a home process."""
        options = HomeOptions()
        options.parseOptions(["-d", "sqlite:///x", "-s", "state", *arguments])
        return options

    def test_several_homes(self) -> None:
        """Several homes are named by several options, or in one, or in the environment."""
        for given in (("--name", "hs1", "-n", "hs2"), ("--name=hs1,hs2",), ("-n", "hs1, hs2")):
            options = self.homes(*given)
            self.assertEqual((options["names"], options["name"]), (["hs1", "hs2"], "hs1"))
        self.environment["RVPFARM_NAME"] = "hs1,hs2,hs3"
        self.assertEqual(self.homes()["names"], ["hs1", "hs2", "hs3"])
        self.assertEqual(self.homes("-n", "hs4")["names"], ["hs4"])

    def test_homes_mixed_up(self) -> None:
        """A home that is named twice, or not at all, is a mistake; and one endpoint is no two links."""
        for given in ("hs1,hs1", "hs1,", ",", "hs1,,hs2"):
            error = self.assertRaises(UsageError, self.homes, "--name", given)
            self.assertIn("--name: ", str(error))
        error = self.assertRaises(UsageError, self.homes, "--name", "hs1,hs2", "--link", "fast:tcp:8081")
        self.assertIn("--link: each of several homes", str(error))
        self.assertEqual(self.homes("--name", "hs1", "--link", "fast:tcp:8081")["link"], "fast:tcp:8081")

    def test_help(self) -> None:
        """Every option is shown once."""
        text = str(HomeOptions())
        self.assertEqual(text.count("--name"), 1)

    def test_snapshot(self) -> None:
        """A home keeps its snapshot with its state, a router beside the farm key under its own name."""
        given = ["-d", "sqlite:///d/x.sqlite", "-n", "r1"]
        for more, router, home in (
            ([], "d/r1.snapshot", "state/directory.snapshot"),
            (["-k", "/etc/rvpfarm/farm.key"], "/etc/rvpfarm/r1.snapshot", "state/directory.snapshot"),
            (["--snapshot", "/var/x"], "/var/x", "/var/x"),
            (["--snapshot", "none"], None, None),
        ):
            options = RouterOptions()
            options.parseOptions([*given, *more])
            self.assertEqual(options["snapshot"], router)
            options = HomeOptions()
            options.parseOptions([*given, "-s", "state", *more])
            self.assertEqual(options["snapshot"], home)
        self.environment["RVPFARM_SNAPSHOT"] = "none"
        options = RouterOptions()
        options.parseOptions(given)
        self.assertIs(options["snapshot"], None)

    def test_router_has_no_state(self) -> None:
        """A router has no state, and takes no option for it."""
        self.assertRaises(UsageError, RouterOptions().parseOptions, ["--state-dir", "x"])


class StopAtEofTests(SynchronousTestCase):
    """A child of the farm stops when its standard input ends."""

    def setUp(self) -> None:
        """A pipe for standard input, and a reactor that notes what is asked of it."""
        self.reactor = MemoryReactorClock()
        self.read, self.write = os.pipe()
        self.addCleanup(os.close, self.read)

    def start(self, wanted: bool | None) -> StopAtEof:
        """A running service."""
        service = StopAtEof(self.reactor, fd=self.read, wanted=wanted)
        service.startService()
        return service

    def test_end(self) -> None:
        """What arrives is ignored; the end stops the reactor."""
        self.start(True)
        (reader,) = self.reactor.getReaders()
        self.assertEqual(reader.fileno(), self.read)
        os.write(self.write, b"something")
        reader.doRead()
        self.assertFalse(self.reactor.hasStopped)
        os.close(self.write)
        reader.doRead()
        self.assertTrue(self.reactor.hasStopped)
        self.assertEqual(self.reactor.getReaders(), [])

    def test_a_stop_that_hangs(self) -> None:
        """An orderly stop that takes too long becomes a disorderly one."""
        left: list[int] = []
        self.patch(settings.os, "_exit", left.append)
        self.start(True)
        os.close(self.write)
        self.reactor.getReaders()[0].doRead()
        self.reactor.advance(9)
        self.assertEqual(left, [])
        self.reactor.advance(1)
        self.assertEqual(left, [1])

    def test_not_wanted(self) -> None:
        """Without the variable, standard input is left alone."""
        self.addCleanup(os.close, self.write)
        self.patch(os, "environ", {})
        self.start(None)
        self.assertEqual(self.reactor.getReaders(), [])
        self.patch(os, "environ", {"RVPFARM_STOP_AT_EOF": "1"})
        service = self.start(None)
        self.assertEqual(len(self.reactor.getReaders()), 1)
        service.stopService()
        self.assertEqual(self.reactor.getReaders(), [])

    def test_clock_is_not_needed_before(self) -> None:
        """No timer is set before standard input ends."""
        self.addCleanup(os.close, self.write)
        self.start(True)
        self.assertEqual(Clock.getDelayedCalls(self.reactor), [])
