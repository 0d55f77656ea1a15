"""Who may contact a user, set by an administrator (product F79), and who watches a user.

Both are kept by the home that owns the user, which has to run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from rvpfarm.admin import srv
from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Refused, check_alias, check_host, serving
from rvpfarm.admin.doors import Door, NoAnswer, link_key, refuse_silence, visit
from rvpfarm.admin.sessions import ANSWER_SECONDS
from rvpfarm.admin.users import account_meant, existing_user
from rvpfarm.directory.model import Account, Farm, Home
from rvpfarm.directory.names import names_of
from rvpfarm.directory.reading import Reading
from rvpfarm.directory.store import Store
from rvpfarm.protocol.acls import OPENNESS
from rvpfarm.protocol.address import USERS, parse_principal
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.control import Facts, Privacy, Watcher, privacy_record, read_privacy, read_watcher

#: What can hold for everybody who is not named on the list; C{default} takes the list back.
MODES = (*OPENNESS, "default")


@dataclass(frozen=True, slots=True)
class PrivacyView:
    """The access list of a user, before and after what was asked for; the same when only looked at.

    @ivar told: how many watchers heard at once what it means for them.
    """

    account: Account
    home: Home
    before: Privacy
    after: Privacy
    told: int = 0


@dataclass(frozen=True, slots=True)
class Watched:
    """Who watches a user."""

    account: Account
    home: Home
    watchers: tuple[Watcher, ...]


def show_privacy(
    store: Store, address: str, *, seconds: float = ANSWER_SECONDS, actor: str | None = None
) -> PrivacyView:
    """The access list of a user.

    @raise Refused: there is no such user, or the home does not answer.
    """
    return change_privacy(store, address, dry_run=True, seconds=seconds, actor=actor)


def change_privacy(
    store: Store,
    address: str,
    mode: str = "",
    allow: Iterable[str] = (),
    deny: Iterable[str] = (),
    remove: Iterable[str] = (),
    *,
    dry_run: bool = False,
    dns: tuple[str, int] | None = None,
    seconds: float = ANSWER_SECONDS,
    actor: str | None = None,
) -> PrivacyView:
    """Change who may contact a user and see his presence; it holds at once, also for who watches already.

    @param mode: one of L{MODES}; empty to leave it.
    @param allow: addresses, URLs or servers of those who may.
    @param deny: the same of those who may not.
    @param remove: the same of those who are to be named no longer.
    @param dns: the DNS server to ask where people of other organisations are.
    @raise Refused: somebody is unknown, or it cannot be done, or the home does not answer.
    """
    key, actor = link_key(store), actor or default_actor()
    with store.read() as reading:
        account = existing_user(reading, address)
        farm = reading.farm()
        home = farm.homes[account.home]
        urls = {
            name: [url_meant(reading, farm, text, dns) for text in texts]
            for name, texts in (("allow", allow), ("deny", deny), ("remove", remove))
        }

    def ask(door: Door) -> Facts:
        """Have the home do it, or say what it would come to."""
        return door.ask("acl", user=account.key, mode=mode, dry_run=dry_run, **urls)

    try:
        if dry_run:
            return _view(account, home, visit(home, key, seconds, ask, actor))
        with store.change(actor, "user acl", account.address) as writing:
            view = _view(account, home, visit(home, key, seconds, ask, actor))
            if view.before != view.after:
                writing.note("acl", privacy_record(view.before), privacy_record(view.after))
        return view
    except NoAnswer as problem:
        raise refuse_silence(home, problem) from problem


def list_watchers(
    store: Store, address: str, *, seconds: float = ANSWER_SECONDS, actor: str | None = None
) -> Watched:
    """Who watches a user, the oldest subscription first.

    @raise Refused: there is no such user, or the home does not answer.
    """
    key = link_key(store)
    with store.read() as reading:
        account = existing_user(reading, address)
        home = reading.farm().homes[account.home]

    def ask(door: Door) -> tuple[Watcher, ...]:
        """All pages."""
        found: list[Watcher] = []
        after = 0
        while True:
            page = door.ask("watchers", user=account.key, after=after)
            found += [read_watcher(record) for record in page.records("watchers")]
            after = page.whole("next") or 0
            if not after:
                return tuple(found)

    try:
        return Watched(account, home, visit(home, key, seconds, ask, actor))
    except NoAnswer as problem:
        raise refuse_silence(home, problem) from problem


def url_meant(reading: Reading, farm: Farm, text: str, dns: tuple[str, int] | None = None) -> str:
    """The URL of a user, or the name of a server, that C{text} means.

    @param text: an address, a URL, the name of a user here, or of a server; a server's users are not meant
        with it (RVP 5.7.2).
    @raise Refused: it means nobody.
    """
    text = text.strip()
    advice = f'"{text}" means nobody; give an address, a URL, or the name of a server'
    try:
        if "://" in text:
            principal = parse_principal(text, names_of(farm))
            ours = principal.key.partition("/")[0] in farm.domains
            if ours and reading.account(principal.key) is None:
                raise Refused(f'there is no user "{text}"; "rvpfarm user list" shows them')
            return principal.url
        alias, at, host = text.partition("@")
        if at and serving(host.lower(), farm.domains) is None:
            return _foreign(check_alias(alias), check_host(host, "give the part after the @"), dns)
        account = account_meant(reading, farm, text)
        if account is not None:
            return account.url
        if at or "." not in text:
            raise Refused(f'there is no user "{text}"; "rvpfarm user list" shows them')
        return parse_principal(text, names_of(farm)).url
    except BadRequest as problem:
        raise Refused(advice) from problem


def _foreign(alias: str, host: str, dns: tuple[str, int] | None) -> str:
    """The URL of somebody of another organisation, whose IM domain the DNS knows.

    @raise Refused: the DNS does not say.
    """
    try:
        offers = srv.ask(f"_rvp._tcp.{host}", dns)
    except Refused as problem:
        raise Refused(
            f"the DNS does not say where users of {host} are; give the URL instead, such as "
            f"http://im.{host}{USERS}{alias}"
        ) from problem
    return f"http://{offers[0].target if offers else host}{USERS}{quote(alias)}"


def _view(account: Account, home: Home, answer: Facts) -> PrivacyView:
    """What the home answered."""
    before, after = (read_privacy(answer.record(name)) for name in ("before", "after"))
    return PrivacyView(account, home, before, after, answer.whole("told") or 0)
