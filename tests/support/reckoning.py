"""What clients work out to prove who they are: Digest and NTLMv1, computed here from the published rules.

Independent of the code under test, and of the clock: whatever has to be random is an argument.
"""

from __future__ import annotations

import hashlib
import struct
from base64 import b64decode, b64encode

from Crypto.Cipher import DES
from Crypto.Hash import MD4


def digest_response(
    user: str, realm: str, password: str, method: str, uri: str, nonce: str, nc: str, cnonce: str
) -> str:
    """C{response} of Digest credentials with MD5 and C{qop=auth} (protocol notes 9.4)."""
    ha1, ha2 = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{uri}")
    return _md5(f"{ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()  # noqa: S324  # that is what Digest is made of


def net_rvp_type3(challenge: str, user: str, password: str) -> str:
    """How Net::RVP (libwww-perl with Authen::NTLM) answers an NTLM challenge (protocol notes 9.2, 9.3).

    NTLMv1 with an LM response; the server's target name comes back as the domain, and the user name as the
    workstation, too.

    @param challenge: type 2, in base64.
    @return: type 3, in base64.
    """
    type2 = b64decode(challenge)
    length, _, offset = struct.unpack_from("<HHI", type2, 12)
    domain, nonce = type2[offset : offset + length], type2[24:32]
    name = user.encode("utf-16-le")
    parts = (
        _responses(_lm_hash(password), nonce),
        _responses(_nt_hash(password), nonce),
        domain,
        name,
        name,
    )
    head, at = b"NTLMSSP\0" + struct.pack("<I", 3), 64
    for part in parts:
        head += struct.pack("<HHI", len(part), len(part), at)
        at += len(part)
    # no session key; flags: Unicode, request target, NTLM, always sign
    head += struct.pack("<HHII", 0, 0, _SESSION_KEY_AT, 0x8205)
    return b64encode(head + b"".join(parts)).decode()


#: Where Authen::NTLM says that the session key, which is empty, begins: not where that would be.
_SESSION_KEY_AT = 80


def _nt_hash(password: str) -> bytes:
    """The hash of Windows NT."""
    return MD4.new(password.encode("utf-16-le")).digest()  # noqa: S303  # likewise


def _lm_hash(password: str) -> bytes:
    """The hash of LAN Manager: the password as two DES keys."""
    text = password.upper().encode("latin-1")[:14].ljust(14, b"\0")
    return b"".join(_des(text[at : at + 7], b"KGS!@#$%") for at in (0, 7))


def _responses(hashed: bytes, nonce: bytes) -> bytes:
    """The server's challenge under a hash as three DES keys."""
    key = hashed.ljust(21, b"\0")
    return b"".join(_des(key[at : at + 7], nonce) for at in (0, 7, 14))


def _des(key: bytes, block: bytes) -> bytes:
    """One DES block; each octet of the key is seven bits and one of parity, which nobody looks at."""
    bits = int.from_bytes(key, "big")
    spread = bytes(bits >> 49 - 7 * octet & 0x7F for octet in range(8))
    key = bytes(octet << 1 for octet in spread)
    return DES.new(key, DES.MODE_ECB).encrypt(block)  # noqa: S304  # and this, NTLM
