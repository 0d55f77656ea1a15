"""A home that is stopped and started anew under load: nobody who calls through a router notices."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections import Counter
from contextlib import ExitStack
from unittest import TestCase

from tests.support.homes import message
from tests.support.processes import BIN, CallBack, DemoFarm, run, scratch, wait_for

#: How often the home is replaced, and how many answers are waited for before and after each time.
ROUNDS, ANSWERS = 3, 60
IM = "im.farm.localhost"
BOB, CAROL = (f"http://{IM}/instmsg/aliases/{user}" for user in ("bob", "carol"))

QUESTION = b"<?xml version='1.0'?><d:propfind xmlns:d='DAV:'><d:prop><d:displayname/></d:prop></d:propfind>"


class Caller(threading.Thread):
    """Asks, subscribes and sends messages to bob, one after the other, on one connection that stays open.

    @ivar answered: how many answers of each status there were.
    @ivar sent: the messages that were answered 200.
    @ivar broken: what went wrong with the connection.
    """

    def __init__(self, name: str, router: str) -> None:
        super().__init__(daemon=True)
        self.label = name
        self.host, _, port = router.rpartition(":")
        self.port = int(port)
        self.answered: Counter[int] = Counter()
        self.sent: list[str] = []
        self.broken: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Call until told that it is over."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=40)
        number = 0
        while not self.over.is_set() and not self.broken:
            number += 1
            text = f"{self.label}-{number}."
            try:
                self._message(connection, text)
                self._ask(connection, "PROPFIND", {"Depth": "0", "Content-Type": "text/xml"}, QUESTION)
                self._ask(connection, "SUBSCRIBE", self._watching(), b"")
            except (OSError, http.client.HTTPException) as problem:
                self.broken.append(repr(problem))
        connection.close()

    def _message(self, connection: http.client.HTTPConnection, text: str) -> None:
        headers = {"RVP-Ack-Type": "DeepOr", "Content-Type": "text/xml"}
        if self._ask(connection, "NOTIFY", headers, message(CAROL, BOB, text).encode()) == 200:
            self.sent.append(text)

    def _watching(self) -> dict[str, str]:
        return {
            "Notification-Type": "update/propchange",
            "Call-Back": CAROL,
            "Subscription-Lifetime": "14400",
        }

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, more: dict[str, str], body: bytes
    ) -> int:
        headers = {
            "Host": f"{IM}:{self.port}",
            "RVP-Notifications-Version": "0.2",
            "RVP-From-Principal": CAROL,
            "Content-Length": str(len(body)),
            **more,
        }
        connection.request(method, "/instmsg/aliases/bob", body, headers)
        answer = connection.getresponse()
        answer.read()
        self.answered[answer.status] += 1
        return answer.status


class PlannedRestartTests(TestCase):
    """Stopping a home with SIGTERM and starting it anew fails no call and loses no message."""

    def test_nobody_notices(self) -> None:
        """Three times under load: every answer is 2xx, and every message arrives once."""
        with ExitStack() as stack:
            farm = DemoFarm(stack.enter_context(scratch()) / "demo")
            farm.start()
            stack.callback(farm.stop)
            listener = CallBack()
            stack.callback(listener.close)
            self._prepare(farm, listener)
            callers = [Caller(f"caller{number}", router) for number, router in enumerate(farm.routers * 2)]
            for caller in callers:
                caller.start()
            try:
                for _ in range(ROUNDS):
                    self._round(farm, callers)
            finally:
                for caller in callers:
                    caller.over.set()
                for caller in callers:
                    caller.join(60)
            self._check(callers, listener)

    def _prepare(self, farm: DemoFarm, listener: CallBack) -> None:
        """A trusted network, in which bob is signed in."""
        directory = f"sqlite:///{farm.state / 'directory.sqlite'}"
        done = run(BIN / "rvpfarm", "--directory", directory, "policy", "set", "authentication", "off")
        self.assertEqual(done.status, 0, done.err)
        host, _, port = farm.routers[0].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=40)
        headers = {
            "Host": f"{IM}:{port}",
            "RVP-Notifications-Version": "0.2",
            "RVP-From-Principal": BOB,
            "Notification-Type": "pragma/notify",
            "Subscription-Lifetime": "14400",
            "Call-Back": listener.url,
            "Content-Length": "0",
        }

        def signed_in() -> bool:
            connection.request("SUBSCRIBE", "/instmsg/aliases/bob", headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status == 200

        wait_for("bob's login", signed_in)
        connection.close()

    def _round(self, farm: DemoFarm, callers: list[Caller]) -> None:
        """Stop bob's home in the middle of the load, and wait until its successor serves."""

        def total() -> int:
            self.assertEqual([caller.broken for caller in callers], [[] for _ in callers])
            return sum(caller.answered.total() for caller in callers)

        before = total()
        wait_for("load", lambda: total() >= before + ANSWERS)
        old = farm.member("home2")
        os.kill(old, signal.SIGTERM)
        wait_for("home2's end", lambda: old not in farm.children())
        stopped = total()
        wait_for("home2's successor", lambda: total() >= stopped + ANSWERS)

    def _check(self, callers: list[Caller], listener: CallBack) -> None:
        """Nobody has noticed anything."""
        answered = sum((caller.answered for caller in callers), Counter[int]())
        print(f"{answered.total()} answers in {ROUNDS} restarts: {dict(answered)}")
        self.assertEqual([caller.broken for caller in callers], [[] for _ in callers])
        self.assertEqual({status // 100 for status in answered}, {2})
        heard = Counter(
            text for each in listener.heard for caller in callers for text in caller.sent if each.has(text)
        )
        self.assertEqual(heard, Counter(text for caller in callers for text in caller.sent))
