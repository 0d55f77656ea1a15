"""A home and its callers, joined by a network that the test holds in its hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.link.links import LinkClient, LinkFactory
from rvpfarm.protocol.calls import Call, Limits, Unreachable
from tests.support.network import Network

KEY = b"k" * 32
HOME = "3f0c8c7e-home-1"
WHERE = ("hs1.fabrik.example", 8081)


def make_call(method: bytes = b"NOTIFY", body: bytes = b"<x/>", headers: bytes = b"") -> Call:
    """A call as the strict reader would hand it over."""
    head = b"%b /instmsg/aliases/petra HTTP/1.1\r\nHost: im.fabrik.example\r\n%b\r\n" % (method, headers)
    fields = {b"host": b"im.fabrik.example"}
    for line in headers.splitlines():
        name, _, value = line.partition(b": ")
        fields[name.lower()] = value
    return Call(
        method, b"/instmsg/aliases/petra", fields, body, head=head, peer="10.1.2.3", connection="r1/x/7"
    )


class LateAnswers:
    """Answers calls when the test says so.

    @ivar calls: every call that was executed.
    @ivar waiting: what is to be answered, in the order of C{calls}.
    @ivar instead: called instead, when it is set.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.waiting: list[Deferred[Any]] = []
        self.given_up: list[int] = []
        self.instead: Callable[[Call], Any] | None = None

    def answer(self, call: Call) -> Any:
        """Execute C{call}."""
        self.calls.append(call)
        if self.instead is not None:
            return self.instead(call)
        number = len(self.calls) - 1
        self.waiting.append(Deferred(lambda deferred: self.given_up.append(number)))
        return self.waiting[-1]


class LinkTestCase(SynchronousTestCase):
    """A home and its callers on a network of their own."""

    def setUp(self) -> None:
        """One home listens; one caller knows where."""
        self.set_up(seed=1)

    def set_up(self, seed: int) -> None:
        """As C{setUp}, with a seed."""
        self.clock = Clock()
        self.network = Network(self.clock, seed)
        self.home = LateAnswers()
        self.factory = self.make_home()
        self.client = self.make_client()

    def make_home(self, incarnation: int = 1, **more: Any) -> LinkFactory:
        """A home that listens from now on."""
        factory = LinkFactory(
            self.home.answer,
            **{"key": KEY, "name": HOME, "clock": self.clock, "limits": Limits(), **more},
            incarnation=incarnation,
        )
        self.network.listen(*WHERE, factory)
        return factory

    def make_client(self, **more: Any) -> LinkClient:
        """A caller of the home."""
        defaults: dict[str, Any] = {
            "key": KEY,
            "name": "router-1",
            "peer": HOME,
            "clock": self.clock,
            "origin": 77,
        }
        return LinkClient(self.network.endpoint(*WHERE), **{"chance": lambda: 1.0, **defaults, **more})

    def call(self, *arguments: Any, client: LinkClient | None = None, **more: Any) -> list[Any]:
        """Make a call.

        @return: where its outcome will be.
        """
        outcome: list[Any] = []
        deferred = (client or self.client).call(make_call(*arguments), **more)
        deferred.addBoth(outcome.append)
        return outcome

    def assert_failed(self, outcome: list[Any], kind: type[Exception], *, maybe_done: bool = False) -> None:
        """The call failed like that."""
        self.assertEqual(len(outcome), 1)
        error = outcome[0].value
        self.assertIs(type(error), kind)
        if isinstance(error, Unreachable):
            self.assertEqual(error.maybe_done, maybe_done)

    def restart(self, incarnation: int) -> None:
        """The home dies with all it had in work, and is started anew."""
        self.home.waiting.clear()
        self.make_home(incarnation)
        self.network.cut()
