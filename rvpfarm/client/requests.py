"""What one person asks of servers: each method of RVP as a function, with its refusals as sentences."""

from __future__ import annotations

from dataclasses import dataclass

from rvpfarm.client.documents import (
    Properties,
    parse_multistatus,
    read_subscription,
    render_state_change,
    render_state_question,
)
from rvpfarm.client.errors import NotDone, WrongPassword, refusal, send_failure
from rvpfarm.client.exchange import Exchange
from rvpfarm.client.names import Place
from rvpfarm.client.signin import choose
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.web.responses import Response

#: What every subscription asks for (protocol notes 0).
LIFETIME_SECONDS = 14400

_XML = (b"Content-Type", b"text/xml")
_LIFETIME = (b"Subscription-Lifetime", b"%d" % LIFETIME_SECONDS)


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscription that was granted.

    @ivar id: names it at the home of the node.
    @ivar seconds: for how long.
    @ivar state: the presence of the node now; empty when the answer does not tell.
    """

    id: bytes
    seconds: float
    state: str = ""


class Requests:
    """Asks in the name of one person.

    Whatever a server refuses is raised as L{NotDone}, a server that cannot be reached as
    L{rvpfarm.protocol.calls.Unreachable}.
    """

    def __init__(self, me: Place, exchange: Exchange) -> None:
        self.me = me
        self._exchange = exchange

    def first_address(self) -> str:
        """The IP address at which one's own server is tried first."""
        return self._exchange.first_address(self.me)

    async def log_in(self, call_back: str) -> Subscribed:
        """Have everything that comes for oneself sent to C{call_back}."""
        kind = (b"Notification-Type", b"pragma/notify")
        where = (b"Call-Back", call_back.encode("ascii"))
        response = await self._ask(self.me, "SUBSCRIBE", kind, _LIFETIME, where)
        if response.status != 200:
            raise refusal(response.status, self.me.address, "log in")
        return _subscribed(response)

    async def subscribe(self, place: Place) -> Subscribed:
        """Hear of every change of somebody's properties."""
        kind = (b"Notification-Type", b"update/propchange")
        where = (b"Call-Back", self.me.url.encode("ascii"))
        response = await self._ask(place, "SUBSCRIBE", kind, _LIFETIME, where)
        if response.status != 207:
            raise refusal(response.status, place.address, "watch it")
        _, told = _multistatus(response, place)
        return _subscribed(response, told.state or "offline")

    async def refresh(self, place: Place, id: bytes) -> Subscribed | None:
        """Keep a subscription; C{None} when the server knows it no more."""
        response = await self._ask(place, "SUBSCRIBE", (b"Subscription-Id", id), _LIFETIME)
        if response.status == 412:
            return None
        if response.status != 200:
            raise refusal(response.status, place.address, "renew the subscription")
        return _subscribed(response)

    async def unsubscribe(self, place: Place, id: bytes) -> None:
        """Give up a subscription; one that the server has lost is given up already."""
        response = await self._ask(place, "UNSUBSCRIBE", (b"Subscription-Id", id))
        if response.status not in (200, 412):
            raise refusal(response.status, place.address, "give up the subscription")

    async def show(self, state: str, seconds: int, view: int | None) -> Properties:
        """Set one's presence, and learn its view and for how long it was granted."""
        body = render_state_change(state, seconds, view)
        return await self._properties("PROPPATCH", self.me, body, "change the presence")

    async def look(self, place: Place) -> Properties:
        """Somebody's presence."""
        body = render_state_question()
        return await self._properties("PROPFIND", place, body, "see the presence", (b"Depth", b"0"))

    async def notify(self, place: Place, body: bytes, ack: str) -> None:
        """Send a message."""
        headers = ((b"RVP-Ack-Type", ack.encode("ascii")), (b"RVP-Hop-Count", b"1"), _XML)
        response = await self._ask(place, "NOTIFY", *headers, body=body, repeatable=False)
        if response.status != 200:
            raise send_failure(response.status, place.address)

    async def _properties(
        self, method: str, place: Place, body: bytes, what: str, *headers: tuple[bytes, bytes]
    ) -> Properties:
        response = await self._ask(place, method, *headers, _XML, body=body)
        if response.status != 207:
            raise refusal(response.status, place.address, what)
        status, told = _multistatus(response, place)
        if status != 200:
            raise refusal(status, place.address, what)
        return told

    async def _ask(
        self,
        place: Place,
        method: str,
        *headers: tuple[bytes, bytes],
        body: bytes = b"",
        repeatable: bool = True,
    ) -> Response:
        fields = ((b"RVP-From-Principal", self.me.url.encode("ascii")), *headers)
        response = await self._exchange.ask(place, method, fields, body, repeatable=repeatable)
        if response.status == 401:
            raise WrongPassword(401, _unbelieved(self.me, response))
        return response


def _unbelieved(me: Place, response: Response) -> str:
    """Why signing in failed."""
    if choose(response.challenges) is None:
        return f"the server of {me.address} offers no way to sign in that is known here (Digest)"
    return f"wrong password for {me.address}, or there is no such user"


def _subscribed(response: Response, state: str = "") -> Subscribed:
    try:
        id, seconds = read_subscription(response)
    except BadRequest as error:
        raise NotDone(f"the server's answer makes no sense: {error.text}") from None
    return Subscribed(id, seconds, state)


def _multistatus(response: Response, place: Place) -> tuple[int, Properties]:
    try:
        return parse_multistatus(response.body)
    except BadRequest as error:
        raise NotDone(f"the server's answer about {place.address} makes no sense: {error.text}") from None
