"""One person's session: log in, be present, watch others, send and receive messages.

The library that other programs import::

    session = await Session.open("alice@farm.localhost", password, reactor=reactor, on_message=print)
    await session.login()
    await session.set_state("online")
    await session.send("bob@farm.localhost", "Coffee at ten?")
    await session.logout()

Every method that asks a server returns a Deferred.  It fails with L{rvpfarm.client.errors.NotDone} when
a server says no, with L{rvpfarm.protocol.calls.Unreachable} when none can be reached, and with
C{ValueError} when an address is none.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.client.directions import Directions
from rvpfarm.client.errors import NotDone
from rvpfarm.client.exchange import Carrier, Exchange
from rvpfarm.client.leases import Renewal, presence_due, subscription_due
from rvpfarm.client.listener import Listener, local_address
from rvpfarm.client.names import Place, key_of, shown
from rvpfarm.client.notices import LEAVING, Left, Message, Notice, Presence, Typing
from rvpfarm.client.requests import Requests
from rvpfarm.client.signin import SignIn
from rvpfarm.discovery.lookup import Locator
from rvpfarm.protocol.calls import Unreachable
from rvpfarm.protocol.mime import render_text, render_typing
from rvpfarm.protocol.notifications import render_message
from rvpfarm.protocol.properties import STATES
from rvpfarm.web.outgoing import Outgoing

#: What a presence asks for (protocol notes 0).
PRESENCE_SECONDS = 1200

#: How long logging out may take; leases end what it could not.
_LOGOUT_SECONDS = 5.0

#: Conversations that are remembered, open ones and closed ones each.
_MOST_CONVERSATIONS = 256

_CONNECT_SECONDS = 5.0

#: What is kept alive, besides watches.
_LOGIN = "the login"
_PRESENCE = "the presence"

_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Watched:
    """Somebody who is watched.

    @ivar id: of the subscription at the home that granted it.
    @ivar state: as last heard.
    """

    place: Place
    id: bytes
    state: str


def _ignore(_: object) -> None:
    """What nobody wants to hear."""


class Session:
    """What one person does on a server; make it with L{open}.

    @ivar me: one's own place.
    """

    _log = Logger()

    def __init__(
        self,
        me: Place,
        *,
        reactor: Any,
        directions: Directions,
        exchange: Exchange,
        close: Callable[[], Awaitable[object]],
        on_message: Callable[[Message], None] = _ignore,
        on_presence: Callable[[Presence], None] = _ignore,
        on_typing: Callable[[Typing], None] = _ignore,
        on_left: Callable[[Left], None] = _ignore,
        on_trouble: Callable[[str], None] = _ignore,
        call_back_host: str | None = None,
        call_back_port: int = 0,
        find_local_address: Callable[[str], str] = local_address,
    ) -> None:
        """
        @param close: lets go of everything that C{exchange} uses.
        @param on_trouble: told in a sentence when a lease cannot be renewed; it is tried further.
        @param call_back_host: the name under which the home server reaches us; otherwise the address
            from which we reach it.
        @param call_back_port: where to listen; 0 for any port.
        """
        self.me = me
        self._reactor = reactor
        self._directions = directions
        self._requests = Requests(me, exchange)
        self._close = close
        self._on_message = on_message
        self._on_presence = on_presence
        self._on_typing = on_typing
        self._on_left = on_left
        self._on_trouble = on_trouble
        self._call_back_host = call_back_host
        self._call_back_port = call_back_port
        self._local_address = find_local_address
        self._listener = Listener(reactor, self._heard, token=secrets.token_hex(12))
        self._login_id = b""
        self._renewals: dict[str, Renewal] = {}
        self._watched: dict[str, _Watched] = {}
        self._view: int | None = None
        self._state = ""
        self._state_seconds = PRESENCE_SECONDS
        self._conversations: dict[str, str] = {}
        self._left: dict[str, None] = {}
        self._closed = False

    @classmethod
    def open(
        cls,
        address: str,
        password: str,
        *,
        reactor: Any,
        dns: str | None = None,
        server: str | None = None,
        carrier: Carrier | None = None,
        **options: Any,
    ) -> Deferred[Session]:
        """Find the server of C{address}; nothing is sent to it yet.

        @param address: C{name@domain}, or a logical URL.
        @param reactor: the reactor; no single interface says all that is needed of it.
        @param dns: C{ip:port} of the DNS server to ask, instead of the system's.
        @param server: C{host:port} of the server of one's own domain, instead of looking it up.
        @param carrier: carries the requests, instead of connections of its own.
        @param options: those of L{__init__}: what to call when there is something to hear, and where to
            be called back.
        """
        return Deferred.fromCoroutine(cls._open(address, password, reactor, dns, server, carrier, options))

    @classmethod
    async def _open(
        cls,
        address: str,
        password: str,
        reactor: Any,
        dns: str | None,
        server: str | None,
        carrier: Carrier | None,
        options: dict[str, Any],
    ) -> Session:
        locator = Locator(reactor, dns_server=dns)
        directions = Directions(locator, reactor, server=server)
        try:
            me = await directions.own_place(address)
        except BaseException:
            locator.close()
            raise
        outgoing: Outgoing | None = None
        if carrier is None:
            carrier = outgoing = Outgoing(
                reactor, _endpoints(reactor), connect_seconds=_CONNECT_SECONDS, peer="server"
            )
            outgoing.startService()

        async def close() -> None:
            locator.close()
            if outgoing is not None:
                await outgoing.stopService()

        signin = SignIn(_usernames(me), password, lambda: secrets.token_hex(16))
        exchange = Exchange(carrier, signin, locator, reactor)
        return cls(me, reactor=reactor, directions=directions, exchange=exchange, close=close, **options)

    # What a program asks for.

    def login(self) -> Deferred[None]:
        """Be reachable: listen, and tell the home server where.  It does not change the presence.

        A second login renews the first.
        """
        return self._run(self._login())

    def set_state(self, state: str, *, seconds: int = PRESENCE_SECONDS) -> Deferred[int]:
        """Show a presence, such as C{"online"}, and keep showing it until another is set.

        @param seconds: how long it outlives this session if that ends without a word.
        @return: fires with the length of the lease that was granted.
        @raise ValueError: there is no such presence.
        """
        if state not in STATES:
            raise ValueError(f"{state!r} is no presence; there are {', '.join(sorted(STATES))}")
        return self._run(self._set_state(state, seconds))

    def state_of(self, address: str) -> Deferred[str]:
        """The presence of somebody, once."""
        return self._run(self._state_of(address))

    def watch(self, address: str) -> Deferred[str]:
        """Hear of every change of somebody's presence from now on, by C{on_presence}.

        @return: fires with the presence as it is.
        """
        return self._run(self._watch(address))

    def unwatch(self, address: str) -> Deferred[None]:
        """Hear of it no more."""
        return self._run(self._unwatch(address))

    def send(self, address: str, text: str, *, ack: str = "DeepOr") -> Deferred[None]:
        """Send a message; no login is needed.

        @param ack: who must have it: C{SingleHop} the home server, C{DeepOr} one client, C{DeepAnd} all.
        @return: fires when it is acknowledged; fails with L{rvpfarm.client.errors.SendFailed} when it is
            refused.
        """
        return self._run(self._send(address, lambda place: render_text(text, self._conversation(place)), ack))

    def typing(self, address: str) -> Deferred[None]:
        """Let somebody know that a message is being typed; repeat it every few seconds."""
        return self._run(
            self._send(
                address,
                lambda place: render_typing(self.me.address, self._conversation(place)),
                "SingleHop",
            )
        )

    def leave(self, address: str) -> Deferred[None]:
        """Leave the conversation with somebody: what still comes of it is refused."""
        return self._run(self._leave(address))

    def logout(self) -> Deferred[None]:
        """Go offline, stop watching, log out and L{close}; what cannot be done in time is left to the
        leases."""
        return succeed(None) if self._closed else self._run(self._logout())

    def close(self) -> Deferred[None]:
        """Stop everything here, without a word to any server."""
        return succeed(None) if self._closed else self._run(self._stop())

    # How it is done.

    def _run(self, work: Coroutine[Any, Any, _Result]) -> Deferred[_Result]:
        """Begin C{work}; the coroutine never comes to the caller, who might forget to await it."""
        if self._closed:
            work.close()
            return fail(NotDone("this session is closed"))
        return Deferred.fromCoroutine(work)

    async def _login(self) -> None:
        granted = 0.0
        for _ in self.me.addresses:
            here = self._local_address(self._requests.first_address())
            self._listener.listen(here, self._call_back_port)
            granted = await self._renew_login()
            # Another address may have answered, which we reach from another address of ours.
            if self._local_address(self._requests.first_address()) == here:
                break
            self._login_id = b""
        self._keep(_LOGIN, self._renew_login, subscription_due, granted)

    async def _renew_login(self) -> float:
        """Refresh the login, or make a new one when there is none or the server has lost it."""
        granted = await self._requests.refresh(self.me, self._login_id) if self._login_id else None
        if granted is None:
            self._login_id = b""
            granted = await self._requests.log_in(self._listener.url(self._call_back_host or ""))
            self._login_id = granted.id
        return granted.seconds

    async def _set_state(self, state: str, seconds: int) -> int:
        self._state, self._state_seconds = state, seconds
        granted = await self._renew_state()
        if state == "offline":
            self._view = None
            await self._stop_keeping(_PRESENCE)
        else:
            self._keep(_PRESENCE, self._renew_state, presence_due, granted)
        return int(granted)

    async def _renew_state(self) -> float:
        """Show the presence again, in the same view."""
        told = await self._requests.show(self._state, self._state_seconds, self._view)
        self._view = told.view
        return float(told.seconds or self._state_seconds)

    async def _state_of(self, address: str) -> str:
        told = await self._requests.look(await self._directions.place(address))
        return told.state or "offline"

    async def _watch(self, address: str) -> str:
        place = await self._directions.place(address)
        watched = self._watched.get(place.key)
        if watched is None:
            granted = await self._requests.subscribe(place)
            watched = self._watched[place.key] = _Watched(place, granted.id, granted.state)
            self._keep(
                _watch_of(place), partial(self._renew_watch, watched), subscription_due, granted.seconds
            )
        return watched.state

    async def _renew_watch(self, watched: _Watched) -> float:
        """Refresh a subscription; when the server has lost it make a new one and tell what was missed."""
        granted = await self._requests.refresh(watched.place, watched.id)
        if granted is None:
            granted = await self._requests.subscribe(watched.place)
            missed, watched.state = granted.state != watched.state, granted.state
            if missed:
                self._on_presence(Presence(watched.place.address, watched.place.url, granted.state))
        watched.id = granted.id
        return granted.seconds

    async def _unwatch(self, address: str) -> None:
        place = await self._directions.place(address)
        watched = self._watched.pop(place.key, None)
        if watched is None:
            return
        await self._stop_keeping(_watch_of(place))
        await self._requests.unsubscribe(place, watched.id)

    async def _send(self, address: str, mime: Callable[[Place], bytes], ack: str) -> None:
        place = await self._directions.place(address)
        name = shown(self.me.url).partition("@")[0]
        body = render_message(self.me.url, name, place.url, "", mime(place))
        await self._requests.notify(place, body, ack)

    async def _leave(self, address: str) -> None:
        place = await self._directions.place(address)
        conversation = self._conversations.pop(place.key, None)
        if conversation is None:
            return
        _remember(self._left, conversation, None)
        mime = f"MIME-Version: 1.0\r\nContent-Type: {LEAVING}\r\nSession-Id: {conversation}\r\n\r\n"
        await self._send(address, lambda _: mime.encode(), "SingleHop")

    async def _logout(self) -> None:
        for renewal in self._renewals.values():
            await renewal.stop()
        farewells = [
            self._requests.unsubscribe(watched.place, watched.id) for watched in self._watched.values()
        ]
        if self._view is not None:
            farewells.append(self._say_offline())
        try:
            if await self._in_time(farewells) and self._login_id:
                await self._in_time([self._requests.unsubscribe(self.me, self._login_id)])
        finally:
            await self._stop()

    async def _say_offline(self) -> None:
        self._state = "offline"
        await self._renew_state()

    async def _in_time(self, farewells: list[Coroutine[Any, Any, None]]) -> bool:
        """Do all of these at once; false if they could not be done in time."""
        done = DeferredList([Deferred.fromCoroutine(each) for each in farewells], consumeErrors=True)
        done.addTimeout(_LOGOUT_SECONDS, self._reactor)
        results = await done
        late = False
        for ok, outcome in results:
            if ok or not isinstance(outcome, Failure):
                continue
            late = late or outcome.check(CancelledError) is not None
            if not outcome.check(NotDone, Unreachable, CancelledError):
                self._log.failure("logging out failed", failure=outcome)
        if late:
            self._log.warn("logging out took too long")
        return not late

    async def _stop(self) -> None:
        self._closed = True
        for renewal in self._renewals.values():
            await renewal.stop()
        self._renewals.clear()
        await self._listener.stop()
        await self._close()

    def _keep(
        self,
        name: str,
        renew: Callable[[], Awaitable[float]],
        due: Callable[[float], float],
        granted: float,
    ) -> None:
        """Renew a lease from now on."""
        renewal = self._renewals.get(name)
        if renewal is None:
            renewal = Renewal(self._reactor, name, renew, due, self._on_trouble)
            self._renewals[name] = renewal
        renewal.granted(granted)

    async def _stop_keeping(self, name: str) -> None:
        renewal = self._renewals.pop(name, None)
        if renewal is not None:
            await renewal.stop()

    # What is heard.

    def _heard(self, notice: Notice) -> bool:
        """Pass on what the home server brought; false when its conversation is over."""
        notice = replace(notice, sender=self._name_of(notice.url))
        if isinstance(notice, Presence):
            self._heard_presence(notice)
            return True
        if notice.conversation and notice.conversation in self._left:
            return False
        if isinstance(notice, Left):
            self._on_left(notice)
        elif isinstance(notice, Typing):
            self._on_typing(notice)
        else:
            self._heard_message(notice)
        return True

    def _heard_message(self, message: Message) -> None:
        if message.conversation:
            _remember(self._conversations, key_of(message.url), message.conversation)
        self._on_message(message)

    def _heard_presence(self, presence: Presence) -> None:
        watched = self._watched.get(key_of(presence.url))
        if watched is not None and presence.state is not None:
            watched.state = presence.state
        self._on_presence(presence)

    def _name_of(self, url: str) -> str:
        """Somebody as the program knows him: as it named him, or with one's own mail domain."""
        watched = self._watched.get(key_of(url))
        if watched is not None:
            return watched.place.address
        name, _, host = shown(url).rpartition("@")
        domain = self.me.address.rpartition("@")[2]
        return f"{name}@{domain}" if host == self.me.host and "://" not in domain else shown(url)

    def _conversation(self, place: Place) -> str:
        """The Session-Id of the conversation with somebody; a new one if there is none."""
        known = self._conversations.get(place.key)
        if known is None:
            known = f"{{{str(uuid.uuid4()).upper()}}}"
            _remember(self._conversations, place.key, known)
        return known


def _watch_of(place: Place) -> str:
    """What a renewal of a watch is called."""
    return f"the watch on {place.key}"


def _remember(book: dict[str, Any], key: str, value: object) -> None:
    """Keep C{value}, and forget the oldest when there are too many."""
    book.pop(key, None)
    while len(book) >= _MOST_CONVERSATIONS:
        del book[next(iter(book))]
    book[key] = value


def _endpoints(reactor: Any) -> Callable[[str, int], IStreamClientEndpoint]:
    """How to connect to an IP address."""

    def connect(host: str, port: int) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        endpoint: IStreamClientEndpoint = kind(reactor, host, port, timeout=_CONNECT_SECONDS)
        return endpoint

    return connect


def _usernames(me: Place) -> Callable[[str], str]:
    """By which name one signs in: the plain one at home, the whole address elsewhere."""
    whole = shown(me.url) if "://" in me.address else me.address
    return lambda realm: whole.rpartition("@")[0] if realm.lower() == me.host else whole
