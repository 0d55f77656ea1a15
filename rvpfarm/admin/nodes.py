"""Groups and devices: nodes that are no people, at any path (protocol notes 1.2; product F14).

They receive like a user's node does; whoever its access list lets C{receive-from} subscribes its call-back.
"""

from __future__ import annotations

import re
import uuid

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Missing, Refused, Taken, check_text, domain_named, enumerate_names
from rvpfarm.admin.users import accounts_of, choose_home, existing_user
from rvpfarm.directory.model import Account, Farm
from rvpfarm.directory.reading import Reading
from rvpfarm.directory.store import Store

#: What a node that is no person can be.
KINDS = ("group", "device")

_PATH = re.compile(r"(/[A-Za-z0-9_.~!$'+-]+){2,}")
_TAKEN = "/instmsg/"


def create_node(
    store: Store,
    path: str,
    owner: str,
    *,
    kind: str = "group",
    domain: str | None = None,
    home: str | None = None,
    display_name: str | None = None,
    actor: str | None = None,
) -> Account:
    """A new group or device.

    @param path: such as C{/groups/shipping}.
    @param owner: address of the user who may do everything with it, its access list included.
    @param kind: one of L{KINDS}.
    @param domain: the IM domain; may be left out when there is only one.
    @param home: the name of its home; left out, the one with the fewest accounts.
    @raise Refused: see the sentence.
    """
    with store.change(actor or default_actor(), "node create", path) as writing:
        farm = writing.farm()
        chosen = _domain(farm, domain)
        key = f"{chosen}{_check_path(path)}".lower()
        taken = writing.account(key)
        if taken is not None:
            raise Taken(f"{taken.url} exists already; choose another path")
        name = path.rpartition("/")[2]
        account = Account(
            id=str(uuid.uuid4()),
            key=key,
            kind=kind,
            domain=chosen,
            path=path,
            alias=name,
            home=choose_home(writing, farm, home).id,
            enabled=True,
            display_name=check_text(display_name, "a display name") if display_name else name,
            email="",
            address=f"{chosen}{path}",
            owner=existing_user(writing, owner).key,
        )
        writing.add_account(account)
    return account


def remove_node(store: Store, path: str, *, domain: str | None = None, actor: str | None = None) -> Account:
    """A group or device that is no more; its subscriptions end.

    @raise Refused: there is none at that path.
    """
    with store.change(actor or default_actor(), "node remove", path) as writing:
        account = _existing(writing, path, domain)
        writing.remove_account(account)
    return account


def find_node(store: Store, path: str, domain: str | None = None) -> Account:
    """The group or device at C{path}.

    @raise Refused: there is none.
    """
    with store.read() as reading:
        return _existing(reading, path, domain)


def list_nodes(store: Store, domain: str | None = None, home: str | None = None) -> list[Account]:
    """The groups and devices by URL.

    @param domain: only those of this IM domain.
    @param home: only those on the home of this name.
    @raise Refused: there is no such domain or home.
    """
    with store.read() as reading:
        return [account for account in accounts_of(reading, domain, home) if account.kind in KINDS]


def _check_path(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise Refused(f'"{path}" is not a path of two parts or more, such as /groups/shipping')
    if path.lower().startswith(_TAKEN) or path.lower().startswith("/aliases/"):
        raise Refused(f"{_TAKEN} is where users live; choose another path, such as /groups/shipping")
    return path


def _domain(farm: Farm, name: str | None) -> str:
    if name is not None:
        return domain_named(farm.domains, name).name
    if len(farm.domains) == 1:
        return next(iter(farm.domains))
    known = enumerate_names(farm.domains) if farm.domains else "none yet"
    raise Refused(f"say which IM domain with --domain; there is {known}")


def _existing(reading: Reading, path: str, domain: str | None) -> Account:
    key = f"{_domain(reading.farm(), domain)}{path}".lower()
    account = reading.account(key)
    if account is None or account.kind not in KINDS:
        raise Missing(f'there is no group or device at "{path}"; "rvpfarm node list" shows them', path)
    return account
