"""A DNS server in a thread, for commands that ask one and wait."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class DnsServer:
    """Answers over UDP on the loopback with the SRV records that it was given.

    @ivar records: by name, without a final dot, what the records say.
    @ivar rcode: answered instead of everything else, such as C{"SERVFAIL"}; C{"silence"} for nothing at all.
    @ivar asked: the names, in order.
    """

    def __init__(self, records: Mapping[str, Sequence[str]] | None = None, rcode: str = "") -> None:
        self.records = dict(records or {})
        self.rcode = rcode
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no longer."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            wire, peer = self._socket.recvfrom(4096)
            if not wire:
                return
            query = dns.message.from_wire(wire)
            name = query.question[0].name.to_text(omit_final_dot=True).lower()
            self.asked.append(name)
            if self.rcode == "silence":
                continue
            self._socket.sendto(self._answer(query, name).to_wire(), peer)

    def _answer(self, query: dns.message.Message, name: str) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.AA
        if self.rcode:
            reply.set_rcode(dns.rcode.from_text(self.rcode))
        elif self.records.get(name):
            reply.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "SRV", *self.records[name]))
        elif name not in self.records:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply
