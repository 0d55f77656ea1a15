"""What the answers of a farm's servers come to, and how they are asked for."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.asking import ANSWER_LIMIT, ask, ask_all
from rvpfarm.admin.status import (
    HomeView,
    NoPage,
    Page,
    Place,
    Report,
    further_places,
    judge,
    places_of,
    read_page,
)
from rvpfarm.directory.model import Home, Router
from tests.support.directory import make_farm

HS1 = Home("1", "hs1", "hs1.fabrik.example", 80, 8081, metrics="192.0.2.11:9464")
HS2 = Home("2", "hs2", "hs2.fabrik.example", 80, 8081, metrics="[2001:db8::12]:9464")
R1 = Router("3", "r1", "im.fabrik.example", 80, metrics="192.0.2.1:9464")
R2 = Router("4", "r2", "im.fabrik.example", 80, metrics="192.0.2.2:9464")
FARM = make_farm(homes=(HS2, HS1), routers=(R2, R1))
UP, DOWN = HomeView("up"), HomeView("down")


def page(server: Home | Router, **fields: object) -> Page:
    """What a server says when all is well."""
    role = "home" if isinstance(server, Home) else "router"
    usual = Page(
        role, server.name, "1.0", ready=True, homes={"hs1": UP, "hs2": UP} if role == "router" else {}
    )
    return replace(usual, **fields)  # type: ignore[arg-type]


def report(*pages: tuple[Home | Router, Page | str]) -> Report:
    """The report, when these servers answered like that and all others as usual."""
    answers: dict[str, Page | str] = {server.name: page(server) for server in (HS1, HS2, R1, R2)}
    answers |= {server.name: answer for server, answer in pages}
    places, unknown = places_of((HS1, HS2, R1, R2))
    return judge(FARM, [(place, answers[place.name]) for place in places], unknown)


class PlacesTests(SynchronousTestCase):
    """The directory says where to ask."""

    def test_places(self) -> None:
        """IPv4, IPv6 and names; where nothing is recorded nobody can be asked."""
        nowhere = replace(R2, metrics="")
        places, unknown = places_of(
            (HS2, replace(R1, metrics="r1.fabrik.example:1", state="draining"), nowhere)
        )
        self.assertEqual(
            places,
            [
                Place("home", "hs2", "2001:db8::12", 9464),
                Place("router", "r1", "r1.fabrik.example", 1, draining=True),
            ],
        )
        self.assertEqual((str(places[0]), unknown), ("[2001:db8::12]:9464", [nowhere]))

    def test_further(self) -> None:
        """A server of several processes has the others at the ports that follow; their number is bounded."""
        place = Place("router", "r1", "192.0.2.1", 9464)
        self.assertEqual(further_places(place, page(R1)), [])
        others = further_places(place, page(R1, workers=3))
        self.assertEqual([(other.port, other.title) for other in others], [(9465, "r1/1"), (9466, "r1/2")])
        self.assertEqual(len(further_places(place, page(R1, workers=10**9))), 63)
        self.assertEqual(further_places(replace(place, port=65535), page(R1, workers=3)), [])


class PageTests(SynchronousTestCase):
    """What is said is believed only as far as it makes sense."""

    def test_whole(self) -> None:
        """A page with everything."""
        said = {
            "role": "router",
            "name": "r1",
            "version": "0.1.0",
            "pid": 7,
            "started": 1000.5,
            "uptime_seconds": 3,
            "ready": False,
            "reasons": ["no home is up"],
            "draining": True,
            "workers": 2,
            "connections": 4,
            "in_work": 5,
            "users_online": 6,
            "directory": {"staleness_seconds": 0.5},
            "homes": [
                {"name": "hs1", "state": "up", "circuit": "open", "flapping": True, "since_seconds": 8},
                {"name": "hs2", "state": "nonsense"},
            ],
        }
        self.assertEqual(
            read_page(json.dumps(said).encode()),
            Page(
                role="router",
                name="r1",
                version="0.1.0",
                ready=False,
                reasons=("no home is up",),
                draining=True,
                pid=7,
                started=1000.5,
                uptime_seconds=3,
                connections=4,
                in_work=5,
                users_online=6,
                staleness_seconds=0.5,
                workers=2,
                homes={"hs1": HomeView("up", True, True, 8), "hs2": HomeView("unknown")},
            ),
        )

    def test_nonsense(self) -> None:
        """Anything of the wrong kind is as if it were not said, and control characters reach no terminal."""
        said = {
            "role": "router",
            "name": "r\x1b[2J",
            "version": 7,
            "ready": "yes",
            "reasons": {"a": 1},
            "connections": "many",
            "in_work": True,
            "started": 1e300,
            "directory": [],
            "homes": [1, {"name": 7}, {"state": "up"}],
            "workers": -3,
        }
        read = read_page(json.dumps(said).encode())
        self.assertEqual(read, Page("router", "r?[2J", "unknown", ready=False))
        self.assertEqual(read_page(b'{"role": "home", "in_work": 1e999, "pid": NaN}').in_work, None)

    def test_none(self) -> None:
        """What is no page is said to be none."""
        for body in (b"", b"<html>", b"[]", b"7", b"{}", b'{"role": 3}', b"[" * 100_000, b"\xff\xfe"):
            self.assertRaises(NoPage, read_page, body)


class ReportTests(SynchronousTestCase):
    """What is wrong is said, and nothing else."""

    def test_well(self) -> None:
        """Routers come first, each by name; nothing is wrong."""
        whole = report()
        self.assertEqual(
            [(server.name, server.words) for server in whole.servers],
            [("r1", "ready"), ("r2", "ready"), ("hs1", "ready"), ("hs2", "ready")],
        )
        self.assertEqual([home.words for home in whole.homes], ["up at r1, r2"] * 2)
        self.assertEqual((whole.versions, whole.problems), (("1.0",), ()))

    def test_servers(self) -> None:
        """A server that is not ready says why; one that does not answer, or is somebody else, is named."""
        whole = report(
            (R1, page(R1, ready=False, reasons=("no home is up", "not listening"))),
            (R2, page(R1)),
            (HS1, "connection refused"),
        )
        self.assertEqual(
            whole.problems,
            (
                "router r1: not ready: no home is up; not listening",
                "router r2 at 192.0.2.2:9464: no answer: router r1 answers there; "
                "is the place in the directory right?",
                "home hs1 at 192.0.2.11:9464: no answer: connection refused",
            ),
        )

    def test_several_homes_in_one_process(self) -> None:
        """A process may be several homes."""
        self.assertEqual(report((HS1, page(HS2, names=("hs2", "hs1")))).problems, ())

    def test_draining(self) -> None:
        """A server that is being taken away is not ready on purpose, whoever says so."""
        whole = report((R1, page(R1, ready=False, draining=True)))
        self.assertEqual((whole.servers[0].words, whole.problems), ("draining", ()))
        place = Place("router", "r1", "192.0.2.1", 9464, draining=True)
        self.assertEqual(judge(FARM, [(place, page(R1, ready=False))]).servers[0].state, "draining")

    def test_unknown_place(self) -> None:
        """Whose place nobody knows is named with the remedy."""
        whole = judge(FARM, [], [HS1])
        self.assertEqual(whole.servers[0].words, "unknown place")
        self.assertIn("rvpfarm home set hs1 --metrics ADDRESS:PORT", whole.problems[0])
        self.assertEqual(whole.homes, ())

    def test_disagreement(self) -> None:
        """Routers that see a home differently are told apart; a home that is down for all is so at all."""
        whole = report((R2, page(R2, homes={"hs1": DOWN, "hs2": DOWN})), (R1, page(R1, homes={"hs1": UP})))
        hs1, hs2 = whole.homes
        self.assertEqual((hs1.words, hs1.disagree), ("up at r1; down at r2", True))
        self.assertEqual((hs2.words, hs2.disagree), ("down at r2", False))
        self.assertEqual(whole.problems, ("home hs1: up at r1; down at r2", "home hs2: down at r2"))

    def test_kinds_of_trouble(self) -> None:
        """Held back calls, coming and going and not knowing are trouble; a planned absence is none."""
        views = {
            "held": HomeView("up", open=True),
            "flaps": HomeView("up", flapping=True),
            "new": HomeView("unknown"),
            "away": HomeView("leaving"),
        }
        farm = make_farm(
            homes=[Home(name, name, f"{name}.fabrik.example", 80, 8081) for name in views], routers=[R1]
        )
        place = Place("router", "r1", "192.0.2.1", 9464)
        whole = judge(farm, [(place, page(R1, homes=views))])
        self.assertEqual(
            whole.problems,
            (
                "home flaps: up, comes and goes at r1",
                "home held: up, calls held back at r1",
                "home new: not known yet at r1",
            ),
        )

    def test_nobody_says(self) -> None:
        """A home that routers do not mention is new to them; that alone is no trouble."""
        whole = report((R1, page(R1, homes={})), (R2, page(R2, homes={})))
        self.assertEqual(({home.words for home in whole.homes}, whole.problems), ({"no router says"}, ()))

    def test_versions(self) -> None:
        """A mixture of versions is pointed out, with who runs which (product D19)."""
        whole = report((HS2, page(HS2, version="1.1")))
        self.assertEqual(whole.versions, ("1.0", "1.1"))
        self.assertEqual(whole.problems, ("the farm runs 2 versions: 1.0 at r1, r2, hs1, 1.1 at hs2",))

    def test_workers(self) -> None:
        """Each process of a server has a line of its own."""
        place = Place("router", "r1", "192.0.2.1", 9464)
        whole = judge(FARM, [(place, page(R1)), (replace(place, port=9465, worker=1), "it took too long")])
        self.assertEqual([server.title for server in whole.servers], ["r1", "r1/1"])
        self.assertEqual(whole.problems, ("router r1/1 at 192.0.2.1:9465: no answer: it took too long",))


class Hostile:
    """A server that answers whatever it is told to, once for each connection, until it is closed."""

    def __init__(self, *pieces: bytes, pause_seconds: float = 0.0, endless: bool = False) -> None:
        self._pieces, self._pause, self._endless = pieces, pause_seconds, endless
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = Place("router", "r1", "127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """No more."""
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for piece in self._pieces:
                connection.sendall(piece)
                self._over.wait(self._pause)
            while self._endless and not self._over.is_set():
                connection.sendall(self._pieces[-1])
                self._over.wait(self._pause)


class AskTests(SynchronousTestCase):
    """Whatever answers, the asker is done in time and in little memory."""

    HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"

    def hostile(self, *pieces: bytes, **how: object) -> Place:
        """A server that answers like this."""
        server = Hostile(*pieces, **how)  # type: ignore[arg-type]
        self.addCleanup(server.close)
        return server.place

    def test_answer(self) -> None:
        """A page is read, in whatever pieces and however its length is told."""
        body = b'{"role": "router", "name": "r1", "version": "1.0", "ready": true}'
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        for pieces in ((self.HEAD + body,), (self.HEAD, body[:9], body[9:]), (chunked % (len(body), body),)):
            self.assertEqual(ask(self.hostile(*pieces), 30), Page("router", "r1", "1.0", ready=True))

    def test_others(self) -> None:
        """What is no status page is told in words."""
        for answer, words in (
            (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
            (b"", "does not speak HTTP"),
            (b"HTTP/1.0 404 Not Found\r\n\r\n/metrics is here", "older rvpfarm"),
            (b"HTTP/1.0 500 Oops\r\n\r\n", "answers 500"),
            (self.HEAD + b"<html>", "no JSON"),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{", "middle of its answer"),
            (b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 10_000, "does not speak HTTP"),
        ):
            self.assertIn(words, str(ask(self.hostile(answer), 30)))

    def test_nobody(self) -> None:
        """Where nobody listens that is said at once."""
        place = self.hostile(b"")
        with socket.create_server(("127.0.0.1", 0)) as closed:
            place = replace(place, port=closed.getsockname()[1])
        self.assertEqual(ask(place, 30), "connection refused")

    def test_flood(self) -> None:
        """An answer without end is read to its limit and no further."""
        place = self.hostile(self.HEAD, b"[" * 65536, endless=True)
        self.assertIn(f"larger than {ANSWER_LIMIT} octets", str(ask(place, 30)))

    def test_drip(self) -> None:
        """One octet now and then buys no time."""
        place = self.hostile(self.HEAD, b" ", pause_seconds=0.05, endless=True)
        self.assertEqual(ask(place, 0.3), "it took too long")

    def test_silence(self) -> None:
        """Nor does saying nothing."""
        self.assertEqual(ask(self.hostile(b"", pause_seconds=30), 0.1), "it took too long")

    def test_many(self) -> None:
        """Many are asked at once, each once; those that are silent do not hold up the others."""
        body = b'{"role": "router", "name": "r1", "ready": true}'
        good, silent = self.hostile(self.HEAD + body), self.hostile(b"", pause_seconds=30)
        places = [replace(good, worker=number) for number in range(40)]
        places += [replace(silent, worker=100 + number) for number in range(20)]
        answers = ask_all([*places, *places], 2)
        self.assertEqual(list(answers), places)
        self.assertEqual(sum(isinstance(answer, Page) for answer in answers.values()), 40)
        self.assertEqual(ask_all([], 1), {})
