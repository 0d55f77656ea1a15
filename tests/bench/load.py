"""Load from outside Python: wrk with our Lua script, and our C programs, built when they are needed."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from select import select
from tempfile import TemporaryFile

from tests.bench.farm import DOMAIN
from tests.bench.peers import program
from tests.bench.rows import Sample
from tests.bench.serving import Served, Servers, end

SOURCES = Path(__file__).parent / "load"

#: How long a load program may take beyond the time that it was told: setting up, and what is still under way.
PATIENCE_SECONDS = 400.0


def request(method: str, number: int, fields: str, body: bytes = b"") -> bytes:
    """A request of u<number> as a client of old sends it, with the proof that it sends from its second on.

    No router looks into the proof, so it need not be a true one.
    """
    target = f"/instmsg/aliases/u{number}"
    return (
        f"{method} {target} HTTP/1.1\r\nHost: {DOMAIN}\r\nRVP-Notifications-Version: 0.2\r\n"
        f"RVP-From-Principal: http://{DOMAIN}/instmsg/aliases/u{number}\r\n{fields}"
        f'Authorization: Digest username="u{number}", realm="{DOMAIN}", '
        f'nonce="6a1f0c5d2e9b4873a1f0c5d2e9b48736", uri="{target}", qop=auth, nc={number + 1:08x}, '
        'cnonce="0a4f113b", response="6629fae49393a05397450978507c4ef1"\r\n'
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def notify(number: int, octets: int = 1024) -> bytes:
    """A NOTIFY to u<number> that carries a message, with a body of just so many octets."""
    party = (
        f"<r:contact><d:href>http://{DOMAIN}/instmsg/aliases/u{number}</d:href>"
        f"<r:description>u{number}</r:description></r:contact>"
    )
    begin = (
        "<?xml version=\"1.0\"?><r:notification xmlns:d='DAV:' "
        "xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http://schemas.microsoft.com/rvp/acl/'>"
        f"<r:message><r:notification-from>{party}</r:notification-from>"
        f"<r:notification-to>{party}</r:notification-to><r:msgbody><r:mime-data><![CDATA[MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=UTF-8\r\n"
        "Session-Id: {3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}\r\n\r\n"
    ).encode()
    finish = b"]]></r:mime-data></r:msgbody></r:message></r:notification>"
    body = begin + b"x" * (octets - len(begin) - len(finish)) + finish
    return request(
        "NOTIFY", number, "RVP-Ack-Type: DeepOr\r\nRVP-Hop-Count: 1\r\nContent-Type: text/xml\r\n", body
    )


def sign_in(number: int) -> bytes:
    """The SUBSCRIBE with which an old client that follows referrals begins."""
    return request(
        "SUBSCRIBE",
        number,
        "User-Agent: msmsgs/4.6.0.83\r\nNotification-Type: pragma/notify\r\nSubscription-Lifetime: 14400\r\n"
        "Call-Back: http://127.0.0.1:1863/\r\n",
    )


def parse_wrk(printed: str, cpu_seconds: float) -> Sample:
    """What C{requests.lua} says in the last line of wrk's output.

    @raise RuntimeError: it says nothing.
    """
    for line in reversed(printed.splitlines()):
        if line.startswith("{"):
            return _sample(line, cpu_seconds)
    raise RuntimeError(f"wrk says nothing that can be read: {printed[-500:]!r}")


def parse_report(line: str, cpu_seconds: float, *, told: bool = False) -> Sample:
    """What a C program of ours prints at its end.

    @param told: an operation is a notification that arrived, not what caused it.
    @raise RuntimeError: it is something else.
    """
    return _sample(line, cpu_seconds, "told" if told else "ops")


def _sample(line: str, cpu_seconds: float, operations: str = "ops") -> Sample:
    try:
        seen = json.loads(line)
        sample = Sample(
            ops=int(seen[operations]),
            seconds=float(seen["seconds"]),
            cpu_seconds=cpu_seconds,
            p50_us=float(seen["p50_us"]),
            p99_us=float(seen["p99_us"]),
            failures=int(seen["failures"]) + int(seen.get("refusals", 0)),
            late=int(seen.get("late", 0)),
        )
    except (ValueError, KeyError, TypeError) as problem:
        raise RuntimeError(f"a load program says {line!r}") from problem
    if not sample.ops or not sample.seconds:
        raise RuntimeError(f"not one operation ended well: {line.strip()}")
    return sample


def tls_version(place: str) -> str | None:
    """What a server agrees to speak with a client that speaks everything."""
    host, _, port = place.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        _unverified().wrap_socket(plain) as secure,
    ):
        return secure.version()


def ask(place: str, raw: bytes, *, tls: bool = False) -> tuple[int, str]:
    """Send one of these requests from here.

    @return: the status of the answer, and its C{Location}.
    """
    head, _, body = raw.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    method, target, _ = line.split(" ")
    host, _, port = place.rpartition(":")
    connection = (
        http.client.HTTPSConnection(host, int(port), timeout=30, context=_unverified())
        if tls
        else http.client.HTTPConnection(host, int(port), timeout=30)
    )
    try:
        headers = dict(field.split(": ", 1) for field in fields)
        connection.request(method, target, body=body, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Location", "")
    finally:
        connection.close()


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def with_wrk(
    served: Served, requests: Path, connections: int, *, tls: bool = False
) -> Callable[[float], Sample]:
    """Has wrk send the requests of a file that L{write_requests} made.

    @raise Missing: it is not installed.
    """
    wrk = program("wrk")

    def run(seconds: float) -> Sample:
        before = served.cpu_seconds()
        done = subprocess.run(
            [
                # wrk counts whole seconds
                *(
                    wrk,
                    "--threads",
                    "1",
                    "--connections",
                    str(connections),
                    "--duration",
                    f"{max(1, round(seconds))}s",
                ),
                *("--timeout", "10s", "--script", str(SOURCES / "requests.lua")),
                f"{'https' if tls else 'http'}://{served.place}/",
            ],
            env={**os.environ, "RVP_BENCH_REQUESTS": str(requests)},
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"wrk ended with {done.returncode}: {done.stderr[-500:]}")
        return parse_wrk(done.stdout, served.cpu_seconds() - before)

    return run


def write_requests(path: Path, requests: Sequence[bytes]) -> Path:
    """Write what C{requests.lua} reads."""
    path.write_bytes(b"".join(b"%d\n%b" % (len(each), each) for each in requests))
    return path


def built(servers: Servers, name: str) -> Path:
    """One of our C programs, built.

    @raise Missing: there is no compiler.
    @raise RuntimeError: it does not compile.
    """
    made = servers.folder / f"load-{name}"
    if not made.exists():
        command = [
            program("gcc"),
            "-O2",
            "-Wall",
            "-Wextra",
            "-D_GNU_SOURCE",
            "-o",
            str(made),
            f"{SOURCES}/{name}.c",
            "-lm",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}.c does not compile: {done.stderr[-1000:]}")
    return made


def with_program(
    served: Served, command: Sequence[str | Path], *, told: bool = False, people: int = 0
) -> Callable[[float], Sample]:
    """Has a C program of ours work on C{served}, anew in each round; setting up is not counted.

    @param told: see L{parse_report}.
    @param people: so many users are new in each round, since a home keeps what the last ones did.
    """
    turn = count()

    def run(seconds: float) -> Sample:
        arguments = [*(str(part) for part in command), "--target", served.place, "--seconds", str(seconds)]
        if people:
            arguments += ["--first", str(next(turn) * people)]
        with TemporaryFile("w+") as complaints:
            process = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
            )
            try:
                with process:
                    return _conduct(process, served, seconds, told)
            except RuntimeError as problem:
                complaints.seek(0)
                raise RuntimeError(f"{problem} {complaints.read()[-500:]}".strip()) from problem

    return run


def _conduct(process: subprocess.Popen[str], served: Served, seconds: float, told: bool) -> Sample:
    """See a load program through; however this ends, the program does."""
    assert process.stdin is not None
    try:
        _expect(process, "READY", PATIENCE_SECONDS)
        before = served.cpu_seconds()
        process.stdin.write("GO\n")
        process.stdin.flush()
        report = _expect(process, "{", seconds + 60)
        return parse_report(report, served.cpu_seconds() - before, told=told)
    finally:
        end(process)


def _expect(process: subprocess.Popen[str], start: str, seconds: float) -> str:
    """The next line of a load program, which is to begin with C{start}."""
    assert process.stdout is not None
    if not select([process.stdout], [], [], seconds)[0]:
        raise RuntimeError(f"a load program was not done within {seconds:.0f} s.")
    line = process.stdout.readline()
    if not line.startswith(start):
        raise RuntimeError(f"a load program ended early: {line}".strip())
    return line
