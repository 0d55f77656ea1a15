"""A client of NTLM and Negotiate that is not ours: pyspnego computes every token by itself."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode

import spnego

#: Compatibility levels, as Windows numbers them: plain NTLMv1, extended session security, NTLMv2.
V1, EXTENDED, V2 = 0, 2, 3


class NtlmClient:
    """One sign-in.

    @ivar complete: the client has all that it wants.
    """

    def __init__(
        self, user: str, password: str, *, scheme: str = "NTLM", wrapped: bool = False, level: int = V2
    ) -> None:
        """
        @param scheme: C{"NTLM"} or C{"Negotiate"}.
        @param wrapped: in SPNEGO, as the latter allows.
        @param level: what the client is able to do, one of L{V1}, L{EXTENDED} and L{V2}.
        """
        self._scheme = scheme
        kept = os.environ.get("LM_COMPAT_LEVEL")
        os.environ["LM_COMPAT_LEVEL"] = str(level)
        try:
            self._context = spnego.client(
                user,
                password,
                protocol="negotiate" if wrapped else "ntlm",
                options=spnego.NegotiateOptions.use_negotiate
                if wrapped
                else spnego.NegotiateOptions.use_ntlm,
            )
        finally:
            del os.environ["LM_COMPAT_LEVEL"]
            if kept is not None:
                os.environ["LM_COMPAT_LEVEL"] = kept

    @property
    def complete(self) -> bool:
        """Has the server proved whatever the client wants of it?"""
        return self._context.complete

    def step(self, line: str = "") -> str:
        """The next C{Authorization}; empty when there is nothing more to say.

        @param line: the server's C{WWW-Authenticate}; empty for the first step.
        """
        name, _, token = line.partition(" ")
        assert not line or (name == self._scheme and token), line
        answer = self._context.step(b64decode(token) if token else None)
        return f"{self._scheme} {b64encode(answer).decode()}" if answer else ""
