"""The long calls and the long replies of one caller's link: how they get their turn beside the short ones."""

from __future__ import annotations

from math import inf
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from rvpfarm.link.download import Download
from rvpfarm.link.flows import Flows
from rvpfarm.link.kinds import BadFrame
from rvpfarm.link.parts import Begin, Part, Window, render_window
from rvpfarm.link.pending import Upload
from rvpfarm.link.roll import Roll
from rvpfarm.protocol.calls import Relayed
from rvpfarm.protocol.streams import Streamed

#: When nothing moves for so long it is given up; longer than a caller may take to send a body.
STREAM_SECONDS = 40.0
#: So often may a link break in the middle of one body.
BREAKS_LIMIT = 2


class Line(Protocol):
    """The connection that there is now; L{rvpfarm.link.homeconnection.HomeConnection} is one.

    @ivar edition: the one that both ends speak.
    @ivar incarnation: the home's.
    """

    edition: int
    incarnation: int


class Client(Protocol):
    """Whose link it is; L{rvpfarm.link.client.LinkClient} is one."""

    peer: str
    clock: IReactorTime

    def acknowledge(self, id: int, octets: int) -> None:
        """A reply of so many octets is here."""

    def forget(self, id: int) -> None:
        """Nobody waits for the rest of a reply."""

    def send_soon(self, frame: bytes) -> None:
        """Send C{frame} with the next that is sent."""

    def flush_soon(self) -> None:
        """Send what can be sent at the end of the turn."""


class Transfers:
    """What travels in parts between a caller and one home.

    @ivar flows: the bodies that are being sent.
    @ivar downloads: the replies that are coming.
    """

    def __init__(self, client: Client, roll: Roll, *, piecewise: bool) -> None:
        """
        @param roll: the calls without a reply.
        @param piecewise: replies are handed over while they come.
        """
        self._client, self._roll, self._piecewise = client, roll, piecewise
        self.flows = Flows(self._sent)
        self.downloads: dict[int, Download] = {}

    # bodies

    def prepare(self, upload: Upload, line: Line) -> None:
        """Make a long call, which is not under way, ready for the home that is linked now."""
        roll, id = self._roll, upload.id
        if not upload.at_hand and (not line.edition or upload.incarnation != line.incarnation):
            why = f"{self._client.peer} was started anew, and cannot be asked what it did"
            roll.fail(upload, why, maybe_done=upload.tries > 0)
        elif line.edition:
            upload.rewind()
            roll.unsent[id] = upload.frame
        elif upload.for_old_home():
            roll.unsent[id] = upload.frame
        else:
            del roll.unsent[id]
            self._collect(upload)

    def survives(self, upload: Upload) -> bool:
        """Whether a long call can still be done after the link broke over it; if it cannot, it has failed."""
        if not upload.whole:
            upload.breaks += 1
            if upload.breaks >= BREAKS_LIMIT or not upload.at_hand:
                why = f"the link to {self._client.peer} broke in the middle of it"
                self._roll.fail(upload, why, maybe_done=upload.tries > 0)
                return False
        upload.rewind()
        return True

    def window(self, frame: Window) -> None:
        """The home lets more of a body come; when it does so first, it has taken the call.

        @raise BadFrame: that call has no body to come.
        """
        upload = self._roll.pending.get(frame.id)
        if upload is None:
            return  # it has been given up
        if not isinstance(upload, Upload) or frame.id in self._roll.unsent:
            raise BadFrame("it asks for parts of a call that has none")
        if upload.whole:
            return
        if frame.id not in self.flows:
            self.flows.open(frame.id, upload.source())
            if upload.call.stream is not None:
                upload.call.stream.arrived = lambda: self._moves(upload)
        self.flows.grant(frame.id, frame.octets)
        self._moves(upload)

    def _moves(self, upload: Upload) -> None:
        """More of a body has come, or may go."""
        upload.until = self._client.clock.seconds() + STREAM_SECONDS
        self.flows.wake(upload.id)
        self._client.flush_soon()

    def _sent(self, id: int) -> None:
        """All of a body has been sent."""
        upload = self._roll.pending[id]
        assert isinstance(upload, Upload)
        upload.sent = True
        upload.until = self._client.clock.seconds() + upload.seconds
        self._roll.wake_by(upload.until)

    def _collect(self, upload: Upload) -> None:
        """Wait for all of a body, for a home that takes it in one piece only."""
        stream = upload.call.stream
        assert stream is not None
        pieces: list[bytes] = []

        def arrived() -> None:
            pieces.append(stream.take(stream.waiting))
            if stream.complete and upload.id in self._roll.pending:
                stream.close()
                upload.call.body, upload.call.stream = b"".join(pieces), None
                upload.for_old_home()
                self._roll.weight += len(upload.frame) - upload.weight
                upload.weight = len(upload.frame)
                self._roll.unsent[upload.id] = upload.frame
                self._client.flush_soon()

        stream.arrived = arrived
        arrived()

    # replies

    def begin(self, frame: Begin) -> None:
        """A long reply begins.

        @raise BadFrame: not for the first time.
        """
        if frame.id in self.downloads:
            raise BadFrame("a reply that begins twice")
        pending = self._roll.pending.get(frame.id)
        if pending is None:
            self._client.forget(frame.id)
            return
        download = self.downloads[frame.id] = Download(self, frame)
        if self._piecewise:
            self._roll.settle(pending)
            self.flows.close(frame.id)
            pending.deferred.callback(Streamed(frame.wire, frame.close, download))
            return
        pieces = [frame.wire]

        def over(complete: bool) -> None:
            if complete:
                self._roll.settle(pending)
                self.flows.close(frame.id)
                pending.deferred.callback(Relayed(b"".join(pieces), frame.close))

        download.start(pieces.append, over)

    def part(self, frame: Part) -> None:
        """A part of a reply has come.

        @raise BadFrame: it was not let come.
        """
        download = self.downloads.get(frame.id)
        if download is None:
            return  # it has been given up
        if download.take(frame):
            del self.downloads[frame.id]
            self._client.acknowledge(frame.id, download.size)
            download.over(complete=True)
        elif download.coming:
            self._comes(download)

    def let_come(self, download: Download, octets: int) -> None:
        """Have the home send more of a reply."""
        self._client.send_soon(render_window(download.id, octets))
        self._comes(download)

    def abandoned(self, download: Download) -> None:
        """Nobody wants the rest of a reply."""
        if self.downloads.get(download.id) is download:
            del self.downloads[download.id]
            self._client.forget(download.id)

    def _comes(self, download: Download) -> None:
        download.until = self._client.clock.seconds() + STREAM_SECONDS
        self._roll.wake_by(download.until)

    # the end

    def drop(self, id: int) -> None:
        """The call C{id} is of no more interest."""
        self.flows.close(id)
        self.downloads.pop(id, None)

    def broken(self) -> None:
        """The connection is gone, and all that was under way with it."""
        self.flows.clear()
        downloads = tuple(self.downloads.values())
        self.downloads.clear()
        for download in downloads:
            download.over(complete=False)

    def expire(self, now: float) -> float:
        """Give up replies of which nothing has come for long.

        @return: when to look again, at the latest.
        """
        for download in tuple(self.downloads.values()):
            if (
                download.coming
                and download.until <= now
                and self.downloads.pop(download.id, None) is not None
            ):
                self._client.forget(download.id)
                download.over(complete=False)
        return min((download.until for download in self.downloads.values() if download.coming), default=inf)
