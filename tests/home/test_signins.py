"""Sign-ins that fail: what the caller is answered, what the operator reads, what is counted."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.challenge import Gate, Miss
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.logins import make_verifiers
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.model import Account
from rvpfarm.home.records import Saved, SavedSubscription, Subscriber
from rvpfarm.home.signins import QUIET_SECONDS, SignIns
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.calls import Unproven
from rvpfarm.protocol.headers import Kind
from tests.auth.test_challenge import FABRIK, PASSWORD, answer_to
from tests.support.homes import DOMAIN, PETRA, Asked, LocalHome

KEY = f"{DOMAIN}/instmsg/aliases/petra"
HOME, STRANGER = "192.0.2.77", "203.0.113.5"


class Observed:
    """The log lines of a test."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self._events: list[LogEvent] = []
        globalLogPublisher.addObserver(self._events.append)
        test.addCleanup(globalLogPublisher.removeObserver, self._events.append)

    def take(self) -> list[str]:
        """What L{SignIns} logged since last asked."""
        lines = [formatEvent(event) for event in self._events if event.get("log_namespace", "") == _LOGGER]
        self._events.clear()
        return lines


_LOGGER = "rvpfarm.home.signins.SignIns"


class SignInCase(SynchronousTestCase):
    """A home where people must prove who they are."""

    def setUp(self) -> None:
        """Petra has a password, tomasz has none."""
        self.lines = Observed(self)
        self.at = self.start()

    def start(self, saved: Saved | None = None) -> LocalHome:
        """Such a home."""
        at: list[LocalHome] = []
        gate = Gate(
            Nonces(b"k" * 32),
            on_failure=lambda method, cause: at[0].metrics.auth_failure(method, cause),
            on_miss=lambda miss: signins.missed(miss),
            throttle=Throttle(),
        )
        at.append(LocalHome(gate=gate, authentication="required", schemes="digest-md5", saved=saved))
        signins = SignIns(at[0].metrics)
        self.addCleanup(at[0].stop)
        petra = at[0].directory.peek(KEY)
        assert isinstance(petra, Account)
        at[0].directory.put(replace(petra, verifiers=make_verifiers("petra", FABRIK, PASSWORD)))
        return at[0]

    def ask(self, user: str = "petra", password: str = PASSWORD, peer: str = STRANGER) -> Asked:
        """Ask for petra's list of entries, as C{user} with that password."""
        who = f"http://{DOMAIN}/instmsg/aliases/{user}"
        first = self.at.ask("ACL", "/p", who=who, peer=peer)
        assert isinstance(first.result, Unproven)
        ((_, line),) = first.result.headers
        credentials = answer_to(line, user, password=password, method=b"ACL")
        return self.at.ask("ACL", "/p", who=who, peer=peer, Authorization=credentials.decode())

    def counted(self, name: str, **labels: str) -> float:
        """A counter of the home."""
        found = self.at.metrics.registry.get_sample_value(name, {"role": "home", "node": "hs1", **labels})
        return found or 0.0


class MissingVerifierTests(SignInCase):
    """Nothing is kept to check a password by: 401, and the operator can see why (product D18)."""

    def test_answer_metric_and_log(self) -> None:
        """The caller is challenged again; the cause is counted each time, and logged once, with a remedy."""
        for _ in range(5):
            self.assertEqual(self.ask("tomasz").status, 401)
        self.assertEqual(self.counted("rvp_auth_failures_total", method="digest", cause="no-verifier"), 5.0)
        (line,) = self.lines.take()
        self.assertIn(f"tomasz@{DOMAIN} cannot sign in by digest", line)
        self.assertIn(f'"rvpfarm user show tomasz@{DOMAIN}"', line)
        self.assertNotIn(PASSWORD, line)

    def test_again_later(self) -> None:
        """After a quiet time it is worth another line."""
        self.ask("tomasz")
        self.at.clock.advance(QUIET_SECONDS + 1)
        self.ask("tomasz")
        self.assertEqual(len(self.lines.take()), 2)

    def test_wrong_password_is_no_news(self) -> None:
        """Somebody who mistypes is counted and not logged."""
        self.assertEqual(self.ask(password="nonsense").status, 401)
        self.assertEqual(self.lines.take(), [])
        self.assertEqual(
            self.counted("rvp_auth_failures_total", method="digest", cause="wrong-password"), 1.0
        )


class ThrottledTests(SignInCase):
    """Who guesses passwords is held back, and the owner is not."""

    def test_brute_force(self) -> None:
        """After ten wrong passwords the right one is not looked at; one line says so, a counter how often."""
        self.assertEqual(self.ask(peer=HOME).status, 200)
        for number in range(30):
            self.assertEqual(self.ask(password=f"guess-{number}").status, 401)
        self.assertEqual(self.ask().status, 401)
        self.assertEqual(
            self.counted("rvp_auth_failures_total", method="digest", cause="wrong-password"), 10.0
        )
        self.assertEqual(self.counted("rvp_auth_throttled_total", scope="pair"), 21.0)
        (line,) = self.lines.take()
        self.assertEqual(
            line, f"sign-ins of petra@{DOMAIN} from {STRANGER} are held back: too many wrong passwords"
        )
        self.assertEqual(self.ask(peer=HOME).status, 200)

    def test_many_machines(self) -> None:
        """The owner's own address is let in while others are held back, and after a restart as well."""
        client = Subscriber(KEY, PETRA, "http://192.0.2.77:3155/", HOME, "digest")
        login = SavedSubscription(7, KEY, Kind.LOGIN, client, 2e6)
        self.at = self.start(Saved(subscriptions=(login,)))
        for number in range(100):
            self.ask(password=f"guess-{number}", peer=f"198.51.100.{number}")
        self.assertEqual(self.ask(peer=STRANGER).status, 401)
        self.assertEqual(self.ask(peer=HOME).status, 200)
        (line,) = self.lines.take()
        self.assertIn("held back where it is not known", line)

    def test_names_of_nobody(self) -> None:
        """Trying names is told of the address alone."""
        for number in range(60):
            self.ask(user=f"ghost{number}")
        (line,) = self.lines.take()
        self.assertEqual(
            line, f"sign-ins from {STRANGER} are held back: too many wrong passwords of several users"
        )
        self.assertEqual(self.counted("rvp_auth_throttled_total", scope="address"), 10.0)


class SignInsTests(SynchronousTestCase):
    """What is logged cannot be made to grow without bound."""

    def test_one_line_for_one_thing(self) -> None:
        """Different accounts at one address are one thing when the address is held back."""
        lines = Observed(self)
        signins = SignIns(Metrics(CollectorRegistry(), role="home", node="hs1"))
        for number in range(100):
            signins.missed(Miss("digest", "throttled", None, STRANGER, "address", float(number)))
            signins.missed(Miss("ntlm", "throttled", None, STRANGER, "address", float(number)))
        self.assertEqual(len(lines.take()), 1)
