"""A Digest client of the tests' own, by the letter of RFC 7616: independent of the code under test."""

from __future__ import annotations

import hashlib
import re


def sha256_authorization(challenge: str, method: str, uri: str, user: str, password: str) -> str:
    """The C{Authorization} line that answers the SHA-256 challenge among the headers C{challenge}."""
    line = next(line for line in challenge.splitlines() if "SHA-256" in line)
    realm, nonce = (re.findall(rf'{name}="([^"]*)"', line)[0] for name in ("realm", "nonce"))

    def h(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    ha1, ha2 = h(f"{user}:{realm}:{password}"), h(f"{method}:{uri}")
    response = h(f"{ha1}:{nonce}:00000001:0a4f113b:auth:{ha2}")
    return (
        f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", '
        f'algorithm=SHA-256, qop=auth, nc=00000001, cnonce="0a4f113b", response="{response}"'
    )
