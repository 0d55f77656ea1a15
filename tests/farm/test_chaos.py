"""Homes killed with C{kill -9} under load: nothing that was acknowledged may be lost.

C{make chaos} runs many rounds; the suite itself a few (C{RVPFARM_CHAOS_ROUNDS}).
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
from unittest import TestCase

from tests.support.processes import BIN, DemoFarm, run, scratch, wait_for

ROUNDS = int(os.environ.get("RVPFARM_CHAOS_ROUNDS", "2"))
#: How many acknowledgements a round waits for before it kills, and before it ends.
BEFORE, AFTER = 40, 40
IM = "im.farm.localhost"
BOB, CAROL = (f"http://{IM}/instmsg/aliases/{user}" for user in ("bob", "carol"))


class Subscriber(threading.Thread):
    """Makes one subscription after the other, through one router, and notes what was acknowledged.

    @ivar acknowledged: ids of subscriptions that were answered 207.
    @ivar refused: how many were answered with another status, by status.
    """

    def __init__(self, router: str) -> None:
        super().__init__(daemon=True)
        self.host, _, port = router.rpartition(":")
        self.port = int(port)
        self.acknowledged: list[str] = []
        self.refused: dict[int, int] = {}
        self.over = threading.Event()

    def run(self) -> None:
        """Subscribe until told that it is over."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=40)
        while not self.over.is_set():
            status, number = subscribe(connection, self.port)
            if status == 207 and number is not None:
                self.acknowledged.append(number)
            else:
                self.refused[status] = self.refused.get(status, 0) + 1
                self.over.wait(0.02)
        connection.close()


def subscribe(
    connection: http.client.HTTPConnection, port: int, number: str | None = None
) -> tuple[int, str | None]:
    """Have carol watch bob, or renew that.

    @param number: the subscription to renew.
    """
    headers = {
        "Host": f"{IM}:{port}",
        "RVP-Notifications-Version": "0.2",
        "RVP-From-Principal": CAROL,
        "Subscription-Lifetime": "14400",
        "Content-Length": "0",
    }
    if number is None:
        headers |= {"Notification-Type": "update/propchange", "Call-Back": CAROL}
    else:
        headers["Subscription-Id"] = number
    connection.request("SUBSCRIBE", "/instmsg/aliases/bob", headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers["Subscription-Id"]


class KilledHomeTests(TestCase):
    """Every subscription answered 207 outlives the home that made it."""

    def test_nothing_acknowledged_is_lost(self) -> None:
        """Round after round of C{kill -9} in the middle of it all; afterwards every id can be renewed."""
        with scratch() as where:
            farm = DemoFarm(where / "demo")
            farm.start()
            try:
                subscribers = self._load(farm)
                for number in range(ROUNDS):
                    self._round(farm, subscribers)
                    print(f"round {number + 1}: {self._total(subscribers)} acknowledged so far")
                for subscriber in subscribers:
                    subscriber.over.set()
                for subscriber in subscribers:
                    subscriber.join(60)
                self._check(farm, subscribers)
            finally:
                farm.stop()

    def _load(self, farm: DemoFarm) -> list[Subscriber]:
        """People who subscribe all the time, on a trusted network."""
        directory = f"sqlite:///{farm.state / 'directory.sqlite'}"
        done = run(BIN / "rvpfarm", "--directory", directory, "policy", "set", "authentication", "off")
        self.assertEqual(done.status, 0, done.err)
        subscribers = [Subscriber(router) for router in farm.routers * 2]
        for subscriber in subscribers:
            subscriber.start()
        return subscribers

    def _total(self, subscribers: list[Subscriber]) -> int:
        return sum(len(subscriber.acknowledged) for subscriber in subscribers)

    def _round(self, farm: DemoFarm, subscribers: list[Subscriber]) -> None:
        """Kill bob's home in the middle of the load, and wait until it serves again."""
        before = self._total(subscribers)
        wait_for("load", lambda: self._total(subscribers) >= before + BEFORE)
        os.kill(farm.member("home2"), signal.SIGKILL)
        killed = self._total(subscribers)
        wait_for("home2's return", lambda: self._total(subscribers) >= killed + AFTER)

    def _check(self, farm: DemoFarm, subscribers: list[Subscriber]) -> None:
        """Renew everything that was acknowledged."""
        host, _, port = farm.routers[0].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=40)
        numbers = [number for subscriber in subscribers for number in subscriber.acknowledged]
        self.assertEqual(len(set(numbers)), len(numbers), "an id was given twice")
        lost = [number for number in numbers if subscribe(connection, int(port), number)[0] != 200]
        connection.close()
        refused = [subscriber.refused for subscriber in subscribers]
        print(f"{len(numbers)} acknowledged in {ROUNDS} rounds, {len(lost)} lost; refused: {refused}")
        self.assertEqual(lost, [])
        self.assertLessEqual({status for each in refused for status in each}, {401, 503, 504})
