"""What each C{rvp} command does with a session, from its begin to a clean end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from rvpfarm.client.notices import Message, Presence
from rvpfarm.client.output import Output
from rvpfarm.client.session import PRESENCE_SECONDS, Session
from rvpfarm.protocol.properties import STATES


class Ears:
    """Prints what a session hears, until there was enough of it."""

    def __init__(self, out: Output, *, messages: int = 0, changes: int = 0) -> None:
        """
        @param messages: be content with so many messages; 0 for never.
        @param changes: be content with so many changes of presence; 0 for never.
        """
        self._out = out
        self._messages = messages
        self._changes = changes
        self._enough: Deferred[None] = Deferred()

    def options(self) -> dict[str, Any]:
        """What to give to L{Session.open} in order to hear with these."""
        return {"on_message": self._message, "on_presence": self._presence, "on_left": self._out.left}

    async def hear(self) -> None:
        """Wait until there was enough, or until told to stop."""
        try:
            await self._enough
        except CancelledError:
            return

    def _message(self, message: Message) -> None:
        self._out.message(message)
        self._messages = self._count(self._messages)

    def _presence(self, presence: Presence) -> None:
        self._out.presence(presence)
        if presence.state is not None:
            self._changes = self._count(self._changes)

    def _count(self, left: int) -> int:
        if left == 1 and not self._enough.called:
            self._enough.callback(None)
        return max(left - 1, 0)


async def log_in(session: Session, out: Output, ears: Ears, state: str) -> None:
    """Be present, print what is said, and log out at the end."""
    try:
        await session.login()
        await session.set_state(state)
        out.logged_in(session.me.address, state)
        await ears.hear()
    finally:
        await session.logout()


async def watch(session: Session, out: Output, ears: Ears, addresses: Sequence[str]) -> None:
    """Print the presence of some people, and each change of it."""
    try:
        await session.login()
        for address in addresses:
            out.state(address, await session.watch(address), changed=False)
        await ears.hear()
    finally:
        await session.logout()


async def send(session: Session, out: Output, address: str, text: str, ack: str) -> None:
    """Send one message."""
    try:
        await session.send(address, text, ack=ack)
        out.sent(address)
    finally:
        await session.close()


async def status(session: Session, out: Output, what: str, seconds: int = PRESENCE_SECONDS) -> None:
    """Print somebody's presence, or set one's own.

    @param what: an address, a presence to show, or nothing for one's own address.
    """
    try:
        if what in STATES:
            granted = await session.set_state(what, seconds=seconds)
            shown = None if what == "offline" else granted
            out.state(session.me.address, what, changed=True, seconds=shown)
        else:
            address = what or session.me.address
            out.state(address, await session.state_of(address), changed=False)
    finally:
        await session.close()
