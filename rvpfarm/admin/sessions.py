"""Who is signed in, asked of running homes; and ending it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.doors import Door, NoAnswer, homes_of, link_key, refuse_silence, visit, visit_all
from rvpfarm.admin.users import existing_user
from rvpfarm.directory.model import Account, Home
from rvpfarm.directory.store import Store
from rvpfarm.protocol.control import Session, read_session

#: How long each home has for its whole answer.
ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class SessionView:
    """One place where somebody is signed in.

    @ivar address: the IM address.
    @ivar home: the name of the home.
    """

    address: str
    home: str
    session: Session


@dataclass(frozen=True, slots=True)
class Found:
    """What homes said of sessions.

    @ivar silent: why the others said nothing, by name.
    """

    sessions: tuple[SessionView, ...]
    silent: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """The sessions of one user that were ended, or would be."""

    account: Account
    home: Home
    sessions: tuple[SessionView, ...]


def list_sessions(
    store: Store,
    user: str | None = None,
    home: str | None = None,
    *,
    seconds: float = ANSWER_SECONDS,
    actor: str | None = None,
) -> Found:
    """Where people are signed in, by home and address.

    @param user: only this one.
    @param home: only at the home of this name.
    @param seconds: how long each home has for its whole answer.
    @raise Refused: there is no such user or home.
    """
    key, account = link_key(store), None
    with store.read() as reading:
        farm = reading.farm()
        if user is not None:
            account = existing_user(reading, user)
        asked = homes_of(farm, home)
    if account is not None and home is None:
        asked = [farm.homes[account.home]]
    whom = "" if account is None else account.key
    told, silent = visit_all(asked, key, seconds, lambda door: tuple(ask_sessions(door, whom)), actor)
    with store.read() as reading:
        views = [
            SessionView(
                session.address or _address(reading.account(session.user), session.user), name, session
            )
            for name, sessions in told.items()
            for session in sessions
        ]
    views.sort(key=lambda view: (view.home, view.address, view.session.login or 0))
    return Found(tuple(views), silent)


def ask_sessions(door: Door, user: str = "") -> Iterator[Session]:
    """The sessions at one home, page after page, which all have to come in the time of C{door}.

    @param user: key of the only user to ask for.
    """
    after = ""
    while True:
        page = door.ask("sessions", user=user, after=after)
        for record in page.records("sessions"):
            yield read_session(record)
        after = page.text("next")
        if not after:
            return


def kill_sessions(
    store: Store,
    user: str,
    view: int | None = None,
    *,
    dry_run: bool = False,
    seconds: float = ANSWER_SECONDS,
    actor: str | None = None,
) -> Ended:
    """End all sessions of a user, or the one of a view, at once; watchers hear of it.

    The client may sign in again: who is not to, has to be disabled.

    @param user: whose.
    @param view: the number of the only view to end; left out, all sessions end.
    @param dry_run: only find out which they are.
    @raise Refused: there is no such user or session, or the home does not answer.
    """
    key, actor = link_key(store), actor or default_actor()
    with store.read() as reading:
        account = existing_user(reading, user)
        home = reading.farm().homes[account.home]

    def end(door: Door) -> tuple[Session, ...]:
        """End them, or find out."""
        answer = door.ask("end", user=account.key, view=view, dry_run=dry_run)
        return tuple(read_session(record) for record in answer.records("ended"))

    try:
        if dry_run:
            ended = visit(home, key, seconds, end, actor)
        else:
            with store.change(actor, "session kill", account.address) as writing:
                ended = visit(home, key, seconds, end, actor)
                if ended:
                    writing.note("sessions", [asdict(one) for one in ended], [])
    except NoAnswer as problem:
        raise refuse_silence(home, problem) from problem
    if not ended:
        what = "is not signed in" if view is None else f"has no view {view}"
        raise Refused(f'{account.address} {what}; "rvpfarm session list" shows who is')
    views = tuple(SessionView(account.address, home.name, session) for session in ended)
    return Ended(account, home, views)


def _address(account: Account | None, key: str) -> str:
    """What to call somebody whom the home knows by key only."""
    if account is not None:
        return account.address
    domain, _, path = key.partition("/")
    return f"{path.rpartition('/')[2]}@{domain}"
