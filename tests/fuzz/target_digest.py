"""Digest credentials: an answer that says one thing or a 400, and forged nonces never count."""

from __future__ import annotations

from dataclasses import replace

from rvpfarm.auth.digest import DigestAnswer, Nonces, Verdict, parse_authorization, response, verify
from rvpfarm.directory.model import Verifier
from rvpfarm.protocol.calls import BadRequest
from tests.auth.test_digest import CURL, HASH, MIRANDA, REALM

TOKENS = (
    *(
        b"Digest ",
        b"username=",
        b"realm=",
        b"nonce=",
        b"uri=",
        b"cnonce=",
        b"nc=",
        b"qop=",
        b"algorithm=",
        b"response=",
    ),
    *(
        b"opaque=",
        b"MD5",
        b"SHA-256",
        b"md5-sess",
        b"auth",
        b"auth-int",
        b"00000001",
        b"ffffffff",
        b"00000000",
        b'"',
        b"\\",
    ),
    *(
        b'\\"',
        b"\\\\",
        b",",
        b", ",
        b",,",
        b"=",
        b";",
        b" ",
        b"\t",
        b'""',
        b"FABRIK\\petra",
        b"petra@fabrik.example",
    ),
    *(
        b"\xc3\xa4",
        b"\xff",
        b"\xe2\x84\xaa",
        b"\xd9\xa1",
        b"\x00",
        b"a" * 64,
        b"0" * 32,
        b"username*=UTF-8''p",
    ),
)

_NONCES = Nonces(b"key", remembered=64)
_GOOD = _NONCES.issue(1000.0, b"12345678")


def seeds() -> list[bytes]:
    """What clients write."""
    sha = MIRANDA.replace(b"MD5", b"SHA-256").replace(b'response="', b'response="' + b"0" * 32)
    return [
        MIRANDA,
        CURL,
        sha,
        MIRANDA.replace(b"FABRIK/petra", b"FABRIK\\petra"),
        MIRANDA.replace(b",", b" , ,\t").replace(b"Digest", b"dIGEST"),
        MIRANDA.replace(b"6f2c41d0aa9be7355d10c2e84b7f9012", _GOOD.encode()),
        CURL + b', opaque="a, b=\\"c\\""',
    ]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as the value of C{Authorization}."""
    for value in (data, b"Digest " + data):
        try:
            answer = parse_authorization(value)
        except BadRequest as refused:
            assert not refused.close
            continue
        _check(answer)
        for more in (b', username="ingrid"', b",URI=x", b', nc="00000002"'):
            assert _refused(value + more), "the second of two counts"


def _check(answer: DigestAnswer) -> None:
    """It is complete, can be written and read again, and proves nothing by itself."""
    assert answer.nc == int(answer.count, 16) > 0
    assert len(answer.count) == 8
    assert answer.algorithm in ("MD5", "SHA-256")
    assert len(answer.response) == (32 if answer.algorithm == "MD5" else 64)
    int(answer.response, 16)
    assert parse_authorization(_written(answer)) == answer
    scheme = "digest-md5" if answer.algorithm == "MD5" else "digest-sha-256"
    known = [
        Verifier("digest-md5", "FABRIK/petra", REALM, HASH),
        Verifier(scheme, answer.username, "x", "0" * 32),
    ]
    known += [Verifier(scheme, answer.username, answer.realm, "e" * len(answer.response))]
    assert not verify(answer, b"ANOTHER", known)
    nobody = replace(answer, response=response(answer, b"ACL", "0" * len(answer.response)))
    assert not verify(nobody, b"ACL", []), "without a verifier anybody could be anybody"
    somebody = replace(answer, response=response(answer, b"ACL", known[-1].secret))
    assert verify(somebody, b"ACL", known[-1:]), "the right answer is wrong"
    assert not verify(somebody, b"ACL", known[:-1])
    if answer.nonce == _GOOD:
        for count in (2**32 - 1, 1, answer.nc):
            _NONCES.judge(answer.nonce, count, 1001.0)
    verdict = _NONCES.judge(answer.nonce, answer.nc, 1001.0)
    if answer.nonce != _GOOD:
        assert verdict is Verdict.FORGED
    assert len(_NONCES) <= 1


def _refused(value: bytes) -> bool:
    try:
        parse_authorization(value)
    except BadRequest:
        return True
    return False


def _written(answer: DigestAnswer) -> bytes:
    quoted = {
        "username": answer.username,
        "realm": answer.realm,
        "nonce": answer.nonce,
        "uri": answer.uri,
        "cnonce": answer.cnonce,
        "response": answer.response,
    }
    parts = [f'{name}="{_escaped(text)}"' for name, text in quoted.items()]
    parts += [f"algorithm={answer.algorithm}", f"nc={answer.count}", "qop=auth"]
    return f"Digest {','.join(parts)}".encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
