"""The rows of homes: messages and presence against ejabberd and Prosody, and the whole way through a farm."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from tests.bench import load, peers
from tests.bench.farm import HOST, bench_farm
from tests.bench.rows import OURS, Lineup, Row, Sample, Scale, Target
from tests.bench.serving import Served, Servers, free_range

#: ejabberd, when nobody acknowledges anything.
UNACKNOWLEDGED = "ejabberd, no receipt"
STRAIGHT = "straight to the home"


def rows() -> list[Row]:
    """The rows of this kind."""
    return [
        Row(
            4,
            "home: acknowledged delivery of a message",
            "message",
            _messages,
            {"ejabberd": Target(1.4), "prosody": Target(4.0), UNACKNOWLEDGED: Target(None, 1.0)},
        ),
        Row(
            5,
            "home: a presence change told to 200 watchers",
            "notification",
            _presence,
            {"ejabberd": Target(2.0, 2.6), "prosody": Target(4.0)},
        ),
        Row(
            6,
            "whole path: client, router, home, call-back and back",
            "message",
            _whole_path,
            {},
            added=STRAIGHT,
        ),
    ]


def _messages(servers: Servers, scale: Scale, stack: ExitStack) -> Lineup:
    """Senders who each wait for the answer before they send the next message."""
    count = ("--count", str(scale.senders))

    def ours() -> Callable[[float], Sample]:
        sink = ("--sink", f"{HOST}:{free_range(2 * scale.senders)}")
        home = _home(servers, 2 * scale.senders, stack)
        return load.with_program(home, [load.built(servers, "rvp"), "deliver", *count, *sink])

    def xmpp(server: Served, ack: str) -> Callable[[float], Sample]:
        command = [load.built(servers, "xmpp"), "deliver", *count, "--ack", ack]
        return load.with_program(server, command)

    lineup = Lineup()
    lineup.add(OURS, ours)
    lineup.add("ejabberd", lambda: xmpp(peers.ejabberd(servers), "receipt"))
    lineup.add(UNACKNOWLEDGED, lambda: xmpp(peers.ejabberd(servers, "ejabberd-2"), "none"))
    lineup.add("prosody", lambda: xmpp(peers.prosody(servers), "receipt"))
    return lineup


def _presence(servers: Servers, scale: Scale, stack: ExitStack) -> Lineup:
    """Owners who change state at the same rate everywhere, before watchers who each watch them all."""
    people = scale.owners + scale.watchers
    what = ("presence", "--count", str(scale.owners), "--watchers", str(scale.watchers))
    rate = ("--rate", str(scale.changes))

    def ours() -> Callable[[float], Sample]:
        sink = ("--sink", f"{HOST}:{free_range(people)}")
        home = _home(servers, people * scale.turns, stack)
        command = [load.built(servers, "rvp"), *what, *rate, *sink]
        return load.with_program(home, command, told=True, people=people)

    def xmpp(server: Served) -> Callable[[float], Sample]:
        return load.with_program(server, [load.built(servers, "xmpp"), *what, *rate], told=True)

    lineup = Lineup()
    lineup.add(OURS, ours)
    lineup.add("ejabberd", lambda: xmpp(peers.ejabberd(servers)))
    lineup.add("prosody", lambda: xmpp(peers.prosody(servers)))
    return lineup


def _whole_path(servers: Servers, scale: Scale, stack: ExitStack) -> Lineup:
    """The same messages at the same rate, once through a router and once straight to the home."""
    farm = stack.enter_context(bench_farm(servers.folder, ("home1",), ("router1",)))
    farm.policy("connections-per-source", "8192")
    farm.add_users(2 * scale.senders)
    home, router = farm.start("home1"), farm.start("router1")
    command = [
        *(load.built(servers, "rvp"), "deliver", "--count", str(scale.senders)),
        *("--rate", str(scale.messages), "--sink", f"{HOST}:{free_range(2 * scale.senders)}"),
    ]
    lineup = Lineup()
    lineup.add(OURS, lambda: load.with_program(Served(router.place, (router.pid, home.pid)), command))
    lineup.add(STRAIGHT, lambda: load.with_program(Served(home.place, (home.pid,)), command))
    return lineup


def _home(servers: Servers, users: int, stack: ExitStack) -> Served:
    """A home with its users."""
    farm = stack.enter_context(bench_farm(servers.folder))
    farm.policy("connections-per-source", "8192")
    farm.add_users(users)
    home = farm.start("home1")
    return Served(home.place, (home.pid,))
