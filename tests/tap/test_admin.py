"""C{twistd rvp-admin}: what its options let be served, and to whom."""

from __future__ import annotations

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.admin import USUAL_SOCKET, Options
from tests.support.store import make_folder
from tests.support.tls import write_certificate


class QuietOptions(Options):
    """The options, without choosing a reactor."""

    def choose_reactor(self) -> None:
        """Leave it."""


def parse(*words: str) -> QuietOptions:
    """The options that C{words} mean."""
    options = QuietOptions()
    options.parseOptions(["--directory", "sqlite:////nowhere/d.sqlite", *words])
    return options


class OptionsTests(SynchronousTestCase):
    """Nobody listens in by mistake."""

    def test_socket(self) -> None:
        """Left alone it is the Unix socket, and with an address only if that is named too."""
        self.assertEqual((parse()["socket"], parse()["listen"]), (USUAL_SOCKET, None))
        options = parse("--listen", "127.0.0.1:8443", "--plain")
        self.assertEqual((options["socket"], str(options["listen"])), (None, "127.0.0.1:8443"))
        self.assertEqual(parse("--socket", "/x", "--listen", "[::1]:1", "--plain")["socket"], "/x")

    def test_plain(self) -> None:
        """TCP without TLS is for loopback, and only when that is said."""
        for words in (
            ("--listen", "127.0.0.1:8443"),
            ("--listen", "192.0.2.1:8443", "--plain"),
            ("--listen", "localhost:8443", "--plain"),
            ("--listen", "0.0.0.0:8443", "--plain"),
            ("--listen", "nonsense", "--plain"),
            ("--plain",),
        ):
            self.assertRaises(UsageError, parse, *words)

    def test_certificate(self) -> None:
        """TLS needs files that can be read, and an address."""
        key, certificate = write_certificate(make_folder(self))
        options = parse("--listen", "192.0.2.1:8443", "--certificate", certificate, "--private-key", key)
        self.assertEqual(options["private-key"], key)
        self.assertEqual(parse("--listen", "192.0.2.1:1", "--certificate", key)["private-key"], key)
        self.assertRaises(UsageError, parse, "--listen", "192.0.2.1:8443", "--certificate", "/nowhere")
        self.assertRaises(UsageError, parse, "--certificate", certificate)
        self.assertRaises(
            UsageError, parse, "--listen", "127.0.0.1:1", "--plain", "--certificate", certificate
        )

    def test_long_path(self) -> None:
        """A socket's path that no system takes is refused at once."""
        self.assertRaises(UsageError, parse, "--socket", "/" + "x" * 101)
