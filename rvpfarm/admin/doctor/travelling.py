"""Walks through the farm as clients do, with probe users, one on each home, that it can make (shell)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong

from rvpfarm.admin import handlers
from rvpfarm.admin.checks import Refused, domain_named
from rvpfarm.admin.doctor.journey import Journey, Step
from rvpfarm.admin.ldap import asking, ldap_of
from rvpfarm.client.errors import NotDone, SendFailed, WrongPassword
from rvpfarm.client.notices import Message, Presence
from rvpfarm.client.session import Session
from rvpfarm.directory.model import DirectoryUnavailable, Farm, Router
from rvpfarm.directory.store import Store
from rvpfarm.discovery.zone import active, edge
from rvpfarm.protocol.calls import Unreachable

#: What the probe users are called, before the name of their home.
PREFIX = "doctor-probe-"

#: The least time that any step has, in seconds: a message may have to be tried twice.
_STEP_SECONDS = 5.0

#: Homes that are walked between: every pair of them is tried, so this many squared.
_MOST_HOMES = 16


@dataclass(frozen=True, slots=True)
class ProbeUser:
    """Whom the doctor logs in.

    @ivar home: the name of the home.
    """

    home: str
    url: str
    password: str


def prepare(store: Store, path: Path, domain: str | None = None) -> tuple[int, int]:
    """Make a probe user on each home that has none yet, and keep their passwords in C{path}.

    @return: how many were made anew, and how many were there.
    @raise Refused: it cannot be done.
    """
    farm = handlers.farm_of(store)
    if not farm.domains or not farm.homes:
        raise Refused("the probe users need an IM domain and a home; make those first")
    name = next(iter(farm.domains)) if domain is None else domain_named(farm.domains, domain).name
    known = {user.home: user for user in read_probes(path)} if path.exists() else {}
    made = 0
    for home in sorted(farm.homes.values(), key=lambda home: home.name):
        alias = f"{PREFIX}{home.name}"
        with store.read() as reading:
            account = reading.account(f"{name}/instmsg/aliases/{alias}".lower())
        if account is not None and account.enabled and account.home == home.id and home.name in known:
            continue
        password = handlers.generate_password()
        if account is not None and account.enabled:
            handlers.set_password(store, account.address, password)
        else:
            account = handlers.enable_user(
                store, f"{alias}@{name}", home.name, name, f"Probe of {home.name}", password, form="im"
            )
        known[home.name] = ProbeUser(home.name, account.url, password)
        made += 1
    known = {home: user for home, user in known.items() if home in {one.name for one in farm.homes.values()}}
    _write_probes(path, known)
    return made, len(known) - made


def read_probes(path: Path) -> list[ProbeUser]:
    """The probe users that L{prepare} wrote.

    @raise Refused: there are none.
    """
    advice = f'"rvpfarm doctor prepare --probe-file {path}" makes it'
    try:
        if path.stat().st_mode & 0o077:
            raise Refused(f"others can read the passwords in {path}; chmod 600 it, and prepare it anew")
        said = json.loads(path.read_text())
        return [ProbeUser(one["home"], one["url"], one["password"]) for one in said["probes"]]
    except OSError as problem:
        raise Refused(f"cannot read {path}: {problem.strerror}; {advice}") from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise Refused(f"{path} has no probe users in it; {advice}") from problem


def _write_probes(path: Path, users: Mapping[str, ProbeUser]) -> None:
    content = {
        "probes": [
            {"home": one.home, "url": one.url, "password": one.password} for _, one in sorted(users.items())
        ]
    }
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump(content, file, indent=1)
    except OSError as problem:
        raise Refused(f"cannot write {path}: {problem.strerror}; give --probe-file another path") from problem


def travel(
    store: Store, farm: Farm, path: Path | None, dns: tuple[str, int] | None, seconds: float
) -> Journey:
    """Log the probe users in at every router, and have each home hear from each; ask LDAP where users come
    from there.

    @param dns: the DNS server to ask, as clients would; C{None} for this machine's.
    @raise Refused: nobody said who the probe users are.
    """
    if path is None:
        raise Refused('give --probe-file; "rvpfarm doctor prepare --probe-file PATH" makes the probe users')
    # late: it brings the reactor
    from rvpfarm.client.command import run_in_reactor

    journey = _Walk(farm, read_probes(path), dns, max(seconds, _STEP_SECONDS))
    problem = run_in_reactor(journey.walk)
    if problem is not None:
        raise Refused(f"the journey broke off: {problem or type(problem).__name__}") from problem
    step = _reach_ldap(store)
    if step is None:
        return Journey(tuple(journey.steps), (*journey.skipped, "LDAP: no users come from there"))
    return Journey((*journey.steps, step), tuple(journey.skipped))


def _reach_ldap(store: Store) -> Step | None:
    """Have an LDAP server let the reader in; C{None} where users do not come from LDAP."""
    if ldap_of(store) is None:
        return None
    began = time.monotonic()
    trouble = ""
    try:
        with asking(store) as (people, _):
            people.servers.reach()
    except (DirectoryUnavailable, Refused) as problem:
        trouble = str(problem)
    remedy = "rvpfarm ldap test USER, which tells each step"
    return Step("E06", "reach an LDAP server", trouble, remedy if trouble else "", time.monotonic() - began)


class _Walk:
    """One journey.

    @ivar steps: what was tried; C{skipped} what was not.
    """

    def __init__(
        self, farm: Farm, users: list[ProbeUser], dns: tuple[str, int] | None, seconds: float
    ) -> None:
        self._farm, self._seconds = farm, seconds
        self._dns = None if dns is None else f"[{dns[0]}]:{dns[1]}" if ":" in dns[0] else f"{dns[0]}:{dns[1]}"
        homes = {home.name for home in farm.homes.values()}
        self._users = [user for user in users if user.home in homes][:_MOST_HOMES]
        self.steps: list[Step] = []
        self.skipped = [
            f"home {name}: it has no probe user; run rvpfarm doctor prepare again"
            for name in sorted(homes - {user.home for user in self._users})
        ]
        self._heard: dict[tuple[str, str], Deferred[None]] = {}
        self._reactor: Any = None

    async def walk(self, reactor: Any) -> None:  # as the client's session has it
        """The whole of it."""
        self._reactor = reactor
        await self._try_routers()
        sessions: dict[str, Session] = {}
        try:
            for user in self._users:
                session = await self._log_in(user)
                if session is not None:
                    sessions[user.home] = session
            for home, session in sessions.items():
                for other, there in sessions.items():
                    await self._cross(home, session, other, there)
        finally:
            for session in sessions.values():
                await session.logout()

    async def _try_routers(self) -> None:
        """Each router takes a log-in, whatever the DNS leads to."""
        routers = [one for one in active(self._farm.routers.values()) if one in edge(self._farm)]
        for router in routers if self._users else ():
            where = _place(router)
            user = self._users[0]

            async def log_in(user: ProbeUser = user, where: str = where) -> None:
                session = await Session.open(
                    user.url, user.password, reactor=self._reactor, dns=self._dns, server=where
                )
                try:
                    await session.state_of(user.url)
                finally:
                    await session.close()

            remedy = f"rvpfarm status {router.name}; and see that {where} is reachable from clients"
            await self._step(
                "E05", f"reach home {user.home} by router {router.name} at {where}", log_in(), remedy
            )

    async def _log_in(self, user: ProbeUser) -> Session | None:
        """Find the farm as a client does, log in, and be called back."""
        found: list[Session] = []

        async def open_session() -> None:
            found.append(
                await Session.open(
                    user.url,
                    user.password,
                    reactor=self._reactor,
                    dns=self._dns,
                    on_message=lambda message: self._message(user.home, message),
                    on_presence=lambda presence: self._presence(user.home, presence),
                )
            )

        remedy = "rvpfarm dns check, and publish what it says"
        if not await self._step("D23", f"find the farm for {user.url} by DNS", open_session(), remedy):
            return None
        (session,) = found
        well = await self._step(
            "D04",
            f"log in a user without rights at home {user.home}",
            _wait(session.state_of(user.url)),
            f"rvpfarm doctor prepare, which gives it a new password; and see the log of {user.home}",
        )
        well = well and await self._step(
            "D06",
            f"subscribe at home {user.home}",
            _wait(session.login()),
            f"rvpfarm status {user.home}, and see its log",
        )
        well = well and await self._step(
            "D06",
            f"show a presence at home {user.home}",
            _wait(session.set_state("online", seconds=60)),
            f"rvpfarm status {user.home}: is its disk full?",
        )
        if well:
            return session
        await session.close()
        return None

    async def _cross(self, home: str, session: Session, other: str, there: Session) -> None:
        """Whoever is at C{other} hears from C{home}, and C{home} sees how C{other} stands."""
        rule = "D11" if home == other else "D10"
        remedy = (
            f"let home {home} call clients: open TCP to ports from 1024 on"
            if home == other
            else f"rvpfarm status {home} {other}: the link port of {other} has to be open to {home}"
        )
        text = f"doctor {time.monotonic_ns()}"
        arrived = self._heard[other, text] = Deferred()

        async def send() -> None:
            await session.send(there.me.url, text)
            await arrived

        await self._step(rule, f"send from home {home} to home {other}", send(), remedy)
        self._heard.pop((other, text), None)
        if home == other:
            return
        before, after = "busy", "online"

        async def watch() -> None:
            await there.set_state(before, seconds=60)
            seen = await session.watch(there.me.url)
            if seen != before:
                raise NotDone(f"home {home} says {seen} of somebody at {other} who is {before}")
            changed = self._heard[home, after] = Deferred()
            await there.set_state(after, seconds=60)
            await changed
            await session.unwatch(there.me.url)

        await self._step(rule, f"see from home {home} what changes at home {other}", watch(), remedy)
        self._heard.pop((home, after), None)

    async def _step(self, rule: str, what: str, work: Coroutine[Any, Any, None], remedy: str) -> bool:
        """Try one thing, for a limited time; did it work?"""
        began = time.monotonic()
        trouble = ""
        try:
            await Deferred.fromCoroutine(work).addTimeout(self._seconds, self._reactor)
        except TookTooLong:
            trouble = f"nothing came within {self._seconds:.0f} s"
        except (WrongPassword, SendFailed, NotDone, Unreachable, ValueError) as problem:
            trouble = str(problem)
        step = Step(rule, what, trouble, remedy)
        self.steps.append(replace(step, seconds=time.monotonic() - began))
        return not trouble

    def _message(self, home: str, message: Message) -> None:
        self._arrived(home, message.text)

    def _presence(self, home: str, presence: Presence) -> None:
        self._arrived(home, presence.state or "")

    def _arrived(self, home: str, what: str) -> None:
        waiting = self._heard.pop((home, what), None)
        if waiting is not None and not waiting.called:
            waiting.callback(None)


def _place(router: Router) -> str:
    where = router.address or router.host
    return f"[{where}]:{router.port}" if ":" in where else f"{where}:{router.port}"


async def _wait(deferred: Deferred[Any]) -> None:  # of whatever it fires with
    await deferred
