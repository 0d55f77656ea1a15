"""What administrators see and do at running homes, from outside, with C{rvpfarm}."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.support.processes import BIN, CallBack, DemoFarm, Ran, run, scratch, wait_for

IM = "im.farm.localhost"


class FarmCase(TestCase):
    """A demo farm of its own: alice and carol at home1, bob and dave at home2."""

    def setUp(self) -> None:
        """Start it."""
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.where: Path = stack.enter_context(scratch())
        self.farm = DemoFarm(self.where / "demo")
        self.farm.start()
        self.addCleanup(self.farm.stop)

    def admin(self, *words: str, status: int = 0) -> Ran:
        """Run the administrator's command."""
        ran = run(BIN / "rvpfarm", "--directory", f"sqlite:///{self.farm.state / 'directory.sqlite'}", *words)
        self.assertEqual(ran.status, status, ran.out + ran.err)
        self.assertNotIn("Traceback", ran.err)
        return ran

    def sessions(self, status: int = 0) -> dict[str, Any]:
        """Who is signed in, as programs see it."""
        found: dict[str, Any] = json.loads(self.admin("session", "list", "--json", status=status).out)
        return found

    def call(self, name: str, method: str, *headers: str, node: str = "", body: str = "") -> str:
        """The head of the answer to a call of C{name}."""
        more = [word for header in headers for word in ("-H", header)]
        ran = run(
            *("curl", "-s", "-i", "--digest", "-u", f"{name}:{self.farm.password}", "-X", method),
            *("-H", f"Host: {IM}", "-H", f"RVP-From-Principal: http://{IM}/instmsg/aliases/{name}", *more),
            *("-H", "RVP-Notifications-Version: 0.2", "-A", f"{name}'s client", "--location-trusted"),
            *(("-H", "Content-Type: text/xml", "--data-binary", body) if body else ()),
            f"http://{self.farm.routers[0]}/instmsg/aliases/{node or name}",
        )
        return ran.out

    def log_in(self, name: str) -> CallBack:
        """Sign in with a call-back, and be online."""
        ear = CallBack()
        self.addCleanup(ear.close)
        said = self.call(
            name,
            "SUBSCRIBE",
            "Notification-Type: pragma/notify",
            f"Call-Back: {ear.url}",
            "Subscription-Lifetime: 3600",
        )
        self.assertRegex(said, r"HTTP/1\.1 200")
        self.assertRegex(self.call(name, "PROPPATCH", body=online()), r"HTTP/1\.1 207")
        return ear

    def watch(self, watcher: str, whom: str) -> None:
        """Have C{watcher} be told of C{whom}."""
        said = self.call(
            watcher,
            "SUBSCRIBE",
            "Notification-Type: update/propchange",
            f"Call-Back: http://{IM}/instmsg/aliases/{watcher}",
            "Subscription-Lifetime: 3600",
            node=whom,
        )
        self.assertRegex(said, r"HTTP/1\.1 207")


class BroadcastTests(FarmCase):
    """C{rvpfarm broadcast}"""

    def test_everybody_online(self) -> None:
        """Who is online gets it once; each is counted by what became of it, and nobody else is asked."""
        self.assertIn("nobody says in whose name", self.admin("broadcast", "Hello", status=1).err)
        self.admin("policy", "set", "announce-from", "dave@farm.localhost")
        ears = {name: self.log_in(name) for name in ("alice", "bob", "carol")}
        ears["carol"].status = 500
        self.admin("user", "acl", "bob", "--deny", "dave@farm.localhost")
        text = "Mail is down from 5 & <6> o'clock; so is \u2615"
        self.assertIn("3 users would get it", self.admin("broadcast", text, "--dry-run").out)
        found = json.loads(self.admin("broadcast", text, "--yes", "--json").out)
        self.assertEqual(
            found,
            {
                "sender": "dave@farm.localhost",
                "recipients": 3,
                "delivered": 1,
                "refused": 2,
                "gone": 0,
                "unknown": 0,
                "failed": 0,
                "silent": [],
            },
        )
        (heard,) = ears["alice"].wait(1, containing="Mail is down")
        self.assertIn(text, heard.body.decode())
        self.assertEqual([one for one in ears["bob"].heard if one.has("Mail is down")], [])
        only = ("--home", "home1", "--state", "away,busy")
        self.assertIn("0 users would get it", self.admin("broadcast", text, "--yes", *only).out)
        (row,) = [
            one
            for one in json.loads(self.admin("audit", "list", "--json").out)
            if one["action"] == "broadcast"
        ]
        self.assertNotIn("Mail", json.dumps(row))


def online() -> str:
    """What sets one's state."""
    return (
        "<?xml version='1.0'?><d:propertyupdate xmlns:d='DAV:' "
        "xmlns:r='http://schemas.microsoft.com/rvp/'><d:set><d:prop><r:state><r:leased-value><r:value>"
        "<r:online/></r:value><r:default-value><r:offline/></r:default-value><d:timeout>1200</d:timeout>"
        "</r:leased-value></r:state></d:prop></d:set></d:propertyupdate>"
    )


class SessionTests(FarmCase):
    """C{rvpfarm session}, C{user acl|watchers|disable} and what people see of it."""

    def test_from_outside(self) -> None:
        """Sessions are listed and ended, lists take effect, watchers are told; who is silent is named."""
        ears = {name: self.log_in(name) for name in ("alice", "bob")}
        self.watch("alice", "bob")
        found = self.sessions()
        self.assertEqual(found["silent"], [])
        seen = {one["address"]: one for one in found["sessions"]}
        self.assertEqual(sorted(seen), ["alice@farm.localhost", "bob@farm.localhost"])
        bob = seen["bob@farm.localhost"]
        self.assertEqual((bob["home"], bob["state"], bob["agent"]), ("home2", "online", "bob's client"))
        self.assertEqual(bob["call_back"], ears["bob"].url)
        self.assertIn("bob@farm.localhost", self.admin("session", "list", "--home", "home2").out)
        self._welcome()
        self._list_and_watchers(ears["alice"])
        self._kill(ears["alice"])
        self._disable(ears["alice"])
        self._silence()
        actions = [one["action"] for one in json.loads(self.admin("audit", "list", "--json").out)]
        self.assertEqual(
            [one for one in actions if one in ("user acl", "session kill")],
            ["user acl", "user acl", "session kill"],
        )

    def _welcome(self) -> None:
        """The line for curl on a welcome sheet works as it stands."""
        sheet = self.admin("user", "welcome", "bob").out
        line = " ".join(sheet[sheet.index("curl -i") :].split()).replace("\\ ", "")
        ran = run("sh", "-c", line.replace("'bob'", f"'bob:{self.farm.password}'", 1))
        self.assertIn("HTTP/1.1 200", ran.out)
        self.assertIn("aliases/alice", ran.out)

    def _list_and_watchers(self, alice: CallBack) -> None:
        """Denied, alice sees bob go; allowed again, she sees him."""
        (watcher,) = json.loads(self.admin("user", "watchers", "bob@farm.localhost", "--json").out)
        self.assertEqual(watcher["url"], f"http://{IM}/instmsg/aliases/alice")
        self.assertIn("aliases/alice", self.admin("user", "watchers", "bob").out)
        self.assertIn("Nobody is named.", self.admin("user", "acl", "bob").out)
        told = len(alice.heard)
        rehearsed = self.admin("user", "acl", "bob", "--deny", "alice@farm.localhost", "--dry-run").out
        self.assertIn("nothing was changed", rehearsed)
        self.admin("user", "acl", "bob", "--deny", "alice@farm.localhost")
        alice.wait(1, containing="offline")
        self.assertIn("deny", self.admin("user", "acl", "bob").out)
        self.admin("user", "acl", "bob", "--remove", "alice@farm.localhost")
        alice.wait(1, containing="online")
        self.assertGreater(len(alice.heard), told)
        refused = self.admin("user", "acl", "bob", "--deny", "nobody@farm.localhost", status=1).err
        self.assertIn('there is no user "nobody@farm.localhost"', refused)

    def _kill(self, alice: CallBack) -> None:
        """Bob's session ends, and alice sees it."""
        before = len(alice.wait(1, containing="offline"))
        self.assertIn("Would end 1 session", self.admin("session", "kill", "bob", "--dry-run").out)
        self.assertIn("Ended 1 session of bob", self.admin("session", "kill", "bob", "--yes").out)
        alice.wait(before + 1, containing="offline")
        self.assertIn("is not signed in", self.admin("session", "kill", "bob", "--yes", status=1).err)

    def _disable(self, alice: CallBack) -> None:
        """Whoever is disabled is signed out everywhere, and watchers are told."""
        self.log_in("bob")
        before = len(alice.wait(1, containing="offline"))
        self.admin("user", "disable", "bob", "--yes")
        alice.wait(before + 1, containing="offline")
        wait_for(
            "bob being gone",
            lambda: [one["address"] for one in self.sessions()["sessions"]] == ["alice@farm.localhost"],
        )
        self.assertRegex(self.call("bob", "PROPPATCH", body=online()), r"HTTP/1\.1 401")

    def _silence(self) -> None:
        """A home that is stopped in its tracks holds up nobody, and is named."""
        pid = self.farm.member("home2")
        os.kill(pid, signal.SIGSTOP)
        try:
            ran = self.admin("session", "list", "--timeout", "1", status=1)
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertIn("alice@farm.localhost", ran.out)
        self.assertRegex(ran.err, r"home home2 did not answer: it took too long")
        self.assertIsNone(re.search("home1 did not", ran.err))
        other = self.where / "other.key"
        run(
            BIN / "rvpfarm",
            "--directory",
            f"sqlite:///{self.where / 'd.sqlite'}",
            "--key-file",
            other,
            "init",
        )
        ran = self.admin("--key-file", str(other), "session", "list", status=1)
        self.assertIn("another farm key", ran.err)
