"""Farm links: L{LinkFactory} takes calls, a L{LinkClient} makes them, L{Links} has one for every home."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import urandom
from random import random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from rvpfarm.directory.model import Home
from rvpfarm.link.client import LinkClient, Watch
from rvpfarm.link.server import Answer, LinkFactory
from rvpfarm.protocol.calls import Limits

if TYPE_CHECKING:
    from rvpfarm.observe.metrics import Metrics

__all__ = ["Answer", "LinkClient", "LinkFactory", "Links"]


class Links:
    """The links of one process to all homes, each made when it is first wanted.

    @ivar origin: names this process to the homes.
    """

    def __init__(
        self,
        clock: IReactorTime,
        connect: Callable[[str, int], IStreamClientEndpoint],
        *,
        key: bytes,
        name: str,
        metrics: Metrics | None = None,
        limits: Limits | None = None,
        chance: Callable[[], float] = random,
        nonce: Callable[[int], bytes] = urandom,
        piecewise: bool = False,
        watch: Watch | None = None,
    ) -> None:
        """
        @param connect: makes the endpoint of a host and a port.
        @param key: the farm key's part for links.
        @param name: the own name.
        @param limits: what the homes take.
        @param chance: a number from 0 to 1, to spread attempts to connect.
        @param nonce: makes so many unpredictable octets.
        @param piecewise: long replies are handed over while they come.
        @param watch: told when a home says that it is being replaced, and when it is back.
        """
        self._watch = watch
        self._clock, self._connect, self._key, self._name = clock, connect, key, name
        self._metrics, self._limits, self._chance, self._nonce = metrics, limits, chance, nonce
        self._piecewise = piecewise
        self.origin = int.from_bytes(nonce(8), "big")
        self._links: dict[str, tuple[Home, LinkClient]] = {}
        self._closing: set[Deferred[None]] = set()
        self._stopped = False

    @property
    def in_flight(self) -> int:
        """How many calls wait for their reply, at all homes together."""
        return sum(client.in_flight for _, client in list(self._links.values()))

    @property
    def held(self) -> int:
        """How many of them wait for a home to come back."""
        return sum(client.held for _, client in list(self._links.values()))

    @property
    def connected(self) -> int:
        """How many homes are linked at the moment."""
        return sum(client.connected for _, client in list(self._links.values()))

    def to(self, home: Home) -> LinkClient:
        """The link to C{home}, at the address that it has now."""
        known = self._links.get(home.id)
        if known is not None:
            if known[0] is home:
                return known[1]
            if _same_place(known[0], home):
                self._links[home.id] = (home, known[1])
                return known[1]
            self._close(home.id)
        client = LinkClient(
            self._connect(home.address or home.host, home.link_port),
            key=self._key,
            name=self._name,
            peer=home.id,
            clock=self._clock,
            origin=self.origin,
            metrics=self._metrics,
            limits=self._limits,
            chance=self._chance,
            nonce=self._nonce,
            piecewise=self._piecewise,
            watch=self._watch,
        )
        if self._stopped:
            client.stop()
        else:
            self._links[home.id] = (home, client)
        return client

    def retain(self, homes: Mapping[str, Home]) -> None:
        """The farm consists of these homes: close the links to all that are gone or have moved."""
        for id, (home, _) in tuple(self._links.items()):
            now = homes.get(id)
            if now is None or not _same_place(home, now):
                self._close(id)

    def stop(self) -> Deferred[None]:
        """Close every link, for good."""
        self._stopped = True
        for id in tuple(self._links):
            self._close(id)
        done: Deferred[None] = Deferred()
        DeferredList(list(self._closing)).addCallback(lambda results: done.callback(None))
        return done

    def _close(self, id: str) -> None:
        _, client = self._links.pop(id)
        closing = client.stop()
        self._closing.add(closing)
        closing.addCallback(lambda result: self._closing.discard(closing))


def _same_place(one: Home, other: Home) -> bool:
    return (one.address or one.host, one.link_port) == (other.address or other.host, other.link_port)
