"""Users out of LDAP and everything else out of the SQL directory, as the daemons ask for it.

The SQL directory is asked first.  A user whose local record is disabled is disabled, whatever LDAP says; a
user with a local record that is tied to no entry has nothing to do with LDAP.  Otherwise the entry decides
whether the user may use instant messaging, and what its names are; the local record says which home it has.
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock, Thread

from twisted.logger import Logger

from rvpfarm.directory.ldapentries import Person, choose_home, key_of, login_forms, new_account
from rvpfarm.directory.ldappeople import People
from rvpfarm.directory.ldapservers import LdapServers
from rvpfarm.directory.ldapsettings import BIND, LINK, LOGIN, LdapSettings, settings_of
from rvpfarm.directory.model import Account, DirectoryUnavailable, Farm, Verifier
from rvpfarm.directory.reading import Changes, Sealer
from rvpfarm.directory.sql import SqlSource
from rvpfarm.directory.store import Store

#: What the sealed password of the reader is bound to.
_CONTEXT = "rvpfarm ldap reader"
#: So many people are remembered to be confirmed, and so many are asked for at once.
_SEEN_LIMIT, _AT_ONCE = 50_000, 100
#: Who is nobody is remembered only for when that cannot be confirmed any more; so many of them.
_NOBODIES_LIMIT = 5000
#: How often it is looked whether an LDAP server answers.
LOOK_SECONDS = 5.0


def _in_thread(work: Callable[[], None]) -> None:
    """Have C{work} done; nobody waits for it."""
    Thread(target=work, name="ldap", daemon=True).start()


def seal_password(password: str, sealer: Sealer) -> str:
    """The password of the reader, as settings keep it."""
    return b64encode(sealer.seal(password, _CONTEXT)).decode()


def reader_password(settings: LdapSettings, sealer: Sealer | None) -> str:
    """The password of the reader; empty when the settings name none.

    @raise DirectoryUnavailable: it cannot be opened.
    """
    if not settings.sealed:
        return ""
    if sealer is None:
        raise DirectoryUnavailable("the reader's LDAP password is sealed; give --key-file the farm key")
    try:
        return sealer.open(b64decode(settings.sealed), _CONTEXT)
    except ValueError:
        raise DirectoryUnavailable(
            "the reader's LDAP password does not open with this farm key; "
            'run "rvpfarm ldap set --password-stdin" again'
        ) from None


@dataclass(frozen=True, slots=True)
class _Seen:
    """Somebody who was looked up.

    @ivar allowed: he may use instant messaging.
    @ivar asked: when.
    """

    person: Person | None
    allowed: bool
    asked: float


class LdapSource:
    """What L{rvpfarm.directory.cache} asks where users may come from LDAP; see
    L{rvpfarm.directory.asking.Source}.

    Without settings of LDAP in the farm it is the SQL directory and nothing else; they may come and go while
    it runs.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        sealer: Sealer | None,
        *,
        pins: bool = True,
        now: Callable[[], float] = time.monotonic,
        spawn: Callable[[Callable[[], None]], None] = _in_thread,
    ) -> None:
        """
        @param store: the SQL directory; with the farm key where verifiers are wanted.
        @param sealer: opens the password of the reader.
        @param pins: write down on which home somebody is who is seen for the first time.  Routers do not: the
            home of a call does, and until then all of them choose the same.
        @param spawn: has something done that nobody waits for.
        """
        self._store, self._sealer, self._pins, self._now = store, sealer, pins, now
        self._sql, self._spawn = SqlSource(store), spawn
        self._farm: Farm | None = None
        self._settings: LdapSettings | None = None
        self._people: People | None = None
        self._problem = ""
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._changed: dict[str, None] = {}
        self._gap = False
        self._lock = Lock()
        self._logins: OrderedDict[str, float] = OrderedDict()
        self._nobodies: OrderedDict[str, None] = OrderedDict()
        self._confirming = self._down = False
        self._looked = -LOOK_SECONDS

    @property
    def up(self) -> bool | None:
        """Did an LDAP server answer when it was last looked; C{None} where users do not come from LDAP."""
        return None if self._settings is None else not self._down

    def position(self) -> int:
        """The end of the feed of changes."""
        return self._sql.position()

    def farm(self) -> Farm:
        """Everything farm-wide; other settings of LDAP count from now on."""
        farm = self._sql.farm()
        self._adopt(farm)
        return farm

    def account(self, key: str) -> Account | None:
        """The account of the node C{key}.

        @raise DirectoryUnavailable: the SQL directory or, of somebody who is in LDAP, no LDAP server answers.
        """
        people, farm = self._asked()
        if key.startswith(LOGIN):
            return None if people is None else self._of_login(key, people, farm)
        if people is None:
            return self._sql.account(key)
        local, link = self._local(key)
        if local is not None and (not local.enabled or not link):
            return local
        if local is None and not people.settings.automatic:
            return None
        person = people.by_key(key, farm)
        allowed = person is not None and people.may(person)
        self._note(key, person, allowed)
        if local is not None:
            if person is None or person.unique_id != link or not allowed:
                return replace(local, enabled=False)
            return self._merged(local, person)
        if person is None or not allowed or not people.settings.automatic:
            return None
        return self._first_seen(key, people, person, farm)

    def _of_login(self, key: str, people: People, farm: Farm) -> Account | None:
        """Who signs in by the name in C{key}, which is the name of no node."""
        with self._lock:
            self._logins[key] = self._now()
            self._logins.move_to_end(key)
            if len(self._logins) > _SEEN_LIMIT:
                self._changed[self._logins.popitem(last=False)[0]] = None
        person = people.by_login(*login_forms(key.removeprefix(LOGIN), farm))
        own = None if person is None else key_of(people.settings, person, farm)
        return None if own is None else self.account(own)

    def changes_since(self, position: int, mark: str) -> Changes:
        """What changed after C{position}, and who proved to be another in LDAP since he was looked up."""
        changes = self._sql.changes_since(position, mark)
        with self._lock:
            since = self._now() - (self._settings.refresh_seconds if self._settings else 0.0)
            while self._logins and next(iter(self._logins.values())) <= since:
                self._changed[self._logins.popitem(last=False)[0]] = None
            keys, self._changed = tuple(self._changed), {}
            gap, self._gap = self._gap, False
        self._confirm()
        if keys or gap:
            both = tuple(dict.fromkeys((*changes.keys, *keys)))
            return replace(changes, keys=both, gap=changes.gap or gap)
        return changes

    def prove(self, account: Account, password: str) -> bool:
        """Is this the LDAP password of C{account}, whose entry still allows it?

        @raise DirectoryUnavailable: no LDAP server says.
        """
        people, farm = self._asked()
        if people is None:
            return False
        person = people.by_key(account.key, farm)
        tied = any(one.scheme == BIND and one.secret == _identity(person) for one in account.verifiers)
        if person is None or not tied or not people.may(person):
            return False
        return people.servers.prove(person.dn, password)

    def close(self) -> None:
        """Give every connection back."""
        with self._lock:
            people, self._people = self._people, None
            self._farm = None
        if people is not None:
            people.servers.close()
        self._sql.close()

    # settings

    def _asked(self) -> tuple[People | None, Farm]:
        """Whom to ask for people; nobody where they do not come from LDAP.

        @raise DirectoryUnavailable: the settings are of no use.
        """
        farm = self._farm
        if farm is None:
            farm = self.farm()
        if self._problem:
            raise DirectoryUnavailable(self._problem)
        return self._people, farm

    def _adopt(self, farm: Farm) -> None:
        """Go by what the farm says now."""
        try:
            settings, problem = settings_of(farm), ""
        except DirectoryUnavailable as told:
            settings, problem = None, str(told)
        with self._lock:
            first, same = self._farm is None, settings == self._settings and problem == self._problem
            self._farm = farm
            if same and (self._people is not None or settings is None):
                return
            self._settings, self._gap = settings, not first
            self._seen.clear()
            before, self._people = self._people, None
            if settings is not None:
                try:
                    password = reader_password(settings, self._sealer)
                    self._people = People(settings, LdapServers(settings, password))
                except DirectoryUnavailable as told:
                    problem = str(told)
            self._problem = problem
        if before is not None:
            before.servers.close()

    # accounts

    def _local(self, key: str) -> tuple[Account | None, str]:
        """The local record, and what ties it to an entry."""
        with self._store.read() as reading:
            account = reading.account(key)
            tied = account is not None and account.kind == "user"
            return account, reading.own_policy(account.id, LINK) if account is not None and tied else ""

    def _merged(self, local: Account, person: Person) -> Account:
        """The local record with what LDAP says; names given to it locally stay."""
        is_own = local.display_name.lower() not in ("", local.alias.lower())
        verifiers = local.verifiers
        if self._store.sealer is not None:
            verifiers = (*verifiers, Verifier(BIND, person.dn, "", person.unique_id))
        return replace(
            local,
            display_name=local.display_name if is_own else person.display_name or local.display_name,
            email=person.mail or local.email,
            verifiers=verifiers,
        )

    def _first_seen(self, key: str, people: People, person: Person, farm: Farm) -> Account | None:
        """Somebody without a local record: he gets one, where that may be written."""
        settings = people.settings
        if settings.is_exchange and not people.is_whole(person, farm):
            self._log.warn("{dn} is not served: Exchange's record of it is half filled (D05)", dn=person.dn)
            return None
        draft = new_account(settings, person, farm, "")
        if draft is None or draft.key != key:
            return None
        home = people.home_of(person, farm) if settings.is_exchange else choose_home(farm, draft.id)
        if home is None:
            raise DirectoryUnavailable(f"no home takes {draft.address}")
        account = replace(draft, home=home)
        if self._pins and not pin(self._store, account, person):
            return None
        return self._merged(replace(account, display_name=account.alias), person)

    # confirming

    def _note(self, key: str, person: Person | None, allowed: bool) -> None:
        """Remember whom the answer was about, to ask again."""
        with self._lock:
            if person is None and key not in self._seen:
                self._nobodies[key] = None
                if len(self._nobodies) > _NOBODIES_LIMIT:
                    self._nobodies.popitem(last=False)
                return
            self._nobodies.pop(key, None)
            self._seen[key] = _Seen(person, allowed, self._now())
            self._seen.move_to_end(key)
            while len(self._seen) > _SEEN_LIMIT:
                self._seen.popitem(last=False)

    def _confirm(self) -> None:
        """Look whether a server answers, and ask again for those who were looked up long ago."""
        people, farm, now = self._people, self._farm, self._now()
        if people is None or farm is None or self._confirming:
            return
        since = now - people.settings.refresh_seconds
        with self._lock:
            due: list[str] = []
            for key, seen in self._seen.items():
                if seen.asked > since or len(due) >= _AT_ONCE:
                    break
                due.append(key)
        if now - self._looked < (LOOK_SECONDS if self._down or not due else 0):
            return
        self._looked, self._confirming = now, True
        self._spawn(lambda: self._ask_again(people, farm, due))

    def _ask_again(self, people: People, farm: Farm, keys: list[str]) -> None:
        """See who they are now; runs in a thread of its own, for the feed of changes must not wait for it."""
        try:
            if not keys:
                people.servers.ping()
            found = people.by_keys(keys, farm) if keys else {}
            for key in keys:
                person = found.get(key)
                allowed = person is not None and people.may(person)
                before = self._seen.get(key)
                if before is not None and (before.person, before.allowed) != (person, allowed):
                    with self._lock:
                        self._changed[key] = None
                self._note(key, person, allowed)
            self._down = False
        except DirectoryUnavailable:
            # that there was nobody of some name some time ago is not to be believed now
            with self._lock:
                self._changed.update(self._nobodies)
                self._nobodies.clear()
            self._down = True
        finally:
            self._confirming = False


def _identity(person: Person | None) -> str:
    return "" if person is None else person.unique_id


def pin(store: Store, account: Account, person: Person, *, actor: str = "ldap") -> bool:
    """Give somebody a local record that is tied to his entry, unless he has one.

    @return: he has one now; not if somebody else has his address.
    """
    with store.change(actor, "user enable", account.address) as writing:
        known = writing.account(account.key)
        if known is None and writing.account_by_address(account.address) is None:
            writing.add_account(replace(account, display_name=account.alias, verifiers=()))
            writing.set_account_policy(account, LINK, person.unique_id)
            return True
        return known is not None and writing.own_policy(known.id, LINK) == person.unique_id
