"""Vectors 52 to 58: who is asked to prove who he is, and how he does."""

from __future__ import annotations

import re

from tests.support.farmhouse import MILL, PASSWORDS, PETRA, TOMASZ, Farmhouse, profile_s
from tests.support.ntlm import EXTENDED, V1, V2, NtlmClient
from tests.support.printed import MULTISTATUS_NAME, PROPFIND, PROPPATCH
from tests.support.reckoning import digest_response, net_rvp_type3
from tests.support.vectors import CALL_BACK, LOGIN, NO_STATE, PATHS, VectorTestCase, request
from tests.support.wire import Message, Wire

REALM = "im.fabrik.example"
#: The type 1 of protocol notes 9.3.
TYPE_1 = "TlRMTVNTUAABAAAAB7IAAAUABQAgAAAABgAGACUAAABwZXRyYUZBQlJJSw=="
CNONCE = "0123456789abcdef0123456789abcdef"


def digest(nonce: str, method: str, uri: str, *, user: str, password: str) -> str:
    """Digest credentials as Miranda writes them: with more quotation marks than there should be."""
    response = digest_response(user, REALM, password, method, uri, nonce, "00000001", CNONCE)
    return (
        f'Authorization: Digest username="{user}", realm="{REALM}", nonce="{nonce}", uri="{uri}", '
        f'algorithm="MD5", qop="auth", nc="00000001", cnonce="{CNONCE}", response="{response}"'
    )


class SecureTestCase(VectorTestCase):
    """Tests in profile S."""

    def open_house(self) -> Farmhouse:
        """Profile S."""
        return profile_s()

    def login_by(self, *headers: str, who: str = PETRA) -> bytes:
        """The request of vector 1 with further headers."""
        return request("SUBSCRIBE", "/p", *LOGIN, CALL_BACK, *headers, who=who)

    def digested(
        self, wire: Wire, method: str, path: str, *headers: str, user: str, who: str, body: str = ""
    ) -> Message:
        """Ask, be challenged, and prove to be C{user} by Digest."""
        challenged = wire.ask(request(method, path, *headers, who=who, body=body))
        credentials = digest(self.nonce(challenged), method, PATHS[path], user=user, password=PASSWORDS[user])
        return wire.ask(request(method, path, *headers, credentials, who=who, body=body))

    def nonce(self, answer: Message) -> str:
        """The nonce of the one challenge for Digest by MD5."""
        self.assertEqual(answer.status, 401, answer.raw)
        (line,) = (
            line for line in self.challenges(answer) if line.startswith("Digest") and "SHA" not in line
        )
        (nonce,) = re.findall('nonce="([^",]+)"', line)
        return nonce

    def challenges(self, answer: Message) -> list[str]:
        """Every challenge, in order."""
        return answer.every("WWW-Authenticate")

    def tidy(self) -> None:
        """As always, with proof."""
        wire = self.connect()
        for path, who, user in (("/p", PETRA, "petra"), ("/t", TOMASZ, "tomasz")):
            listed = self.digested(wire, "SUBSCRIPTIONS", path, user=user, who=who)
            for number in re.findall(r"<r:subscription-id>(\d+)<", listed.body.decode()):
                ended = self.digested(
                    wire, "UNSUBSCRIBE", path, f"Subscription-Id: {number}", user=user, who=who
                )
                self.assertEqual(ended.status, 200, ended.raw)
            gone = self.digested(wire, "PROPPATCH", path, user=user, who=who, body=NO_STATE)
            self.assertEqual(gone.status, 207, gone.raw)


class NtlmVectors(SecureTestCase):
    """NTLM, which authenticates a connection."""

    def handshake(self, wire: Wire, client: NtlmClient, data: bytes = b"") -> tuple[Message, str]:
        """Begin a handshake: the answer with the type 2, and the credentials with the type 3."""
        challenged = wire.ask(self.authorised(data or self.login_by(), client.step()))
        return challenged, client.step(*self.challenges(challenged))

    def authorised(self, data: bytes, credentials: str) -> bytes:
        """C{data} with C{Authorization}."""
        return data.replace(
            b"Content-Length:", f"Authorization: {credentials}\r\nContent-Length:".encode(), 1
        )

    def test_vector_52(self) -> None:
        """Who proves nothing is challenged: one line C{NTLM}, one line of Digest, each on its own.

        The vector knows one line of Digest, for it was written for RFC 2617 and MD5.  SHA-256 is offered as
        well, and RFC 7616 wants a challenge of its own for it; a client that knows only MD5 finds MD5 in
        the line before, which is exactly the printed one, and no line has two schemes.  To the letter the
        vector holds where the policy C{schemes} offers C{ntlm digest-md5} alone, as it does for a second
        domain of this very home.
        """
        answer = self.connect().ask(self.login_by())
        self.assertEqual(answer.line, "HTTP/1.1 401 Access Denied")
        self.check_answer(answer)
        self.assertEqual(answer.every("Connection"), [])
        nonce = self.nonce(answer)
        printed = f'Digest qop="auth", realm="{REALM}", nonce="{nonce}"'
        self.assertEqual(
            self.challenges(answer), ["NTLM", printed, f"{printed}, algorithm=SHA-256"], answer.raw
        )
        mill = f"http://{MILL}/instmsg/aliases/petra"
        answer = self.connect().ask(request("SUBSCRIBE", mill, *LOGIN, CALL_BACK, who=mill, host=MILL))
        self.check_answer(answer)
        self.assertEqual(
            (answer.status, self.challenges(answer)),
            (401, ["NTLM", f'Digest qop="auth", realm="{MILL}", nonce="{self.nonce(answer)}"']),
        )

    def test_vector_53(self) -> None:
        """Three calls on one connection log in; what follows on it is the same user's without a word.

        By every version of NTLM, as pyspnego computes them, and by the messages of section 9.3.
        """
        for level in (V1, EXTENDED, V2):
            wire = self.connect()
            self.assertEqual(self.challenges(wire.ask(self.login_by()))[0], "NTLM")
            challenged, credentials = self.handshake(
                wire, NtlmClient("FABRIK\\petra", PASSWORDS["petra"], level=level)
            )
            self.check_second_leg(challenged)
            self.check_in(wire, wire.ask(self.authorised(self.login_by(), credentials)))
        wire = self.connect()
        challenged = wire.ask(self.login_by(f"Authorization: NTLM {TYPE_1}"))
        self.check_second_leg(challenged)
        type_2 = challenged.header("WWW-Authenticate").removeprefix("NTLM ")
        type_3 = net_rvp_type3(type_2, "petra", PASSWORDS["petra"])
        self.check_in(wire, wire.ask(self.login_by(f"Authorization: NTLM {type_3}")))

    def check_second_leg(self, challenged: Message) -> None:
        """The type 2 is the only challenge, and the connection stays."""
        self.assertEqual(challenged.status, 401, challenged.raw)
        self.check_answer(challenged)
        self.assertTrue(challenged.header("WWW-Authenticate").startswith("NTLM TlRMTVNTUAACAAAA"))
        self.assertEqual(challenged.every("Connection"), [])

    def check_in(self, wire: Wire, answer: Message) -> None:
        """The login is granted, and a PROPFIND without credentials is answered on the connection."""
        self.assertEqual(answer.status, 200, answer.raw)
        self.check_answer(answer)
        found = wire.ask(request("PROPFIND", "/p", "Depth: 0", who=PETRA, body=PROPFIND))
        self.assertEqual((found.status, found.body), (207, MULTISTATUS_NAME), found.raw)

    def test_vector_54(self) -> None:
        """A type 3 means nothing on another connection than that of its challenge."""
        wire = self.connect()
        _, credentials = self.handshake(wire, NtlmClient("petra", PASSWORDS["petra"]))
        answer = self.connect().ask(self.authorised(self.login_by(), credentials))
        self.assertEqual((answer.status, self.challenges(answer)), (401, ["NTLM"]), answer.raw)
        self.check_answer(answer)
        # on its own it still does
        self.assertEqual(wire.ask(self.authorised(self.login_by(), credentials)).status, 200)

    def test_vector_55(self) -> None:
        """Who has proved to be petra may not claim to be tomasz, whatever the scheme."""
        wire = self.connect()
        _, credentials = self.handshake(wire, NtlmClient("petra", PASSWORDS["petra"]))
        self.assertEqual(wire.ask(self.authorised(self.login_by(), credentials)).status, 200)
        for claimed in (TOMASZ, self.ingrid):
            answer = wire.ask(request("PROPFIND", "/p", "Depth: 0", who=claimed, body=PROPFIND))
            self.assertEqual(answer.status, 403, answer.raw)
        answer = self.digested(self.connect(), "ACL", "/p", user="petra", who=TOMASZ)
        self.assertEqual(answer.status, 403, answer.raw)

    def test_vector_56(self) -> None:
        """Who has proved to be petra need not say so, whatever the scheme."""
        wire = self.connect()
        data = request("PROPPATCH", "/p", body=PROPPATCH)
        _, credentials = self.handshake(wire, NtlmClient("petra", PASSWORDS["petra"]), data)
        answer = wire.ask(self.authorised(data, credentials))
        self.assertEqual(answer.status, 207, answer.raw)
        self.assertTrue(answer.has("<d:status>HTTP/1.1 200 Successful</d:status>"))
        self.assertEqual(wire.ask(request("ACL", "/p")).status, 200)
        challenged = self.connect().ask(request("ACL", "/p"))
        credentials = digest(
            self.nonce(challenged), "ACL", PATHS["/p"], user="petra", password=PASSWORDS["petra"]
        )
        self.assertEqual(self.connect().ask(request("ACL", "/p", credentials)).status, 200)


class DigestVectors(SecureTestCase):
    """Digest, which authenticates a call; and who is challenged at all."""

    def test_vector_57(self) -> None:
        """Miranda's answer is taken once; then the nonce is stale, and a wrong password is just wrong."""
        method, uri = "SUBSCRIBE", PATHS["/p"]
        printed = "6f2c41d0aa9be7355d10c2e84b7f9012"
        expected = "0e5e2a4c0e8b29cb11137dcf13b885c2"
        user, password = "FABRIK/petra", PASSWORDS["petra"]
        self.assertIn(expected, digest(printed, method, uri, user=user, password=password))
        nonce = self.nonce(self.connect().ask(self.login_by()))
        right = digest(nonce, method, uri, user=user, password=password)
        answer = self.connect().ask(self.login_by(right))
        self.assertEqual(answer.status, 200, answer.raw)
        self.check_answer(answer)
        again = self.connect().ask(self.login_by(right))
        self.assertNotEqual(self.nonce(again), nonce)
        self.check_answer(again)
        stale = [line for line in self.challenges(again) if line.startswith("Digest")]
        self.assertEqual([line for line in stale if ", stale=true" in line], stale)
        wrong = digest(self.nonce(again), method, uri, user=user, password="Blue-Kite-42")
        refused = self.connect().ask(self.login_by(wrong))
        self.assertNotEqual(self.nonce(refused), self.nonce(again))
        self.assertNotIn("stale", " ".join(self.challenges(refused)))

    def test_vector_57_names(self) -> None:
        """The name is hashed as it arrives, in each form in which clients send it."""
        for user in ("petra", "petra@fabrik.example", "FABRIK\\petra", "FABRIK/petra"):
            nonce = self.nonce(self.connect().ask(self.login_by()))
            right = digest(nonce, "SUBSCRIBE", PATHS["/p"], user=user, password=PASSWORDS["petra"])
            self.assertEqual(self.connect().ask(self.login_by(right)).status, 200, user)

    def test_vector_58(self) -> None:
        """Names cannot be harvested by claiming to be of here; strangers have nothing to prove."""
        for who in (TOMASZ, ""):
            answer = self.ask("PROPFIND", "/instmsg/aliases/nobody", "Depth: 0", who=who, body=PROPFIND)
            self.assertEqual(answer.status, 401, answer.raw)
            self.check_answer(answer)
            self.assertIn("NTLM", self.challenges(answer))
        self.assertTrue(self.watch(self.ingrid).has("<r:state><r:offline/></r:state>"))
