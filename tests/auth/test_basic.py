"""Basic: names and passwords, where the connection is encrypted."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from rvpfarm.auth import basic
from rvpfarm.auth.basic import KEEP_SECONDS, WAITING_LIMIT, Basic
from rvpfarm.auth.challenge import Gate, Identity
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.logins import make_verifiers
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.ldapsettings import BIND, LOGIN, RECORD
from rvpfarm.directory.model import Account, DirectoryUnavailable, Verifier
from rvpfarm.protocol.calls import IN_CLEAR, BadRequest, Busy, Unproven
from tests.auth.test_challenge import FABRIK, PASSWORD, PETRA, TOMASZ, GateTestCase
from tests.support.directory import FakeDirectory, make_account


class FakeProver:
    """Knows one password; answers at once, or when the test says so.

    @ivar asked: the passwords that were checked.
    @ivar held: those who wait, where it does not answer at once.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held: list[Deferred[bool]] = []
        self.down = self.slow = False

    def prove(self, account: Account, password: str) -> Deferred[bool]:
        """See L{rvpfarm.auth.basic.Prover.prove}."""
        self.asked.append(password)
        if self.slow:
            self.held.append(Deferred())
            return self.held[-1]
        if self.down:
            return fail(DirectoryUnavailable("no LDAP server answers"))
        return succeed(password == PASSWORD)


class NamedDirectory(FakeDirectory):
    """Knows that petra signs in as pnovak."""

    def find(self, key: str) -> Deferred[Account | None]:
        """See L{FakeDirectory.find}."""
        meant = key == f"{LOGIN}im.fabrik.example/instmsg/aliases/pnovak"
        return super().find("im.fabrik.example/instmsg/aliases/petra" if meant else key)


def credentials(login: str, password: str = PASSWORD) -> bytes:
    """What a client sends."""
    return b"Basic " + b64encode(f"{login}:{password}".encode())


class BasicTests(GateTestCase):
    """Petra is out of LDAP; Tomasz has a password here."""

    def setUp(self) -> None:
        """A gate that offers Basic and nothing else."""
        super().setUp()
        self.set_farm(schemes="basic", failed_logins="3")
        self.prover = FakeProver()
        self.put("petra", Verifier(BIND, "uid=petra", "", "id-petra"))
        self.gate = Gate(
            Nonces(b"k" * 32),
            schemes=[Basic(b"s" * 32, self.prover)],
            on_failure=lambda *failure: self.failures.append(failure),
            throttle=Throttle(),
        )

    def put(self, alias: str, *verifiers: Verifier, enabled: bool = True) -> None:
        """The directory says something else of somebody."""
        made = make_account(f"im.fabrik.example/instmsg/aliases/{alias}", "home-1", enabled=enabled)
        self.directory.put(replace(made, verifiers=verifiers))

    def ask(self, login: str, password: str = PASSWORD, source: str = PETRA) -> Deferred[Identity]:
        """What comes of somebody's credentials."""
        return maybeDeferred(self.identify, source, credentials(login, password))

    def proved(self, *arguments: str) -> Identity:
        """Who somebody is proved to be."""
        return self.successResultOf(self.ask(*arguments))

    def unproven(self, cause: str, *arguments: str) -> None:
        """Somebody is asked again, and it is counted why."""
        self.failures.clear()
        refusal = self.failureResultOf(self.ask(*arguments), Unproven).value
        self.assertEqual(self.challenges(refusal), [b'Basic realm="im.fabrik.example", charset="UTF-8"'])
        self.assertEqual(self.failures, [("basic", cause)])

    def test_right(self) -> None:
        """The LDAP directory says that the password is right, whatever form the name has."""
        for login in ("petra", "Petra", "petra@fabrik.example", "FABRIK\\petra"):
            identity = self.proved(login)
            self.assertEqual(identity.proof, "basic")
            assert identity.principal is not None
            self.assertEqual(identity.principal.key, "im.fabrik.example/instmsg/aliases/petra")

    def test_wrong(self) -> None:
        """A wrong one, somebody unknown."""
        self.unproven("wrong-password", "petra", "wrong")
        self.unproven("unknown-user", "nobody")

    def test_empty(self) -> None:
        """Without a password nobody is asked: servers welcome whoever gives none."""
        self.unproven("malformed", "petra", "")
        self.unproven("malformed", "", PASSWORD)
        self.assertEqual(self.prover.asked, [])

    def test_in_clear(self) -> None:
        """Where the connection is not encrypted it is neither offered nor taken."""
        refusal = self.assertRaises(Unproven, self.identify, PETRA, credentials("petra"), withheld=IN_CLEAR)
        self.assertEqual(refusal.headers, ())
        self.assertEqual(self.prover.asked, [])

    def test_down(self) -> None:
        """A directory that cannot be asked is 503, for the right password and for wrong ones alike."""
        self.prover.down = True
        for password in (PASSWORD, "wrong"):
            self.failures.clear()
            self.failureResultOf(self.ask("petra", password), Busy)
            self.assertEqual(self.failures, [("basic", "directory")])

    def test_kept_for_a_while(self) -> None:
        """A right password is not asked for again for a while; a wrong one always is."""
        self.proved("petra")
        self.proved("petra")
        self.assertEqual(self.prover.asked, [PASSWORD])
        self.unproven("wrong-password", "petra", "wrong")
        self.assertEqual(self.prover.asked, [PASSWORD, "wrong"])
        self.now += KEEP_SECONDS
        self.proved("petra")
        self.assertEqual(self.prover.asked, [PASSWORD, "wrong", PASSWORD])

    def test_another_record(self) -> None:
        """What was right is forgotten when the directory says something else of somebody."""
        self.proved("petra")
        self.put("petra", Verifier(BIND, "uid=petra", "", "id-petra"), enabled=False)
        self.unproven("disabled", "petra")

    def test_password_is_not_kept(self) -> None:
        """What is kept of a right password does not contain it."""
        self.proved("petra")
        (scheme,) = self.gate._schemes
        assert isinstance(scheme, Basic)
        self.assertNotIn(PASSWORD, repr(vars(scheme)))

    def test_guesses_are_counted(self) -> None:
        """Whoever guesses is held back; guessing many at once gains him a single guess."""
        for _ in range(3):
            self.unproven("wrong-password", "petra", "wrong")
        self.unproven("throttled", "petra")
        self.now += 1000.0
        self.prover.asked.clear()
        self.prover.slow = True
        guesses = [self.ask("petra", f"guess {number}") for number in range(8)]
        self.assertEqual(self.prover.asked, ["guess 0"])
        while self.prover.held:
            self.prover.held.pop().callback(False)
        self.assertEqual(self.prover.asked, [f"guess {number}" for number in range(4)])
        for guess in guesses:
            self.failureResultOf(guess, Unproven)

    def test_too_many_wait(self) -> None:
        """There is an end to who may wait for one account."""
        self.prover.slow = True
        waiting = [self.ask("petra", f"guess {number}") for number in range(WAITING_LIMIT + 1)]
        self.failureResultOf(self.ask("petra", "one more"), Busy)
        for one in waiting:
            one.cancel()
            self.failureResultOf(one)

    def test_kept_here(self) -> None:
        """Somebody who is not out of LDAP is checked by what is kept here, be it of Digest or of NTLM."""
        self.assertEqual(self.proved("tomasz", PASSWORD, TOMASZ).proof, "basic")
        self.unproven("wrong-password", "tomasz", "wrong", TOMASZ)
        self.put("tomasz", *make_verifiers("tomasz", FABRIK, PASSWORD, digest=False))
        self.proved("tomasz", PASSWORD, TOMASZ)
        self.put("tomasz")
        self.unproven("no-verifier", "tomasz", PASSWORD, TOMASZ)
        self.put("tomasz", *make_verifiers("tomasz", FABRIK, PASSWORD), enabled=False)
        self.unproven("disabled", "tomasz", PASSWORD, TOMASZ)
        self.assertEqual(self.prover.asked, [])

    def test_own_login_name(self) -> None:
        """Somebody whose login name is none of an address signs in by it, where users come from LDAP."""
        petra = self.directory.peek("im.fabrik.example/instmsg/aliases/petra")
        assert isinstance(petra, Account)
        self.directory = NamedDirectory(self.farm, [petra])
        self.unproven("unknown-user", "pnovak")
        self.set_farm(schemes="basic", **{RECORD: "{}"})
        identity = self.proved("FABRIK\\pnovak")
        assert identity.principal is not None
        self.assertEqual(identity.principal.key, petra.key)
        self.unproven("unknown-user", "nobody")

    def test_malformed(self) -> None:
        """What is no name and password is refused as such."""
        for octets in (
            b"Basic",
            b"Basic !",
            b"Basic " + b64encode(b"petra"),
            b"Basic " + b64encode(b"\xff:x"),
        ):
            self.assertRaises(BadRequest, self.identify, PETRA, octets)
        self.assertRaises(BadRequest, self.identify, PETRA, b"Basic " + b"A" * basic.CREDENTIALS_LENGTH)
        nul = b"Basic " + b64encode(b"petra:" + PASSWORD.encode() + b"\0")
        self.assertRaises(BadRequest, self.identify, PETRA, nul)
