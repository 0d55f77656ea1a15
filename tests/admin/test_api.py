"""The admin API without sockets: what is asked, and which status and sentence come back."""

from __future__ import annotations

import json
import time
from typing import Any

from rvpfarm.admin import handlers
from rvpfarm.admin.administrators import add_administrator, create_token, revoke_token
from rvpfarm.admin.api import Answer, Api, Ask
from tests.admin.test_handlers import HandlerCase

JSON = "application/json"
OWNER, STRANGER = 4711, 4712


class ApiCase(HandlerCase):
    """An API over a directory with petra in it."""

    def setUp(self) -> None:
        """Make it."""
        super().setUp()
        handlers.set_policy(self.store, "address-form", "mail")  # or the machine's own DNS would be asked
        handlers.enable_user(self.store, "petra@fabrik.example", password="Blue-Kite-41")
        self.now = time.time()
        self.api = Api(self.store, now=lambda: self.now, owner=lambda: OWNER)

    def ask(
        self,
        line: str,
        body: object = None,
        *,
        peer: int | None = OWNER,
        token: str | None = None,
        kind: str = JSON,
    ) -> Answer:
        """The answer to a method and a target."""
        method, _, target = line.partition(" ")
        path, _, query = target.partition("?")
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        header = None if token is None else f"Bearer {token}"
        return self.api.answer(Ask(method, path, query, kind if data else "", data, header, peer))

    def result(self, line: str, body: object = None, status: int = 200) -> Any:  # JSON is of every shape
        """What comes back, with this status."""
        answer = self.ask(line, body)
        self.assertEqual(answer.status, status, answer.body)
        return json.loads(answer.body)

    def wrong(self, status: int, line: str, body: object = None, **more: Any) -> dict[str, Any]:
        """What is said to be wrong, with this status."""
        answer = self.ask(line, body, **more)
        self.assertEqual((answer.status, answer.kind), (status, "application/problem+json"), answer.body)
        told: dict[str, Any] = json.loads(answer.body)
        self.assertEqual(told["status"], status)
        return told


class StatusTests(ApiCase):
    """Each answer has the status that fits, and a sentence."""

    def test_good(self) -> None:
        """What is read, made, changed and taken away."""
        self.assertEqual(self.result("GET /v1/users/petra@fabrik.example")["result"]["home"]["name"], "hs1")
        made = self.result("POST /v1/users", {"address": "tomasz@fabrik.example"}, 201)
        self.assertEqual((made["result"]["alias"], made["dry_run"]), ("tomasz", False))
        self.result("PUT /v1/users/tomasz@fabrik.example/password", {"password": "Red-Boat-Nine"})
        gone = self.result("POST /v1/users/tomasz@fabrik.example/disable")
        self.assertFalse(gone["result"]["enabled"])
        self.assertEqual(self.result("HEAD /v1/domains")["next"], None)
        self.assertEqual(self.result("GET /v1/openapi.json")["openapi"], "3.1.0")

    def test_dry_run(self) -> None:
        """A rehearsal says what would come of it, also where the handler knows of none."""
        before = len(handlers.list_audit(self.store))
        made = self.result("POST /v1/domains?dry_run=true", {"name": "im.mill.example"})
        self.assertEqual((made["result"]["name"], made["dry_run"]), ("im.mill.example", True))
        self.wrong(422, "POST /v1/domains?dry_run=true", {"name": "nonsense"})
        self.wrong(400, "POST /v1/domains?dry_run=perhaps", {"name": "im.mill.example"})
        self.assertEqual(len(handlers.list_audit(self.store)), before)

    def test_wrong(self) -> None:
        """400 malformed, 404 not there, 405 other method, 409 taken, 415 no JSON, 422 refused."""
        user = "/v1/users/petra@fabrik.example"
        self.assertEqual(self.wrong(400, "POST /v1/users", {"adress": "x"})["field"], "adress")
        self.assertEqual(self.wrong(400, "POST /v1/users", {})["field"], "address")
        self.assertEqual(self.wrong(400, "GET /v1/users?limit=0")["field"], "limit")
        self.assertEqual(self.wrong(400, f"PUT {user}/password", {"address": "x"})["field"], "address")
        for body in (b"{", b"[]", b'{"a":1,"a":2}', b"NaN", b"[" * 100_000, b"\xff"):
            self.wrong(400, "POST /v1/users", body)
        self.wrong(400, "GET /v1/domains", {"a": 1})
        self.wrong(400, "GET /v1/users/%ff")
        self.wrong(400, "GET /v1/users?domain=%ff")
        self.wrong(404, "GET /v1/users/nobody@fabrik.example")
        for path in ("/", "/v2/users", "/v1", "/v1/users/", "/v1/users/a/b/c", "/v1/nothing"):
            self.wrong(404, f"GET {path}")
        self.assertIn("GET, POST", self.ask("DELETE /v1/users").headers["Allow"])
        self.wrong(405, "DELETE /v1/users")
        self.wrong(409, "POST /v1/domains", {"name": "im.fabrik.example"})
        self.wrong(415, "POST /v1/users", {"address": "x"}, kind="text/plain")
        told = self.wrong(422, "POST /v1/users", {"address": "x@fabrik.example", "home": "hs9"})
        self.assertEqual(told["field"], "home")
        self.assertEqual(
            self.wrong(422, f"PUT {user}/password", {"password": "x"})["title"], "It cannot be done"
        )

    def test_directory_away(self) -> None:
        """Without the directory it is 503, with a time after which to ask again."""
        path = self.store.path
        assert path is not None
        path.rename(path.with_suffix(".away"))
        self.wrong(503, "GET /v1/users")
        self.assertEqual(self.ask("GET /v1/users").headers["Retry-After"], "5")
        self.wrong(503, "GET /v1/users", peer=None, token="rvp_0123456789ab_x")

    def test_bug(self) -> None:
        """A bug is a 500 that says nothing of its inside, and is logged once."""
        api = Api(self.store, now=lambda: 1 // 0, owner=lambda: None)
        answer = api.answer(Ask("GET", "/v1/users", authorization="Bearer x"))
        self.assertEqual(answer.status, 500)
        self.assertNotIn(b"Zero", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class PageTests(ApiCase):
    """Lists come in parts that together are the list."""

    def test_parts(self) -> None:
        """By the address for users, by number for what is small."""
        names = [f"u{number:02}@fabrik.example" for number in range(7)]
        for name in names:
            handlers.enable_user(self.store, name)
        for path, key, everything in (
            ("/v1/users", "address", ["petra@fabrik.example", *names]),
            ("/v1/homes", "name", ["hs1", "hs2"]),
        ):
            found: list[str] = []
            after = ""
            while True:
                answer = self.result(f"GET {path}?limit=1{after}")
                found += [one[key] for one in answer["result"]]
                if answer["next"] is None:
                    break
                after = f"&after={answer['next']}"
            self.assertEqual(found, everything)
        self.wrong(400, "GET /v1/homes?after=x")


class CallerTests(ApiCase):
    """Who asks is proved by a token, or by the operating system."""

    def test_unix(self) -> None:
        """Root and the owner of the socket administer the farm; others need a token."""
        for peer in (0, OWNER):
            self.assertEqual(self.ask("GET /v1/routers", peer=peer).status, 200)
        for peer in (STRANGER, None):
            self.wrong(401, "GET /v1/routers", peer=peer)
        self.assertEqual(self.ask("GET /v1/routers", peer=None).headers["WWW-Authenticate"], "Bearer")
        self.ask("POST /v1/domains", {"name": "im.mill.example"}, peer=0)
        self.assertEqual(handlers.list_audit(self.store)[-1].actor, "unix:root")
        self.ask("POST /v1/domains", {"name": "im.orchard.example"}, peer=OWNER)
        self.assertEqual(handlers.list_audit(self.store)[-1].actor, f"unix:uid {OWNER}")

    def test_token(self) -> None:
        """A token counts before the socket, until its end or its revocation, and is named in the trail."""
        add_administrator(self.store, "clerk", domains=["im.fabrik.example"])
        text = create_token(self.store, "clerk", "desk", 1).text
        self.assertEqual(self.ask("GET /v1/users", token=text).status, 200)
        told = self.wrong(403, "GET /v1/routers", token=text)
        self.assertIn("administrators of the farm", told["detail"])
        self.ask("POST /v1/users/petra@fabrik.example/disable", token=text, peer=None)
        self.assertEqual(handlers.list_audit(self.store)[-1].actor, "token:clerk/desk")
        self.now += 86401
        self.wrong(401, "GET /v1/users", token=text)
        self.now -= 86401
        revoke_token(self.store, "clerk", "desk")
        self.wrong(401, "GET /v1/users", token=text)
