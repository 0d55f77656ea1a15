"""One request to its final answer: the next address when one fails, signing in, and referrals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rvpfarm.client.names import Place
from rvpfarm.client.signin import SignIn, choose
from rvpfarm.discovery.lookup import DEFAULT_PORT, Locator
from rvpfarm.protocol.calls import Slow, Unreachable
from rvpfarm.web.responses import Response
from rvpfarm.web.writer import render_request

#: Referrals followed in one exchange (protocol notes 6.5).
_MOST_REFERRALS = 5

#: Challenges met in one exchange: the first, one that is stale, and one of another home.
_MOST_CHALLENGES = 3

#: How long a referral is remembered (protocol notes 6.5), and of how many nodes.
_REFERRAL_SECONDS = 600.0
_MOST_KNOWN = 1000

#: How long a server may take; an acknowledged message takes 20 seconds, and a router waits for 25.
ANSWER_SECONDS = 30.0


class Carrier(Protocol):
    """What carries requests: C{rvpfarm.web.outgoing.Outgoing}."""

    def request(
        self, host: str, port: int, wire: bytes, *, answer_seconds: float = ...
    ) -> Deferred[Response]:
        """Send C{wire}; fails with L{Unreachable}."""


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a request goes next: the place itself, or where it was referred to.

    @ivar authority: what the C{Host} header says.
    @ivar until: when it is forgotten.
    """

    authority: str
    target: str
    host: str
    port: int
    addresses: tuple[str, ...]
    until: float = 0.0


class Exchange:
    """Asks servers on behalf of one user."""

    _log = Logger()

    def __init__(self, carrier: Carrier, signin: SignIn, locator: Locator, clock: IReactorTime) -> None:
        """
        @param locator: finds the addresses of the homes that routers refer to.
        """
        self._carrier = carrier
        self._signin = signin
        self._locator = locator
        self._clock = clock
        self._referrals: dict[str, Hop] = {}
        self._working: dict[tuple[str, int], str] = {}

    def first_address(self, place: Place) -> str:
        """The IP address that is tried first for C{place}."""
        hop = self._hop(place)
        return self._in_order(hop)[0]

    async def ask(
        self,
        place: Place,
        method: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        body: bytes = b"",
        *,
        repeatable: bool = True,
    ) -> Response:
        """The final answer to one request; a challenge that cannot be met is one.

        @param repeatable: doing it twice does no harm.
        @raise Unreachable: no address of the server answers, or the referrals lead nowhere.
        """
        hop = self._hop(place)
        referrals = challenges = 0
        while True:
            signature = self._signin.authorization(place.host, method, hop.target)
            signed = headers if signature is None else (*headers, (b"Authorization", signature))
            wire = render_request(
                method.encode("ascii"),
                hop.target.encode("ascii"),
                hop.authority.encode("ascii"),
                signed,
                body,
            )
            try:
                response = await self._carry(hop, wire, repeatable)
            except Unreachable as error:
                known = self._referrals.pop(place.key, None)
                if known is None or known is not hop or (error.maybe_done and not repeatable):
                    raise
                hop = self._hop(place)  # the home may have moved: ask the router again
                continue
            if response.status == 401 and self._meet(place, response, challenges):
                challenges += 1
            elif response.status == 302 and referrals < _MOST_REFERRALS:
                referrals, challenges = referrals + 1, 0
                hop = await self._referred(place, response)
            elif response.status == 302:
                raise Unreachable(f"the servers of {place.host} refer to each other without end")
            else:
                return response

    def _hop(self, place: Place) -> Hop:
        """Where to begin: at the home that we were referred to of late, or at the place itself."""
        known = self._referrals.get(place.key)
        if known is not None and known.until > self._clock.seconds():
            return known
        self._referrals.pop(place.key, None)
        return Hop(place.host, place.path, place.host, place.port, place.addresses)

    def _meet(self, place: Place, response: Response, met: int) -> bool:
        """Is it worth answering the challenges?  Not when a fresh one has been answered in vain."""
        challenge = choose(response.challenges)
        if challenge is None or met >= _MOST_CHALLENGES or (met and not challenge.stale):
            return False
        self._signin.adopt(place.host, challenge)
        return True

    async def _referred(self, place: Place, response: Response) -> Hop:
        """Where a 302 leads."""
        location = response.headers.get(b"location", b"").decode("latin-1").strip()
        try:
            parts = urlsplit(location)
            port = parts.port or DEFAULT_PORT
        except ValueError:
            parts, port = urlsplit(""), DEFAULT_PORT
        plain = location.isascii() and parts.path.startswith("/") and not (parts.query or parts.fragment)
        if parts.scheme.lower() != "http" or not parts.hostname or "@" in parts.netloc or not plain:
            raise Unreachable(
                f"the server of {place.host} refers to {location[:200]!r}, which is no URL of a node"
            )
        addresses = await self._locator.addresses(parts.hostname)
        if not addresses:
            raise Unreachable(f"the server of {place.host} refers to {parts.hostname}, which has no address")
        self._log.debug("{node} is at {host}", node=place.key, host=parts.netloc)
        until = self._clock.seconds() + _REFERRAL_SECONDS
        hop = Hop(parts.netloc, parts.path, parts.hostname, port, addresses, until)
        self._referrals.pop(place.key, None)
        while len(self._referrals) >= _MOST_KNOWN:
            del self._referrals[next(iter(self._referrals))]
        self._referrals[place.key] = hop
        return hop

    def _in_order(self, hop: Hop) -> list[str]:
        """The addresses of a hop, the one that worked last first."""
        working = self._working.get((hop.host, hop.port))
        return sorted(hop.addresses, key=lambda address: address != working)

    async def _carry(self, hop: Hop, wire: bytes, repeatable: bool) -> Response:
        """The answer of the first address that gives one."""
        tried: list[str] = []
        last, why = Unreachable("it has no address"), "it has no address"
        for address in self._in_order(hop):
            try:
                response = await self._carrier.request(address, hop.port, wire, answer_seconds=ANSWER_SECONDS)
            except Unreachable as error:
                tried.append(f"[{address}]:{hop.port}" if ":" in address else f"{address}:{hop.port}")
                last, why = error, str(error).removeprefix(f"{tried[-1]} cannot be reached: ").rstrip(".")
                if not repeatable and (error.maybe_done or isinstance(error, Slow)):
                    raise Unreachable(
                        f"{tried[-1]} broke off or did not answer; it may have acted all the same",
                        maybe_done=True,
                    ) from None
                continue
            if len(self._working) >= _MOST_KNOWN:
                self._working.clear()
            self._working[(hop.host, hop.port)] = address
            return response
        what = "does not answer" if isinstance(last, Slow) else "cannot be reached"
        raise Unreachable(
            f"the server of {hop.host} {what} at {', '.join(tried)} ({why})", maybe_done=last.maybe_done
        )
