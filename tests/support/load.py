"""Constant load on HTTP servers from outside, and an account of whatever was not answered well.

Each client of a L{Load} has one request under way at a time and sends the next when that has come to its end, well
or badly (a closed loop), so a server that stands still is not buried.  A client treats several addresses as one
that got them from a round-robin DNS name does: each new connection begins at another one, and one that refuses is
passed over.  Nothing is tried again in silence: a request that was lost is an outcome.

Everything runs in one thread of its own, so tests may block meanwhile::

    with Load([("127.0.0.1", 8080)], request) as load:
        load.await_more(200)
        os.kill(pid, signal.SIGUSR2)
        load.await_more(200)
    self.assertEqual(load.failures, {}, load.report())
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from tests.support.processes import PATIENCE_SECONDS

#: More requests than this are not made, and of more failures than that the particulars are not kept.
MOST_REQUESTS, MOST_FAILURES = 1_000_000, 1_000

#: A head that is longer is no answer.
_HEAD_BYTES = 65_536


@dataclass(frozen=True)
class Failed:
    """One request that was not answered well.

    @ivar at: seconds since the load began.
    @ivar outcome: see L{Load.outcomes}.
    @ivar where: the address asked, C{host:port}.
    @ivar reused: the connection had carried a request before.
    """

    at: float
    outcome: str
    where: str
    reused: bool


class _Lost(Exception):
    """A request got no whole answer; the text is its outcome."""


class _Connection:
    """One connection of one client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> None:
        self._reader, self._writer, self.where = reader, writer, where
        self.reused = self.ended = False

    async def ask(self, request: bytes) -> int:
        """Send C{request} and read its answer to the end.

        @raise _Lost: there was none.
        """
        began = False
        try:
            self._writer.write(request)
            await self._writer.drain()
            head = await self._reader.readuntil(b"\r\n\r\n")
            began = True
            return await self._finish(head)
        except asyncio.IncompleteReadError as end:
            raise _Lost("cut" if began or end.partial else "closed") from end
        except ConnectionError as end:
            raise _Lost("cut" if began else "reset") from end
        except (asyncio.LimitOverrunError, ValueError, IndexError, ssl.SSLError) as wrong:
            raise _Lost("garbage") from wrong

    async def _finish(self, head: bytes) -> int:
        """Read the body; its end is known by C{Content-Length} or by that of the connection."""
        line, *rest = head.decode("latin-1").rstrip().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
        status = int(line.split()[1])
        if "content-length" in fields:
            await self._reader.readexactly(int(fields["content-length"]))
        elif status not in (204, 304):
            await self._reader.read()
            self.ended = True
        self.ended = self.ended or "close" in fields.get("connection", "").lower()
        self.reused = True
        return status

    def close(self) -> None:
        """Hang up, without the farewells of TLS, which a server may be too dead to return."""
        self._writer.transport.abort()


class Load:
    """Clients that ask the same servers again and again, until L{stop}.

    @ivar outcomes: how many requests ended how: the status as text, or C{"refused"} (by every address),
        C{"unreachable"}, C{"silent"} (no connection, or no whole answer, in time), C{"reset"}, C{"closed"}
        (before the answer began), C{"cut"} (in the middle of it), C{"garbage"}.
    @ivar refusals: how many connections each address refused, whether or not another one took them.
    @ivar failed: the first failures, with their particulars.
    @ivar longest_gap: most seconds that passed between two good answers.
    """

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        request: Callable[[], bytes],
        *,
        clients: int = 4,
        keep_alive: bool = True,
        pause_seconds: float = 0.0,
        patience_seconds: float = PATIENCE_SECONDS,
        tls: ssl.SSLContext | None = None,
        good: Callable[[int], bool] = lambda status: 200 <= status < 300,
        enter: Callable[[], None] | None = None,
    ) -> None:
        """
        @param addresses: tried in turn; IP addresses, so that nothing is looked up.
        @param request: makes the octets of each request.
        @param clients: requests under way at a time.
        @param keep_alive: use a connection until the server closes it; else each for one request, which should
            then say C{Connection: close}.
        @param pause_seconds: between an answer and the client's next request: how long connections are idle.
        @param patience_seconds: for a connection and an answer together.
        @param good: is this status what is asked for?
        @param enter: called first in the thread, to move it to another network namespace, say.
        """
        self._addresses, self._request, self._clients = tuple(addresses), request, clients
        self._keep_alive, self._pause, self._patience = keep_alive, pause_seconds, patience_seconds
        self._tls, self._good, self._enter = tls, good, enter
        self.outcomes: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.failed: list[Failed] = []
        self.longest_gap = 0.0
        self._latencies = array("f")
        self._turn = 0
        self._count = self._answered = 0
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._began = self._last_good = time.monotonic()

    # what tests use

    def start(self) -> None:
        """Begin."""
        self._began = self._last_good = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Begin no more requests, and wait for those under way."""
        self._over = True
        self._thread.join(self._patience + PATIENCE_SECONDS)
        if self._thread.is_alive():
            raise AssertionError(f"the load does not end: {self.report()}")

    def __enter__(self) -> Load:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def answered(self) -> int:
        """How many requests were answered well so far."""
        return self._answered

    @property
    def failures(self) -> dict[str, int]:
        """How many requests ended otherwise, by outcome."""
        return {
            outcome: count
            for outcome, count in self.outcomes.items()
            if not (outcome.isdigit() and self._good(int(outcome)))
        }

    def await_more(self, count: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until C{count} more requests have been answered well.

        @raise AssertionError: they were not.
        """
        with self._changed:
            goal = self._answered + count
            if not self._changed.wait_for(lambda: self._answered >= goal, seconds):
                raise AssertionError(f"not {count} more answers within {seconds} s: {self.report()}")

    def percentile(self, part: float) -> float:
        """So many seconds at most took C{part} (0 to 1) of the good answers."""
        ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0

    def report(self) -> str:
        """All of it, for the message of a failure."""
        lines = [
            f"outcomes {dict(self.outcomes)}, connections refused {dict(self.refusals)}, longest gap "
            f"{self.longest_gap:.3f} s, median {self.percentile(0.5):.4f} s, 99% {self.percentile(0.99):.4f} s, "
            f"slowest {self.percentile(1):.3f} s"
        ]
        return "\n".join([*lines, *(str(failed) for failed in self.failed[:20])])

    # the clients

    def _run(self) -> None:
        if self._enter is not None:
            self._enter()
        asyncio.run(self._all())

    async def _all(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._clients)))
        await asyncio.sleep(0.01)  # connections are really closed in the turns after

    async def _client(self) -> None:
        """One client: a request, its outcome, the next request."""
        connection: _Connection | None = None
        while not self._over and self._count < MOST_REQUESTS:
            self._count += 1
            began = time.monotonic()
            reused, where = (False, "") if connection is None else (connection.reused, connection.where)
            outcome = "silent"
            try:
                async with asyncio.timeout(self._patience):
                    if connection is None:
                        connection = await self._connect()
                        where = connection.where
                    outcome = str(await connection.ask(self._request()))
            except TimeoutError:
                pass
            except _Lost as lost:
                outcome = str(lost)
            self._note(began, outcome, where, reused)
            if connection is not None and not (
                self._keep_alive and outcome.isdigit() and not connection.ended
            ):
                connection.close()
                connection = None
            if self._pause and not self._over:
                await asyncio.sleep(self._pause)
            elif connection is None and not outcome.isdigit():
                await asyncio.sleep(0.01)  # as if a person tried again, at the speed of machines
        if connection is not None:
            connection.close()

    async def _connect(self) -> _Connection:
        """A connection to the next address, or to one after it.

        @raise _Lost: to none of them.
        """
        first, self._turn = self._turn, self._turn + 1
        why = "refused"
        for number in range(len(self._addresses)):
            host, port = self._addresses[(first + number) % len(self._addresses)]
            where = f"{host}:{port}"
            try:
                return _Connection(
                    *await asyncio.open_connection(host, port, ssl=self._tls, limit=_HEAD_BYTES), where
                )
            except ConnectionRefusedError:
                self.refusals[where] += 1
            except ConnectionError:  # in the middle of a TLS handshake, say
                why = "reset"
            except (OSError, ssl.SSLError):
                why = "unreachable"
        raise _Lost(why)

    def _note(self, began: float, outcome: str, where: str, reused: bool) -> None:
        now = time.monotonic()
        with self._changed:
            self.outcomes[outcome] += 1
            if outcome.isdigit() and self._good(int(outcome)):
                self._answered += 1
                self._latencies.append(now - began)
                self.longest_gap = max(self.longest_gap, now - self._last_good)
                self._last_good = now
                self._changed.notify_all()
            elif len(self.failed) < MOST_FAILURES:
                self.failed.append(Failed(now - self._began, outcome, where, reused))
