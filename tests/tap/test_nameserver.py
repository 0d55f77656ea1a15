"""Tests of L{rvpfarm.tap.nameserver}."""

from __future__ import annotations

import os

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.nameserver import Options, makeService
from rvpfarm.tap.settings import HostPort
from tests.support.store import make_folder


class OptionsTests(SynchronousTestCase):
    """What a name server is told."""

    def parse(self, *arguments: str) -> Options:
        """The options."""
        self.patch(os, "environ", {})
        options = Options()
        options.parseOptions(arguments)
        return options

    def test_defaults(self) -> None:
        """Directory and zone are enough."""
        options = self.parse("--directory", "sqlite:///d/x.sqlite", "--zone", "farm.localhost")
        self.assertEqual(options["listen"], HostPort("127.0.0.1", 53))
        self.assertEqual(options["name"], "dns")

    def test_missing(self) -> None:
        """Without a zone there is nothing to answer; nor is the root ours."""
        self.assertRaises(UsageError, self.parse, "--directory", "sqlite:///x")
        self.assertRaises(UsageError, self.parse, "--directory", "sqlite:///x", "--zone", ".")


class MakeServiceTests(SynchronousTestCase):
    """A name server that cannot be started says so in a sentence."""

    def test_no_directory(self) -> None:
        """Without a directory there is a sentence that says what to do."""
        url = f"sqlite:///{make_folder(self) / 'none.sqlite'}"
        options = Options()
        options.parseOptions(["--directory", url, "--zone", "farm.localhost"])
        error = self.assertRaises(SystemExit, makeService, options, object())
        self.assertIn("there is no directory", str(error.code))
