"""Three routers and three homes, each on a machine of its own as far as the network can tell, and who calls them.

Where namespaces can be made, each process has one with one address, joined to the others by a bridge in another
one; everything is inside namespaces that are made here and are gone afterwards.  Elsewhere each process has an
address of the loopback network, and links cannot be cut.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from rvpfarm.admin import handlers
from tests.support.homes import leased, message
from tests.support.processes import BIN, PATIENCE_SECONDS, CallBack, run, scratch, wait_for

IM, MAIL = "im.faults.example", "faults.example"
PORT, LINK_PORT, METRICS_PORT = 8080, 8081, 9464
ROUTERS, HOMES = ("r1", "r2", "r3"), ("hs1", "hs2", "hs3")
#: Two users of each home; who sends is homed elsewhere than who receives.
USERS = tuple(f"u{number}" for number in range(6))
_PREFIX = "rvpf"
_CLONE_NEWNET = 0x40000000


class Net:
    """An address for everybody.

    @ivar apart: everybody has a namespace.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._stack = ExitStack()
        self.apart = os.geteuid() == 0 and shutil.which("ip") is not None and self._try()
        base = "10.77.0" if self.apart else f"127.77.{os.getpid() & 127}"
        self.address = {name: f"{base}.{number}" for number, name in enumerate(names, 11)}
        if self.apart:
            self._build(names)

    def close(self) -> None:
        """Everything is gone."""
        self._stack.close()

    def inside(self, name: str) -> list[str]:
        """What a command line begins with to run where C{name} is."""
        return ["ip", "netns", "exec", self._space(name)] if self.apart else []

    @contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """This thread opens its sockets where C{name} is."""
        if not self.apart:
            yield
            return
        before = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        try:
            self.enter(name)
            yield
        finally:
            _set(before)
            os.close(before)

    def enter(self, name: str) -> None:
        """The same, for the rest of the thread's life."""
        if self.apart:
            there = os.open(f"/run/netns/{self._space(name)}", os.O_RDONLY)
            _set(there)
            os.close(there)

    def cut(self, name: str) -> None:
        """Nothing gets through to C{name} any more, or from there."""
        _ip("-n", self._space("hub"), "link", "set", f"to-{name}", "down")

    def mend(self, name: str) -> None:
        """All gets through again."""
        _ip("-n", self._space("hub"), "link", "set", f"to-{name}", "up")

    def _space(self, name: str) -> str:
        return f"{_PREFIX}{os.getpid()}-{name}"

    def _try(self) -> bool:
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "add", self._space("hub"))
            self._stack.callback(_ip, "netns", "del", self._space("hub"))
            return True
        return False

    def _build(self, names: Sequence[str]) -> None:
        hub = self._space("hub")
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "up")
        for name in names:
            space = self._space(name)
            _ip("netns", "add", space)
            self._stack.callback(_ip, "netns", "del", space)
            _ip("-n", hub, "link", "add", f"to-{name}", "type", "veth", "peer", "eth0", "netns", space)
            _ip("-n", hub, "link", "set", f"to-{name}", "master", "bridge", "up")
            _ip("-n", space, "address", "add", f"{self.address[name]}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=PATIENCE_SECONDS)


def _set(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class FaultFarm:
    """The farm, its directory, and a place where its state is.

    @ivar net: where everybody is.
    @ivar small: the home whose disk is small and can be filled, if one can be mounted.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.state = self._stack.enter_context(scratch())
        self.net = Net((*ROUTERS, *HOMES, "people"))
        self._stack.callback(self.net.close)
        self.directory = self.state / "directory.sqlite"
        self._make_directory()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.small = ""
        self._mount(HOMES[-1])
        self._stack.callback(self._end_all)
        for name in (*HOMES, *ROUTERS):
            self.start(name)
        for name in (*HOMES, *ROUTERS):
            self.await_ready(name)

    def close(self) -> None:
        """Nothing is left."""
        self._stack.close()

    def start(self, name: str) -> None:
        """Start a member."""
        plugin = "rvp-home" if name in HOMES else "rvp-router"
        options = ["--state-dir", str(self.state / name)] if name in HOMES else []
        with (self.state / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [
                    *self.net.inside(name),
                    *(str(BIN / "twistd"), "--nodaemon", "--pidfile="),
                    *("--logger", "rvpfarm.observe.logs.json_lines", plugin),
                    *("--directory", f"sqlite:///{self.directory}", "--name", name, *options),
                    *("--metrics", f"{self.net.address[name]}:{METRICS_PORT}"),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "RVPFARM_STOP_AT_EOF": "1", "RVPFARM_DRAIN_GRACE": "1"},
            )

    def end(self, name: str, number: int) -> None:
        """Send a member a signal and wait for its end."""
        process = self._processes[name]
        process.send_signal(number)
        process.wait(PATIENCE_SECONDS)
        assert process.stdin is not None
        process.stdin.close()

    def await_ready(self, name: str) -> None:
        """Wait until a member says that it is ready."""

        def ready() -> bool:
            place = http.client.HTTPConnection(self.net.address[name], METRICS_PORT, timeout=5)
            with self.net.entered("people"), closing(place), suppress(OSError, http.client.HTTPException):
                place.request("GET", "/readyz")
                with place.getresponse() as answer:
                    return answer.status == 200
            return False

        wait_for(f"{name} being ready", ready)

    def log(self, name: str) -> str:
        """The end of what a member has logged."""
        return (self.state / f"{name}.log").read_text("utf-8", "replace")[-3000:]

    def _make_directory(self) -> None:
        store, _ = handlers.prepare(f"sqlite:///{self.directory}", self.state / "farm.key")
        try:
            handlers.init(store)
            handlers.add_domain(store, IM, [MAIL])
            handlers.set_policy(store, "authentication", "off")
            for name in HOMES:
                handlers.create_home(store, name, f"{name}.{MAIL}", PORT, LINK_PORT, self.net.address[name])
            for name in ROUTERS:
                handlers.create_router(store, name, f"{name}.{MAIL}", PORT, self.net.address[name])
            for number, user in enumerate(USERS):
                handlers.enable_user(store, f"{user}@{MAIL}", HOMES[number % len(HOMES)])
        finally:
            store.close()

    def _mount(self, name: str) -> None:
        """Give a home a disk of its own, and a small one."""
        place = self.state / name
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
        if os.geteuid() == 0 and run(*command).status == 0:
            self._stack.callback(run, "umount", "-l", place)
            self.small = name

    def _end_all(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdin is not None
            process.stdin.close()


def url_of(user: str) -> str:
    """The logical URL of a user."""
    return f"http://{IM}/instmsg/aliases/{user}"


def _every_call(sender: str) -> dict[str, str]:
    """The headers of every call of somebody's."""
    return {
        "Host": f"{IM}:{PORT}",
        "RVP-Notifications-Version": "0.2",
        "RVP-From-Principal": url_of(sender),
    }


class Person(threading.Thread):
    """Sends messages, changes state, asks and watches, without a pause, through any router that takes a connection.

    What was not answered is not repeated; only a connection that nobody took is tried at the next router.

    @ivar outcomes: how calls ended, by method: a status, C{"of somebody else"} if the answer is not about whoever
        was asked for, or how the connection broke.
    @ivar acknowledged: the messages that were answered 2xx.
    @ivar refused: the last answers that something is broken: what was asked for whom, through which router, and what
        was said.
    @ivar read: the body of the last answer.
    @ivar states: those of which one must be how the sender is: the last one that was acknowledged, and those that
        were tried since.
    """

    def __init__(self, farm: FaultFarm, sender: str, recipient: str, first: int) -> None:
        super().__init__(daemon=True)
        self._farm, self.sender, self.recipient = farm, sender, recipient
        self._routers = [farm.net.address[name] for name in ROUTERS]
        self._turn = first
        self._connection: http.client.HTTPConnection | None = None
        self.read = ""
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.refused: deque[tuple[str, ...]] = deque(maxlen=3)
        self.acknowledged: list[str] = []
        self.states: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Until told that it is over."""
        self._farm.net.enter("people")
        number = 0
        while not self.over.is_set():
            number += 1
            text = f"{self.sender}-{number}."
            body = message(url_of(self.sender), url_of(self.recipient), text).replace("im.fabrik.example", IM)
            if self.call("NOTIFY", self.recipient, body, {"RVP-Ack-Type": "DeepOr"}) == 200:
                self.acknowledged.append(text)
            state = "online" if number % 2 else "busy"
            changed = self.call("PROPPATCH", self.sender, leased(state)) == 207
            self.states = [state] if changed else [*self.states, state]
            self.call("PROPFIND", self.recipient, _QUESTION, {"Depth": "0"})
            time.sleep(0.005)
        self.hang_up()

    def call(self, method: str, whose: str, body: str, more: dict[str, str] | None = None) -> int:
        """Make a call.

        @return: its status, 0 without one.
        """
        octets = body.encode()
        headers = {
            **_every_call(self.sender),
            "Content-Type": "text/xml",
            "Content-Length": str(len(octets)),
            **(more or {}),
        }
        outcome, status = "no router", 0
        try:
            connection = self._connect()
            if connection is not None:
                connection.request(method, f"/instmsg/aliases/{whose}", octets, headers)
                answer = connection.getresponse()
                self.read = answer.read().decode()
                status = answer.status
                if status >= 500:
                    self.refused.append(
                        (method, whose, self._connection.host, str(answer.headers), self.read)
                    )
                own = status != 207 or url_of(whose) in self.read
                outcome = str(status) if own else "of somebody else"
        except (OSError, http.client.HTTPException) as problem:
            outcome = type(problem).__name__
            self.hang_up()
        self.outcomes[method, outcome] += 1
        return status

    def _connect(self) -> http.client.HTTPConnection | None:
        if self._connection is not None and self._connection.sock is not None:
            return self._connection
        for _ in self._routers:
            self._turn += 1
            place = self._routers[self._turn % len(self._routers)]
            self._connection = http.client.HTTPConnection(place, PORT, timeout=40)
            with suppress(OSError):
                self._connection.connect()
                return self._connection
        return None

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_STATE = "<?xml version='1.0'?><d:propfind xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/'><d:prop><r:state/></d:prop></d:propfind>"
_QUESTION = "<?xml version='1.0'?><d:propfind xmlns:d='DAV:'><d:prop><d:displayname/></d:prop></d:propfind>"


class Town:
    """People who call, where their messages arrive, and what they were promised.

    @ivar people: all who call.
    """

    def __init__(self, farm: FaultFarm) -> None:
        self._farm = farm
        host = farm.net.address["people"]
        with farm.net.entered("people"):
            self._call_backs = {user: CallBack(host=host) for user in USERS}
        self._clerk = Person(farm, USERS[0], USERS[0], 0)
        self._numbers: dict[tuple[str, str], str] = {}
        with farm.net.entered("people"):
            for user in USERS:
                wait_for(f"the login of {user}", lambda user=user: self._subscribe(user, user))
                for other in USERS:
                    if other != user:
                        wait_for(
                            "a subscription", lambda user=user, other=other: self._subscribe(user, other)
                        )
        pairs = zip(USERS, (*USERS[1:], USERS[0]), strict=True)
        self.people = [Person(farm, one, other, number) for number, (one, other) in enumerate(pairs)]
        for person in self.people:
            person.start()

    def close(self) -> None:
        """Nobody calls any more; told again, nothing happens."""
        self._clerk.hang_up()
        for person in self.people:
            person.over.set()
        for person in self.people:
            person.join(PATIENCE_SECONDS)
        for each in self._call_backs.values():
            each.close()

    def outcomes(self) -> Counter[tuple[str, str]]:
        """How calls ended so far."""
        return sum((Counter(dict(person.outcomes)) for person in self.people), Counter())

    def refused(self) -> list[tuple[str, ...]]:
        """What people were last told of something broken."""
        return [each for person in self.people for each in person.refused]

    def answered(self) -> int:
        """How many calls were answered 2xx so far."""
        return sum(count for (_, outcome), count in self.outcomes().items() if outcome[:1] == "2")

    def await_more(self, count: int) -> None:
        """Wait for so many more good answers to everybody's calls."""
        goal = self.answered() + count
        wait_for(f"{count} more answers", lambda: self.answered() >= goal)

    def subscriptions_lost(self) -> list[tuple[str, str]]:
        """The subscriptions that were promised and cannot be renewed."""
        lost = []
        with self._farm.net.entered("people"):
            for (user, other), number in self._numbers.items():
                wait_for("an answer that says what is", lambda: self._settled(user, other, number))  # noqa: B023
                if not self._subscribe(user, other, number):
                    lost.append((user, other))
        return lost

    def _settled(self, user: str, other: str, number: str) -> bool:
        """Is the answer another one than that it cannot be said now?"""
        return self._ask_subscription(user, other, number)[0] not in (0, 503, 504)

    def messages_lost(self) -> list[str]:
        """The messages that were acknowledged and did not arrive; to be asked when nobody calls any more."""
        heard = {user: b"".join(each.body for each in back.heard) for user, back in self._call_backs.items()}
        return [
            text
            for person in self.people
            for text in person.acknowledged
            if text.encode() not in heard[person.recipient]
        ]

    def states_lost(self) -> dict[str, tuple[str, list[str]]]:
        """Who is not as he last said, and was told that he is; to be asked when nobody calls any more."""
        lost = {}
        with self._farm.net.entered("people"):
            for person in self.people:
                self._clerk.hang_up()
                self._clerk.call("PROPFIND", person.sender, _STATE, {"Depth": "0"})
                told = re.search(r"<r:value><r:(\S+?)/>|<r:state><r:(\S+?)/>", self._clerk.read)
                state = (told[1] or told[2]) if told else self._clerk.read
                if state not in person.states:
                    lost[person.sender] = (state, person.states)
        return lost

    def statuses_of(self, whose: str) -> set[int]:
        """How a question about somebody is answered, by any of the routers."""
        statuses = set()
        with self._farm.net.entered("people"):
            for _ in ROUTERS:
                self._clerk.hang_up()
                statuses.add(self._clerk.call("PROPFIND", whose, _QUESTION, {"Depth": "0"}))
        return statuses

    def subscribe_anew(self, user: str, other: str) -> int:
        """The status of a new subscription."""
        with self._farm.net.entered("people"):
            return self._ask_subscription(user, other, "")[0]

    def _subscribe(self, user: str, other: str, number: str = "") -> bool:
        status, got = self._ask_subscription(user, other, number)
        if status // 100 == 2 and not number:
            self._numbers[user, other] = got
        return status // 100 == 2

    def _ask_subscription(self, user: str, other: str, number: str) -> tuple[int, str]:
        headers = {
            **_every_call(user),
            "Subscription-Lifetime": "14400",
            "Content-Length": "0",
        }
        if number:
            headers["Subscription-Id"] = number
        else:
            headers["Notification-Type"] = "pragma/notify" if user == other else "update/propchange"
            headers["Call-Back"] = self._call_backs[user].url if user == other else url_of(user)
        for router in ROUTERS:
            asked = http.client.HTTPConnection(self._farm.net.address[router], PORT, timeout=40)
            with closing(asked), suppress(OSError, http.client.HTTPException):
                asked.request("SUBSCRIBE", f"/instmsg/aliases/{other}", headers=headers)
                with asked.getresponse() as answer:
                    answer.read()
                    return answer.status, answer.getheader("Subscription-Id", "")
        return 0, ""


def fill(place: Path) -> Path:
    """Fill the disk that C{place} is on.

    @return: what fills it.
    """
    filler = place / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(65536))
            file.flush()
    return filler


KILL, TERM = signal.SIGKILL, signal.SIGTERM
