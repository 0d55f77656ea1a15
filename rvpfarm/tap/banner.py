"""What a farm tells the person who started it: who can log in, where everything is, and what to try."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rvpfarm.tap.plan import Member, Plan
from rvpfarm.tap.state import State, User

#: Shown where a password is not known.
UNKNOWN = "PASSWORD"

_CALL_BACK = "http://127.0.0.1:9900/"
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def render_banner(plan: Plan, users: Sequence[User], state: State, rvp: str, rvpfarm: str) -> str:
    """The banner.

    @param rvp: how to type the command C{rvp}; C{rvpfarm} likewise.
    """
    lines = [
        "",
        f"The farm is ready: {_count(plan.routers, 'router')}, {_count(plan.homes, 'home')}, and DNS for "
        f"{plan.mail_domain}.",
        "",
        *_table([_user_row(user) for user in users]),
        "",
        *_table([_member_row(member) for member in plan.members]),
        "",
        f"  state {state.path}, passwords in {state.passwords.name}, logs in {state.logs.name}/",
        "",
        *_examples(plan, users, state, rvp, rvpfarm),
        "",
        "Ctrl-C stops everything; started again, the farm comes back with its users and subscriptions.",
        "",
    ]
    return "\n".join(lines)


def _count(members: Sequence[Member], noun: str) -> str:
    """C{two routers}."""
    number = len(members)
    word = _NUMBERS[number] if number < len(_NUMBERS) else str(number)
    return f"{word} {noun}" if number == 1 else f"{word} {noun}s"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with their columns under each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _user_row(user: User) -> tuple[str, ...]:
    """One user."""
    password = user.password or "(changed since; RVPFARM_DEMO_PASSWORD=... sets a new one for all)"
    return user.address, password, f"on {user.home}" if user.enabled else f"disabled, on {user.home}"


def _member_row(member: Member) -> tuple[str, ...]:
    """One process."""
    where = f"{member.listen} (UDP and TCP)" if member.role == "dns" else f"http://{member.listen}"
    return member.name, where, member.host, f"metrics http://{member.metrics}/metrics"


def _examples(plan: Plan, users: Sequence[User], state: State, rvp: str, rvpfarm: str) -> list[str]:
    """Five lines that work when they are pasted into another terminal."""
    here, there = users[0], users[1 % len(users)]
    dns = f"--dns {plan.nameserver.listen}"

    def run(user: User) -> str:
        """The beginning of a command line of C{rvp}."""
        return f"RVP_PASSWORD={_password(user)} {shlex.quote(rvp)} --as {user.address} {dns}"

    return [
        f"Log {here.alias} in with curl:",
        f"  {_curl_login(plan, here)}",
        f"Watch {here.alias} as {there.alias} (leave it running):",
        f"  {run(there)} watch {here.address}",
        f"Send {there.alias} a message, which appears where {there.alias} is watching:",
        f"  {run(here)} send {there.address} 'Hello from {here.alias}'",
        "See how all servers are:",
        f"  {shlex.join([rvpfarm, '--directory', state.directory, 'status'])}",
        "Look at the metrics:",
        f"  curl -s http://{plan.routers[0].metrics}/metrics | grep '^rvp_'",
    ]


def _password(user: User) -> str:
    """The password for a command line."""
    return shlex.quote(user.password or UNKNOWN)


def _curl_login(plan: Plan, user: User) -> str:
    """A login by curl, which finds names under C{localhost} at 127.0.0.1 by itself, and no others."""
    router = plan.routers[0].listen
    server = f"{plan.im_domain}:{router.port}"
    words = ["curl", "--digest", "-u", f"{user.alias}:{user.password or UNKNOWN}", "-i", "-X", "SUBSCRIBE"]
    if router.host != "127.0.0.1" or not plan.im_domain.endswith(".localhost"):
        words += ["--resolve", f"{server}:{router.host}"]
    for header in (
        "Notification-Type: pragma/notify",
        "Subscription-Lifetime: 14400",
        f"Call-Back: {_CALL_BACK}",
    ):
        words += ["-H", header]
    words.append(f"http://{server}/instmsg/aliases/{user.alias}")
    return shlex.join(words)
