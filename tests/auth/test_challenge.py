"""Tests of L{rvpfarm.auth.challenge}."""

from __future__ import annotations

import re
from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth import challenge
from rvpfarm.auth.challenge import (
    CAUSES,
    CLAIM_LENGTH,
    Attempt,
    Digest,
    Gate,
    Identity,
    Unfit,
)
from rvpfarm.auth.digest import Algorithm, DigestAnswer, Nonces, ha1, parse_authorization, response
from rvpfarm.auth.logins import Logins, login_names, make_verifiers
from rvpfarm.auth.ntlm import nt_hash
from rvpfarm.auth.throttle import FORGIVEN, Throttle
from rvpfarm.directory.model import Account, Domain, Farm
from rvpfarm.directory.names import names_of
from rvpfarm.protocol.address import Principal, parse_target
from rvpfarm.protocol.calls import BadRequest, Busy, Call, Forbidden, Refusal, Unproven, withhold
from tests.support.directory import FakeDirectory, make_account, make_farm

FABRIK = Domain("im.fabrik.example", ("fabrik.example",), ("imsrv",), "FABRIK")
WEBEREI = Domain("im.weberei.example", ("weberei.example", "weben.example"), (), "WEBEREI")
PETRA = "http://im.fabrik.example/instmsg/aliases/petra"
TOMASZ = "http://im.fabrik.example/instmsg/aliases/tomasz"
INGRID = "http://im.orchard.example/instmsg/aliases/ingrid"
PASSWORD = "Blue-Kite-41"


def account(alias: str, domain: Domain = FABRIK, *, enabled: bool = True) -> Account:
    """A user of C{domain} whose password is L{PASSWORD}."""
    made = make_account(f"{domain.name}/instmsg/aliases/{alias}", "home-1", enabled=enabled)
    return replace(made, verifiers=make_verifiers(alias, domain, PASSWORD))


def answer_to(
    line: bytes,
    user: str,
    *,
    password: str = PASSWORD,
    method: bytes = b"PROPFIND",
    uri: str = "/instmsg/aliases/petra",
    nc: int = 1,
    algorithm: Algorithm = "MD5",
) -> bytes:
    """What a client answers to the challenge C{line}."""
    attributes = dict(re.findall(r'(\w+)="?([^",]*)"?', line.decode()))
    answer = DigestAnswer(
        username=user,
        realm=attributes["realm"],
        nonce=attributes["nonce"],
        uri=uri,
        cnonce="abcdef",
        nc=nc,
        count=f"{nc:08x}",
        response="",
        algorithm=algorithm,
    )
    secret = ha1(algorithm, user, answer.realm, password)
    escaped = user.replace("\\", "\\\\")
    return (
        f'Digest username="{escaped}", realm="{answer.realm}", nonce="{answer.nonce}", uri="{uri}", '
        f'cnonce="abcdef", nc={answer.count}, qop=auth, algorithm={algorithm}, '
        f'response="{response(answer, method, secret)}"'
    ).encode()


class GateTestCase(SynchronousTestCase):
    """A gate of a farm with petra, tomasz, and olga who is disabled; anton is in another domain."""

    def setUp(self) -> None:
        """Build it."""
        self.set_farm()
        accounts = [
            account("Petra"),
            account("tomasz"),
            account("olga", enabled=False),
            account("anton", WEBEREI),
            make_account("im.fabrik.example/instmsg/aliases/nopass", "home-1"),
        ]
        self.directory = FakeDirectory(self.farm, accounts)
        self.failures: list[tuple[str, str]] = []
        self.gate = Gate(Nonces(b"k" * 32), on_failure=lambda *failure: self.failures.append(failure))
        self.now = 1000.0
        self.issued = 0

    def set_farm(self, **policies: str) -> None:
        """Set farm-wide policies."""
        self.farm: Farm = make_farm([FABRIK, WEBEREI], **policies)

    def identify(
        self,
        source: str | None = PETRA,
        credentials: bytes | None = None,
        *,
        target: str = "/instmsg/aliases/petra",
        host: str = "im.fabrik.example",
        method: bytes = b"PROPFIND",
        vouched: bool = False,
        withheld: int = 0,
    ) -> Identity | Deferred[Identity]:
        """Who makes a call that says it is from C{source}?"""
        headers = {b"host": host.encode()}
        if source is not None:
            headers[b"rvp-from-principal"] = source.encode()
        if credentials is not None:
            headers[b"authorization"] = credentials
        names = names_of(self.farm)
        call = Call(method, target.encode(), headers, vouched=vouched, withheld=withheld)
        node = parse_target(call.target, host.encode(), names)
        self.issued += 1
        random8 = self.issued.to_bytes(8, "big")
        return self.gate.identify(
            call, node, self.farm, names, self.directory, self.now, lambda size: random8
        )

    def challenges(self, refusal: Refusal) -> list[bytes]:
        """The challenge lines of a refusal."""
        self.assertEqual({name for name, _ in refusal.headers}, {b"WWW-Authenticate"})
        return [line for _, line in refusal.headers]

    def challenge(self) -> bytes:
        """A fresh challenge for MD5."""
        return self.challenges(self.assertRaises(Unproven, self.identify))[0]

    def refused(self, credentials: bytes, cause: str, **rest: str | None) -> list[bytes]:
        """C{credentials} are answered with new challenges, and counted under C{cause}."""
        self.failures.clear()
        found = maybeDeferred(self.identify, credentials=credentials, **rest)
        refusal = self.failureResultOf(found, Unproven).value
        self.assertEqual(self.failures, [("digest", cause)])
        self.assertIn(cause, CAUSES)
        self.assertEqual((refusal.text, refusal.close), ("", False))
        return self.challenges(refusal)


class ClaimTests(GateTestCase):
    """What a call claims is believed only where nothing better can be had."""

    def test_unproved_local(self) -> None:
        """A claim to be one of our own principals needs proof; who exists does not show."""
        for source in (
            PETRA,
            "http://im.fabrik.example/instmsg/aliases/ghost",
            PETRA.upper()[:4] + PETRA[4:],
        ):
            self.assertRaises(Unproven, self.identify, source)
        for source in ("http://imsrv/instmsg/aliases/petra", "im.fabrik.example", "imsrv"):
            self.assertRaises(Unproven, self.identify, source)
        self.assertEqual(self.failures, [])

    def test_foreign(self) -> None:
        """A foreign principal has no account here and can only assert."""
        expected = Principal("im.orchard.example/instmsg/aliases/ingrid", INGRID, False)
        self.assertEqual(self.identify(INGRID), Identity(expected, "assertion"))

    def test_foreign_server(self) -> None:
        """So can a foreign server."""
        expected = Principal("im.orchard.example", "im.orchard.example", True)
        self.assertEqual(self.identify("im.orchard.example"), Identity(expected, "assertion"))

    def test_anonymous(self) -> None:
        """A call that claims nothing is anonymous."""
        self.assertEqual(self.identify(None), Identity(None, "none"))

    def test_vouched(self) -> None:
        """A farm member answers for the principal it names, and for a nameless call."""
        identity = self.identify(PETRA, vouched=True)
        expected = Principal("im.fabrik.example/instmsg/aliases/petra", PETRA, False)
        self.assertEqual(identity, Identity(expected, "internal"))
        self.assertEqual(self.identify(None, vouched=True), Identity(None, "internal"))

    def test_unparsable(self) -> None:
        """A claim that is no principal is a bad request, vouched for or not."""
        for source in ("ftp://im.fabrik.example/x", "", "http://", "h\u00e9"):
            self.assertRaises(BadRequest, self.identify, source)
            self.assertRaises(BadRequest, self.identify, source, vouched=True)

    def test_authentication_off(self) -> None:
        """On a trusted network everybody is believed, and credentials are not looked at."""
        self.set_farm(authentication="off")
        identity = self.identify(PETRA, b"NTLM abc")
        self.assertEqual(identity.proof, "assertion")
        self.assertEqual(identity.principal.key, "im.fabrik.example/instmsg/aliases/petra")
        self.assertEqual(self.identify(None), Identity(None, "none"))
        self.assertEqual(self.failures, [])

    def test_authentication_off_elsewhere(self) -> None:
        """Whether a principal must prove himself is for his own domain to say."""
        trusting = replace(WEBEREI, policies={"authentication": "off"})
        self.farm = make_farm([FABRIK, trusting])
        self.assertRaises(Unproven, self.identify, target="/instmsg/aliases/anton", host="im.weberei.example")
        anton = "http://im.weberei.example/instmsg/aliases/anton"
        self.assertEqual(self.identify(anton).proof, "assertion")


class ChallengeTests(GateTestCase):
    """The challenges are exactly what the oldest clients can read."""

    def test_lines(self) -> None:
        """Each scheme has its own line, in the order of the policy."""
        lines = self.challenges(self.assertRaises(Unproven, self.identify))
        self.assertEqual(len(lines), 2)
        pattern = rb'Digest qop="auth", realm="im\.fabrik\.example", nonce="[0-9a-f]{60}"'
        self.assertRegex(lines[0], b"^" + pattern + b"$")
        self.assertRegex(lines[1], b"^" + pattern + b", algorithm=SHA-256$")

    def test_policy(self) -> None:
        """The policy says which schemes are offered and in which order; unknown words offer nothing."""
        self.set_farm(schemes="negotiate digest-sha-256 digest-md5")
        lines = self.challenges(self.assertRaises(Unproven, self.identify))
        self.assertEqual([b"SHA-256" in line for line in lines], [True, False])
        self.set_farm(schemes="digest-md5")
        self.assertEqual(len(self.challenges(self.assertRaises(Unproven, self.identify))), 1)

    def test_realm(self) -> None:
        """The realm is the IM domain of whoever is to prove himself, else that of the node."""
        refusal = self.assertRaises(
            Unproven, self.identify, target="/instmsg/aliases/anton", host="im.weberei.example"
        )
        self.assertIn(b'realm="im.fabrik.example"', self.challenges(refusal)[0])
        names = names_of(self.farm)
        node = parse_target(b"/instmsg/aliases/anton", b"im.weberei.example", names)
        refusal = self.gate.unproven(
            Call(b"ACL", b"/", {}), node, self.farm, self.now, lambda size: b"12345678"
        )
        self.assertIsInstance(refusal, Unproven)
        self.assertIn(b'realm="im.weberei.example"', self.challenges(refusal)[0])

    def test_nothing_to_offer(self) -> None:
        """Where nobody can authenticate, an anonymous caller is told no, not who are you."""
        self.set_farm(authentication="off")
        node = parse_target(b"/instmsg/aliases/petra", b"im.fabrik.example", names_of(self.farm))
        self.assertIsInstance(
            self.gate.unproven(Call(b"ACL", b"/", {}), node, self.farm, self.now, lambda size: b"12345678"),
            Forbidden,
        )

    def test_a_listener_withholds_schemes(self) -> None:
        """What a listener does not offer is neither offered to its callers nor taken from them."""
        withheld = withhold(["digest-sha-256"])
        refusal = self.assertRaises(Unproven, self.identify, withheld=withheld)
        (line,) = self.challenges(refusal)
        self.assertIn(b"SHA-256", line)
        proof = answer_to(self.challenges(self.assertRaises(Unproven, self.identify))[0], "petra")
        self.assertRaises(Unproven, self.identify, PETRA, proof, withheld=withheld)
        identity = self.identify(PETRA, proof)
        assert isinstance(identity, Identity)
        self.assertEqual(identity.proof, "digest")

    def test_new_nonce_every_time(self) -> None:
        """No two challenges have the same nonce."""
        self.assertNotEqual(self.challenge(), self.challenge())


class DigestTests(GateTestCase):
    """Right credentials say who calls; wrong ones say nothing but try again."""

    def test_right(self) -> None:
        """The caller is who he proved to be, in the directory's letter case (vectors 57 and 55)."""
        identity = self.identify(PETRA, answer_to(self.challenge(), "petra"))
        expected = Principal(
            "im.fabrik.example/instmsg/aliases/petra",
            "http://im.fabrik.example/instmsg/aliases/Petra",
            False,
        )
        self.assertEqual(identity, Identity(expected, "digest"))
        self.assertEqual(self.failures, [])

    def test_every_login_name(self) -> None:
        """Each form of the name is good, with both algorithms."""
        algorithms: tuple[Algorithm, ...] = ("MD5", "SHA-256")
        for name in login_names("Petra", FABRIK):
            for algorithm in algorithms:
                credentials = answer_to(self.challenge(), name, algorithm=algorithm)
                self.assertEqual(self.identify(PETRA, credentials).proof, "digest", name)

    def test_no_claim(self) -> None:
        """Without a claim the caller is the authenticated user (vector 56)."""
        identity = self.identify(None, answer_to(self.challenge(), "petra"))
        self.assertEqual(identity.principal.key, "im.fabrik.example/instmsg/aliases/petra")

    def test_other_claim(self) -> None:
        """Whoever claims to be somebody else is refused, wherever that one lives (vector 55)."""
        for source in (TOMASZ, INGRID, "im.orchard.example"):
            credentials = answer_to(self.challenge(), "petra")
            self.assertRaises(Forbidden, self.identify, source, credentials)

    def test_wrong_password(self) -> None:
        """A wrong password is asked for again, and the nonce is not blamed."""
        lines = self.refused(answer_to(self.challenge(), "petra", password="x"), "wrong-password")
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertNotIn(b"stale", line)

    def test_unknown_looks_like_wrong(self) -> None:
        """An unknown user, a disabled one and a wrong password get the same answer."""
        shape = re.compile(rb'nonce="[0-9a-f]{60}"')
        answers = []
        for user, cause in [
            ("petra", "wrong-password"),
            ("ghost", "unknown-user"),
            ("ghost@elsewhere.example", "unknown-user"),
            ("nopass", "no-verifier"),
        ]:
            credentials = answer_to(self.challenge(), user, password="x")
            answers.append([shape.sub(b"", line) for line in self.refused(credentials, cause)])
        credentials = answer_to(self.challenge(), "olga")
        answers.append([shape.sub(b"", line) for line in self.refused(credentials, "disabled")])
        for answer in answers:
            self.assertEqual(answer, answers[0])

    def test_unknown_letter_case(self) -> None:
        """A form of the name that was never hashed cannot be checked, and says so to the metric."""
        self.refused(answer_to(self.challenge(), "pEtRa"), "no-verifier")

    def test_replay(self) -> None:
        """A repeated answer is stale, and the next one to the new nonce is good (vector 57)."""
        credentials = answer_to(self.challenge(), "petra")
        self.identify(PETRA, credentials)
        lines = self.refused(credentials, "replayed")
        self.assertTrue(lines[0].endswith(b", stale=true"))
        self.assertTrue(lines[1].endswith(b", algorithm=SHA-256, stale=true"))
        self.assertEqual(self.identify(PETRA, answer_to(lines[0], "petra")).proof, "digest")

    def test_counting_on(self) -> None:
        """A client may use a nonce again with the next count."""
        line = self.challenge()
        for nc in (1, 2, 4, 3):
            self.assertEqual(self.identify(PETRA, answer_to(line, "petra", nc=nc)).proof, "digest")
        self.refused(answer_to(line, "petra", nc=3), "replayed")

    def test_stale(self) -> None:
        """An old nonce, or one of before the farm key was changed, is stale for whoever has the password."""
        line = self.challenge()
        self.now += 301
        lines = self.refused(answer_to(line, "petra"), "stale-nonce")
        self.assertIn(b"stale=true", lines[0])
        foreign = re.sub(rb'nonce="[^"]*"', b'nonce="6f2c41d0aa9be7355d10c2e84b7f9012"', line)
        lines = self.refused(answer_to(foreign, "petra"), "stale-nonce")
        self.assertIn(b"stale=true", lines[0])
        lines = self.refused(answer_to(foreign, "petra", password="x"), "wrong-password")
        self.assertNotIn(b"stale", lines[0])

    def test_wrong_password_uses_nothing_up(self) -> None:
        """A stranger cannot use up the counts of somebody's nonce."""
        line = self.challenge()
        self.refused(answer_to(line, "petra", password="x"), "wrong-password")
        self.assertEqual(self.identify(PETRA, answer_to(line, "petra")).proof, "digest")

    def test_method(self) -> None:
        """Credentials for one method are not good for another."""
        credentials = answer_to(self.challenge(), "petra", method=b"PROPFIND")
        self.refused(credentials, "wrong-password", method=b"NOTIFY")

    def test_forms_of_the_path(self) -> None:
        """C{uri} may be any form of the node's own URL (protocol notes 9.5)."""
        physical = "/instmsg/local/im.fabrik.example/instmsg/aliases/petra"
        for target in ("/instmsg/aliases/petra", physical, "/INSTMSG/aliases/Petra"):
            for uri in ("/instmsg/aliases/petra", physical, PETRA, "/aliases/petra"):
                credentials = answer_to(self.challenge(), "petra", uri=uri)
                self.assertEqual(self.identify(PETRA, credentials, target=target).proof, "digest")

    def test_other_node(self) -> None:
        """Credentials for one node are not good for another."""
        for uri in (
            "/instmsg/aliases/tomasz",
            "http://im.weberei.example/instmsg/aliases/petra",
            "http://im.elsewhere.example/instmsg/aliases/petra",
            "*",
            "",
        ):
            credentials = answer_to(self.challenge(), "petra", uri=uri)
            self.failures.clear()
            self.assertRaises(BadRequest, self.identify, PETRA, credentials)
            self.assertEqual(self.failures, [("digest", "malformed")])

    def test_malformed(self) -> None:
        """Garbage is a bad request, and counted."""
        self.assertRaises(BadRequest, self.identify, PETRA, b"Digest garbage")
        self.assertEqual(self.failures, [("digest", "malformed")])

    def test_scheme_not_offered(self) -> None:
        """Credentials of a scheme that is not offered prove nothing, even beside a foreign claim."""
        for credentials in (b"Basic cGV0cmE6eA==", b"NTLM TlRMTVNTUAABAAAA", b"", b"Negotiate x"):
            for source in (PETRA, INGRID, None):
                self.failures.clear()
                self.assertRaises(Unproven, self.identify, source, credentials)
                self.assertEqual(self.failures, [("other", "malformed")])

    def test_algorithm_not_offered(self) -> None:
        """Nor do those of an algorithm that is not offered."""
        self.set_farm(schemes="digest-sha-256")
        line = self.challenge()
        self.refused(answer_to(line, "petra", algorithm="MD5"), "malformed")
        credentials = answer_to(line, "petra", algorithm="SHA-256")
        self.assertEqual(self.identify(PETRA, credentials).proof, "digest")

    def test_node_of_another_domain(self) -> None:
        """A user proves himself at the nodes of every domain of the farm."""
        where = {"target": "/instmsg/aliases/anton", "host": "im.weberei.example"}
        refusal = self.assertRaises(Unproven, self.identify, **where)
        credentials = answer_to(self.challenges(refusal)[0], "petra", uri="/instmsg/aliases/anton")
        self.assertEqual(self.identify(PETRA, credentials, **where).proof, "digest")

    def test_same_name_in_another_domain(self) -> None:
        """A bare name is looked up in the domain of the realm, and nowhere else."""
        line = self.challenge()
        self.refused(answer_to(line, "anton"), "unknown-user")
        self.refused(answer_to(line, "WEBEREI\\anton"), "no-verifier")


class LaterTests(GateTestCase):
    """When the directory must be asked, the answer comes later and is the same."""

    def setUp(self) -> None:
        """A directory that remembers nothing yet and answers when told."""
        super().setUp()
        self.directory.remembered.clear()
        self.directory.later = True

    def later(self, source: str | None, credentials: bytes) -> Deferred[Identity]:
        """The identity that is still to come."""
        found = self.identify(source, credentials)
        assert isinstance(found, Deferred)
        self.assertNoResult(found)
        return found

    def test_right(self) -> None:
        """The identity arrives with the account."""
        found = self.later(PETRA, answer_to(self.challenge(), "petra"))
        self.directory.answer_finds()
        self.assertEqual(self.successResultOf(found).proof, "digest")

    def test_refused(self) -> None:
        """So do the refusals."""
        line = self.challenge()
        wrong = self.later(PETRA, answer_to(line, "petra", password="x"))
        ghost = self.later(PETRA, answer_to(line, "ghost"))
        forged = self.later(TOMASZ, answer_to(line, "petra"))
        self.directory.answer_finds()
        for found in (wrong, ghost):
            self.assertEqual(len(self.challenges(self.failureResultOf(found, Unproven).value)), 2)
        self.failureResultOf(forged, Forbidden)
        self.assertEqual(self.failures, [("digest", "wrong-password"), ("digest", "unknown-user")])

    def test_directory_unavailable(self) -> None:
        """A directory that cannot be asked is never taken for a wrong password."""
        self.directory.later = False
        self.directory.unavailable = True
        found = self.identify(PETRA, answer_to(self.challenge(), "petra"))
        assert isinstance(found, Deferred)
        self.failureResultOf(found, Busy)
        self.assertEqual(self.failures, [("digest", "directory")])

    def test_caller_hung_up(self) -> None:
        """Cancelling stops the look-up, and counts nothing."""
        found = self.later(PETRA, answer_to(self.challenge(), "petra"))
        found.cancel()
        self.failureResultOf(found, CancelledError)
        self.assertEqual(self.failures, [])


class ChangeTests(GateTestCase):
    """Whoever has proved who he is a hundred times gains nothing by it once something has changed."""

    def setUp(self) -> None:
        """Petra has signed in."""
        super().setUp()
        self.nc = 0
        self.line = self.challenge()
        self.proves()

    def credentials(self, password: str = PASSWORD) -> bytes:
        """Those of her next call."""
        self.nc += 1
        return answer_to(self.line, "petra", password=password, nc=self.nc)

    def proves(self, password: str = PASSWORD) -> None:
        """Her next call is hers."""
        self.assertEqual(self.identify(PETRA, self.credentials(password)).proof, "digest")

    def test_wrong_password(self) -> None:
        """A wrong password stays wrong, and a call that was made stays made."""
        self.refused(self.credentials("x"), "wrong-password", source=PETRA)
        used = self.credentials()
        self.identify(PETRA, used)
        self.refused(used, "replayed", source=PETRA)
        self.proves()

    def test_new_password(self) -> None:
        """From the moment a password is changed the new one is right, and the old one is wrong."""
        verifiers = make_verifiers("Petra", FABRIK, "Red-Boat-17")
        self.directory.put(replace(account("Petra"), verifiers=verifiers))
        self.refused(self.credentials(), "wrong-password", source=PETRA)
        self.proves("Red-Boat-17")
        self.directory.put(replace(account("Petra"), verifiers=()))
        self.refused(self.credentials("Red-Boat-17"), "no-verifier", source=PETRA)

    def test_while_the_directory_is_asked(self) -> None:
        """So it is when the change is found only while the call waits."""
        verifiers = make_verifiers("Petra", FABRIK, "Red-Boat-17")
        self.directory.put(replace(account("Petra"), verifiers=verifiers), silently=True)
        self.directory.forget(account("Petra").key)
        self.directory.later = True
        found = self.identify(PETRA, self.credentials())
        assert isinstance(found, Deferred)
        self.directory.answer_finds()
        self.failureResultOf(found, Unproven)
        self.proves("Red-Boat-17")

    def test_disabled(self) -> None:
        """A user who is disabled is refused at once, and welcome again once he is not."""
        self.directory.put(account("Petra", enabled=False))
        self.refused(self.credentials(), "disabled", source=PETRA)
        self.directory.put(account("Petra"))
        self.proves()

    def test_removed(self) -> None:
        """Who is gone is unknown, and so is whoever had never been there; a new one of that name is himself."""
        self.directory.remove(account("Petra").key)
        for _ in range(2):
            self.refused(self.credentials(), "unknown-user", source=PETRA)
        self.directory.put(account("Petra"))
        self.proves()

    def test_names_change(self) -> None:
        """A login name means what it means in the farm of now."""
        name = "petra@fabrik.example"
        self.identify(PETRA, answer_to(self.line, name, nc=90))
        other = replace(FABRIK, mail_domains=())
        self.farm = make_farm([other, replace(WEBEREI, mail_domains=("fabrik.example",))])
        self.refused(answer_to(self.line, name, nc=91), "unknown-user", source=PETRA)

    def test_policies_change(self) -> None:
        """A call without credentials, and a scheme, are judged by the policies of now."""
        self.assertRaises(Unproven, self.identify, PETRA)
        self.set_farm(authentication="off")
        self.assertEqual(self.identify(PETRA).proof, "assertion")
        self.set_farm(schemes="digest-sha-256")
        self.refused(self.credentials(), "malformed", source=PETRA)
        self.set_farm()
        self.proves()

    def test_domains_change(self) -> None:
        """Whoever is of a domain that is not ours any more can only assert, and the other way round."""
        anton = "http://im.weberei.example/instmsg/aliases/anton"
        self.assertRaises(Unproven, self.identify, anton)
        self.farm = make_farm([FABRIK])
        self.assertEqual(self.identify(anton).proof, "assertion")
        self.set_farm()
        self.assertRaises(Unproven, self.identify, anton)

    def test_throttled(self) -> None:
        """Who is held back is, however often he was not."""
        self.gate = Gate(Nonces(b"k" * 32), on_failure=self.gate._on_failure, throttle=Throttle())
        self.proves()
        for _ in range(10):
            self.refused(self.credentials("x"), "wrong-password", source=PETRA)
        self.refused(self.credentials(), "throttled", source=PETRA)
        self.now += FORGIVEN["pair"]
        self.proves()

    def test_bounded(self) -> None:
        """However many names are given, and claimed, no more are kept than the limit."""
        self.patch(challenge, "KNOWN_LIMIT", 10)
        scheme = Digest(Nonces(b"k" * 32))
        gate = self.gate = Gate(Nonces(b"k" * 32), schemes=[scheme])
        for number in range(50):
            self.line = self.challenge()
            claim = f"http://im.fabrik.example/instmsg/aliases/u{number}"
            found = maybeDeferred(self.identify, claim, answer_to(self.line, f"u{number}"))
            self.failureResultOf(found, Unproven)
            self.assertLessEqual(len(scheme._known), 10)
            self.assertLessEqual(len(gate._claims), 10)
        self.assertRaises(Unproven, self.identify, PETRA + "x" * CLAIM_LENGTH)
        self.assertFalse([said for said, _, _ in gate._claims if said and len(said) > CLAIM_LENGTH])


class Handshake:
    """A scheme that signs connections in: any token, then the word C{go}, then nothing more."""

    proof = "ntlm"
    token = b"ntlm"
    words = ("ntlm",)

    def __init__(self, account: Account) -> None:
        self._account = account
        self._open: set[str] = set()
        self._signed_in: set[str] = set()

    def challenge(self, word: str, realm: str, nonce: str, stale: bool) -> bytes:
        """The bare line."""
        return b"NTLM"

    def holds(self, connection: str) -> bool:
        """After the handshake."""
        return connection in self._signed_in

    def prove(self, attempt: Attempt, credentials: bytes | None) -> Account:
        """Two steps, on one connection."""
        connection = attempt.call.connection
        if credentials is None:
            return self._account
        if credentials == b"NTLM go" and connection in self._open:
            self._signed_in.add(connection)
            return self._account
        if credentials == b"NTLM go":
            raise Unfit("malformed")
        self._open.add(connection)
        raise Unfit("", lines=(b"NTLM token",))


class SchemeTests(GateTestCase):
    """A scheme that authenticates connections has its place beside Digest (vectors 52 to 54)."""

    def call(self, connection: str, credentials: bytes | None) -> Identity:
        """A call of petra on C{connection}."""
        headers = {b"rvp-from-principal": PETRA.encode()}
        if credentials is not None:
            headers[b"authorization"] = credentials
        call = Call(b"PROPFIND", b"/instmsg/aliases/petra", headers, connection=connection)
        names = names_of(self.farm)
        node = parse_target(call.target, b"im.fabrik.example", names)
        found = self.gate.identify(
            call, node, self.farm, names, self.directory, self.now, lambda size: b"12345678"
        )
        assert isinstance(found, Identity)
        return found

    def test_handshake(self) -> None:
        """Its steps are no failures, it holds for the connection, and for no other."""
        self.set_farm(schemes="ntlm digest-md5")
        petra = account("petra")
        self.gate = Gate(
            Nonces(b"k" * 32),
            schemes=[Handshake(petra)],
            on_failure=lambda *failure: self.failures.append(failure),
        )
        refusal = self.assertRaises(Unproven, self.call, "one", None)
        self.assertEqual(self.challenges(refusal), [b"NTLM"])
        refusal = self.assertRaises(Unproven, self.call, "one", b"NTLM type1")
        self.assertEqual(self.challenges(refusal), [b"NTLM token"])
        self.assertEqual(self.failures, [])
        self.assertRaises(Unproven, self.call, "two", b"NTLM go")
        self.assertEqual(self.failures, [("ntlm", "malformed")])
        self.assertEqual(self.call("one", b"NTLM go").proof, "ntlm")
        self.assertEqual(self.call("one", None).proof, "ntlm")
        self.assertRaises(Unproven, self.call, "two", None)

    def test_not_offered(self) -> None:
        """Where the policy does not offer it, it is not asked."""
        self.set_farm(schemes="digest-md5 digest-sha-256")
        self.gate = Gate(Nonces(b"k" * 32), schemes=[Handshake(account("petra"))])
        refusal = self.assertRaises(Unproven, self.call, "one", b"NTLM type1")
        self.assertEqual(refusal.headers, ())


class LoginTests(SynchronousTestCase):
    """A login name is understood in every form in which clients send it."""

    def test_names(self) -> None:
        """Every form, each once, in the directory's letter case and in lower case."""
        expected = {
            "petra",
            "petra@im.fabrik.example",
            "petra@fabrik.example",
            "FABRIK\\petra",
            "FABRIK/petra",
            "fabrik\\petra",
            "fabrik/petra",
        }
        names = login_names("petra", FABRIK)
        self.assertEqual(set(names), expected)
        self.assertEqual(len(names), len(expected))
        mixed = {name.replace("petra", "Petra") for name in expected}
        self.assertEqual(set(login_names("Petra", FABRIK)), expected | mixed)

    def test_no_netbios(self) -> None:
        """A domain without a NetBIOS name has no such forms."""
        domain = replace(FABRIK, netbios="")
        self.assertEqual(len(login_names("petra", domain)), 3)

    def test_verifiers(self) -> None:
        """There is one for every form and algorithm, and no password in any of them."""
        verifiers = make_verifiers("petra", FABRIK, PASSWORD, nt=False)
        self.assertEqual(len(verifiers), 14)
        self.assertEqual(len({(each.scheme, each.username) for each in verifiers}), 14)
        found = [each for each in verifiers if each.username == "FABRIK/petra"]
        self.assertEqual({each.scheme for each in found}, {"digest-md5", "digest-sha-256"})
        self.assertEqual(found[0].secret, "f47725ec122827c47509edb01abc5deb")
        for each in verifiers:
            self.assertEqual(each.realm, "im.fabrik.example")
            self.assertNotIn(PASSWORD, each.secret)

    def test_nt_verifier(self) -> None:
        """There is one for NTLM, whatever the login name; each kind is made only where it may be kept."""
        (found,) = make_verifiers("Petra", FABRIK, PASSWORD, digest=False)
        self.assertEqual((found.scheme, found.username, found.realm), ("nt", "Petra", ""))
        self.assertEqual(found.secret, nt_hash(PASSWORD).hex())
        self.assertEqual(len(make_verifiers("petra", FABRIK, PASSWORD)), 15)
        self.assertEqual(make_verifiers("petra", FABRIK, PASSWORD, digest=False, nt=False), ())

    def test_keys(self) -> None:
        """Each form leads to the node, whatever its letter case."""
        logins = Logins(make_farm([FABRIK, WEBEREI]))
        petra = "im.fabrik.example/instmsg/aliases/petra"
        for name in (*login_names("Petra", FABRIK), "PETRA@FABRIK.example", "imsrv\\petra", "petra@imsrv"):
            self.assertEqual(logins.key(name, "im.fabrik.example"), petra)
        self.assertEqual(
            logins.key("a@weben.example", "im.fabrik.example"), "im.weberei.example/instmsg/aliases/a"
        )
        self.assertEqual(
            logins.key("a b%/c", "im.fabrik.example"),
            None,
        )
        self.assertEqual(
            logins.key("a b%", "im.fabrik.example"), "im.fabrik.example/instmsg/aliases/a%20b%25"
        )

    def test_nobody(self) -> None:
        """A name in a domain that is not served, or no name, means nobody."""
        logins = Logins(make_farm([FABRIK, WEBEREI]))
        for name in ("", "@fabrik.example", "FABRIK\\", "OTHER\\petra", "petra@other.example"):
            self.assertIsNone(logins.key(name, "im.fabrik.example"))
        self.assertIsNone(logins.key("petra", "im.other.example"))

    def test_answer_helper(self) -> None:
        """The answers of these tests are what the reader reads."""
        line = b'Digest qop="auth", realm="r", nonce="n"'
        self.assertEqual(parse_authorization(answer_to(line, "FABRIK\\petra")).username, "FABRIK\\petra")
