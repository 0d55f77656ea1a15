"""What administrators do to the directory: plain functions over a L{Store}, without a command line.

Each either does the whole of what it says, in one transaction with its audit row, or raises L{Refused}
with a sentence and changes nothing.  C{actor} is who is recorded; left out, it is the OS user.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.addresses import RULES
from rvpfarm.admin.checks import (
    Missing,
    Naming,
    Refused,
    Taken,
    check_address,
    check_host,
    check_metrics,
    check_place,
    check_port,
    check_server_name,
    check_text,
    derive,
    domain_named,
    enumerate_names,
    im_address,
    serving,
)
from rvpfarm.admin.domains import (
    DomainChange,
    add_alias,
    add_domain,
    add_mail_domain,
    remove_alias,
    remove_mail_domain,
)
from rvpfarm.admin.networks import NETWORK_KINDS, NetworkChange, add_network, remove_network, set_networks
from rvpfarm.admin.passwords import enforce
from rvpfarm.admin.places import check_url, homes_beside, is_same_machine
from rvpfarm.admin.users import (
    Plan,
    Rehearsed,
    UserView,
    change_user_policy,
    disable_user,
    enable_user,
    find_user,
    generate_password,
    list_lacking,
    list_users,
    plan_user,
    set_password,
    show_user,
)
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.model import POLICIES, Farm, Home, Router
from rvpfarm.directory.reading import AuditRow
from rvpfarm.directory.schema import known_revisions
from rvpfarm.directory.store import Store
from rvpfarm.protocol.acls import OPENNESS
from rvpfarm.protocol.calls import SIGN_IN_SCHEMES

__all__ = [
    "NETWORK_KINDS",
    "DomainChange",
    "Initialised",
    "Naming",
    "NetworkChange",
    "Plan",
    "PolicyChange",
    "Refused",
    "UserView",
    "add_alias",
    "add_domain",
    "add_mail_domain",
    "add_network",
    "change_policy",
    "change_user_policy",
    "check_audit",
    "create_home",
    "create_router",
    "derive",
    "disable_user",
    "enable_user",
    "farm_of",
    "find_user",
    "generate_password",
    "homes_beside",
    "im_address",
    "init",
    "list_audit",
    "list_lacking",
    "list_users",
    "open_store",
    "plan_user",
    "prepare",
    "remove_alias",
    "remove_mail_domain",
    "remove_network",
    "set_networks",
    "set_password",
    "set_policy",
    "show_user",
]

#: The values each policy may have; of those in L{MANY} several at once, in order.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "authentication": ("required", "off"),
    "schemes": SIGN_IN_SCHEMES,
    "digest-verifiers": ("allowed", "forbidden"),
    "nt-hashes": ("allowed", "forbidden"),
    "referral": ("auto", "always", "never"),
    "federation": ("closed", "open"),
    "default-acl": OPENNESS,
    "forwarded-header": ("x-forwarded-for", "forwarded", "none"),
    "address-form": RULES,
}

#: The least and the greatest value of each policy that is a number.
RANGES: Mapping[str, tuple[int, int]] = {
    "password-length": (4, 64),
    "failed-logins": (0, 1000),
    "renewal-jitter": (0, 50),
    "max-connections": (1, 1_000_000),
    "connections-per-source": (1, 1_000_000),
    "inbound-queue": (1, 1_000_000),
    "directory-staleness": (60, 31_536_000),
}

#: The policies that count for the farm as a whole, and not for a domain.
FARM_WIDE = frozenset(
    {
        "forwarded-header",
        "max-connections",
        "connections-per-source",
        "inbound-queue",
        "directory-staleness",
    }
)

#: The policies that are a list.
MANY = frozenset({"schemes"})


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What setting a policy did.

    @ivar value: the value that now counts.
    @ivar dropped: how many users lost what their passwords were checked by, since it may not be kept.
    """

    value: str
    dropped: int


@dataclass(frozen=True, slots=True)
class Initialised:
    """What L{init} did.

    @ivar before: the revision of the tables before; C{None} when there were none.
    @ivar revision: the revision they have now.
    @ivar claimed: the machine that the directory was taken over from; empty when it was not.
    """

    before: str | None
    revision: str
    claimed: str = ""


def prepare(url: str, key_file: Path) -> tuple[Store, bool]:
    """The store to L{init}, with its farm key; a missing key is made if nothing was ever sealed with one.

    @return: the store, and whether the key is new.
    @raise Refused: the key is missing and cannot be made anew, or cannot be read.
    """
    if key_file.exists():
        return Store(url, _load_key(key_file)), False
    bare = Store(url)
    try:
        if bare.is_bound():
            raise Refused(
                f"the farm key {key_file} is missing, and the directory holds secrets sealed with it; "
                "restore it, or give --key-file where it is"
            )
    finally:
        bare.close()
    try:
        key = FarmKey.create(key_file)
    except FileExistsError:
        # another process is making the same farm
        return Store(url, _load_key(key_file)), False
    except OSError as problem:
        raise Refused(
            f"cannot make the farm key {key_file}: {problem.strerror}; give --key-file another path"
        ) from problem
    return Store(url, key), True


def open_store(url: str, key_file: Path | None) -> Store:
    """The store of a directory that exists; without its key file, secrets are neither read nor made.

    @raise Refused: the key cannot be read.
    """
    if key_file is None or not key_file.exists():
        return Store(url)
    return Store(url, _load_key(key_file))


def init(store: Store, *, actor: str | None = None, claim: bool = False) -> Initialised:
    """Make the directory, or bring it to the revision that this program needs; again does no harm.

    @param claim: take over a directory in a file from the machine that it belonged to.
    """
    who = actor or default_actor()
    before = store.upgrade(claim=claim)
    owner = store.settle_host(who, claim=claim)
    with store.change(who, "init", "directory") as writing:
        writing.bind_key()
    return Initialised(before, known_revisions()[0], "" if owner is None else owner.name)


def create_home(
    store: Store,
    name: str,
    host: str | None = None,
    port: int = 80,
    link_port: int = 8081,
    address: str = "",
    *,
    metrics: str = "",
    actor: str | None = None,
) -> Home:
    """A new home server.

    It may have the address and port of other homes under another host name; see L{homes_beside}.

    @param host: the fully qualified name that clients resolve (KB 319758); left out, it is C{name}.
    @param address: its IP address, when it is not to be looked up.
    @param metrics: C{ADDRESS:PORT} where it shows its metrics, health and status.
    @raise Refused: a name is none, or taken, or the ports clash with another server's.
    """
    advice = "give --host the name that clients resolve, such as hs1.example.com (KB 319758)"
    full = check_host(host if host is not None else name, advice)
    label = check_server_name(name if host is not None else full.partition(".")[0])
    home = Home(
        str(uuid.uuid4()),
        label,
        full,
        check_port(port, "--port"),
        check_port(link_port, "--link-port"),
        check_address(address),
        metrics=check_place(metrics, "--metrics"),
    )
    if home.port == home.link_port:
        raise Refused(f"clients and farm members cannot share port {port}; give --link-port another one")
    with store.change(actor or default_actor(), "home create", label) as writing:
        farm = writing.farm()
        _check_new_name("home", label, (one.name for one in farm.homes.values()))
        domain = serving(full, farm.domains)
        if domain is not None and full not in domain.mail_domains:
            raise Taken(
                f'"{full}" means the IM domain {domain.name}, which routers answer for; '
                "give --host a name of the home's own, such as hs1.example.com"
            )
        check_url(farm, home)
        check_ports(farm, full, home.address, {"--port": home.port, "--link-port": home.link_port})
        check_metrics(farm, home)
        writing.add_home(home)
    return home


def create_router(
    store: Store,
    name: str,
    host: str | None = None,
    port: int = 80,
    address: str = "",
    *,
    metrics: str = "",
    actor: str | None = None,
) -> Router:
    """A new router; several may share a host name when each has an address of its own.

    @param host: the fully qualified name that clients resolve, often the IM domain; left out, it is C{name}.
    @param metrics: C{ADDRESS:PORT} where it shows its metrics, health and status.
    @raise Refused: a name is none, or taken, or the port clashes with another server's.
    """
    advice = "give --host the name that clients resolve, such as im.example.com"
    full = check_host(host if host is not None else name, advice)
    label = check_server_name(name if host is not None else full.partition(".")[0])
    router = Router(
        str(uuid.uuid4()),
        label,
        full,
        check_port(port, "--port"),
        check_address(address),
        metrics=check_place(metrics, "--metrics"),
    )
    with store.change(actor or default_actor(), "router create", label) as writing:
        farm = writing.farm()
        _check_new_name("router", label, (one.name for one in farm.routers.values()))
        check_ports(farm, full, router.address, {"--port": router.port})
        check_metrics(farm, router)
        writing.add_router(router)
    return router


def farm_of(store: Store) -> Farm:
    """Everything farm-wide."""
    with store.read() as reading:
        return reading.farm()


def set_policy(
    store: Store, name: str, value: str | None, domain: str | None = None, *, actor: str | None = None
) -> str:
    """A setting of the farm, or of one IM domain; see L{change_policy}.

    @return: the value that now counts.
    """
    return change_policy(store, name, value, domain, actor=actor).value


def change_policy(
    store: Store,
    name: str,
    value: str | None,
    domain: str | None = None,
    *,
    actor: str | None = None,
    dry_run: bool = False,
) -> PolicyChange:
    """A setting of the farm, or of one IM domain, and what it comes to at once.

    @param value: C{None} goes back to the default.
    @param dry_run: only find out what it would come to.
    @raise Refused: there is no such policy, value or domain, or it does not go with another one.
    """
    change = PolicyChange("", 0)
    if name not in POLICIES:
        raise Missing(f'there is no policy "{name}"; the policies are {enumerate_names(POLICIES)}', name)
    if domain is not None and name in FARM_WIDE:
        raise Refused(f"{name} counts for the farm as a whole; leave --domain out")
    kept = None if value is None else _check_policy(name, value)
    with suppress(Rehearsed), store.change(actor or default_actor(), "policy set", name) as writing:
        scope = "" if domain is None else domain_named(writing.farm().domains, domain).name
        writing.set_policy(scope, name, kept)
        farm = writing.farm()
        _check_together(farm)
        change = PolicyChange(farm.policy(name, scope or None), enforce(writing, name))
        if dry_run:
            raise Rehearsed
    return change


def list_audit(store: Store, subject: str | None = None, newest: int | None = None) -> list[AuditRow]:
    """Who changed what, oldest first.

    @param subject: only what happened to this IM address, domain or server.
    """
    with store.read() as reading:
        return reading.audit(subject, newest)


def check_audit(store: Store) -> int | None:
    """The number of the first audit row that was tampered with; C{None} when none was."""
    with store.read() as reading:
        return reading.audit_break()


def _load_key(key_file: Path) -> FarmKey:
    """The farm key.

    @raise Refused: it cannot be read, or others may read it.
    """
    try:
        return FarmKey.load(key_file)
    except (OSError, ValueError) as problem:
        # its sentence stands after "rvpfarm: ...: " here
        sentence = str(problem).removesuffix(".")
        raise Refused(sentence[:1].lower() + sentence[1:]) from problem


def _check_new_name(noun: str, name: str, taken: Iterable[str]) -> None:
    """Nobody else is called C{name}."""
    if name in taken:
        raise Taken(f'there is a {noun} "{name}" already; "rvpfarm {noun} list" shows them')


def check_ports(farm: Farm, host: str, address: str, ports: Mapping[str, int]) -> None:
    """No other server listens at the same place, but for homes that take calls together.

    @param ports: the ports of the new server, by the option that changes each.
    @raise Refused: another one does.
    """
    servers: list[Home | Router] = [*farm.homes.values(), *farm.routers.values()]
    for server in servers:
        if not is_same_machine(server, host, address):
            continue
        used = {server.port, server.link_port} if isinstance(server, Home) else {server.port}
        for option, port in ports.items():
            together = isinstance(server, Home) and "--link-port" in ports and option == "--port"
            if port in used and not (together and port == server.port):
                kind = "home" if isinstance(server, Home) else "router"
                raise Taken(
                    f"port {port} on {address or host} is taken by {kind} {server.name}; "
                    f"give {option} another port, or --address an address of its own"
                )


def _check_together(farm: Farm) -> None:
    """No policy contradicts another.

    @raise Refused: two do.
    """
    for name in farm.domains:
        off = farm.policy("authentication", name) == "off"
        if off and farm.policy("default-acl", name) == "same-organisation":
            raise Refused(
                f"in {name} nobody can be told from a stranger while the policy authentication is off; "
                "set it to required, or default-acl to open or contacts-only"
            )


def _check_number(name: str, value: str) -> str:
    """The number in its one spelling.

    @raise Refused: it is none, or out of bounds.
    """
    least, most = RANGES[name]
    digits = value.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and least <= int(digits) <= most):
        raise Refused(f'"{value}" is no value of {name}; give a number from {least} to {most}')
    return str(int(digits))


def _check_policy(name: str, value: str) -> str:
    """The value in its one spelling.

    @raise Refused: the policy cannot have it.
    """
    if name in RANGES:
        return _check_number(name, value)
    words = value.lower().split()
    choices = CHOICES.get(name)
    if choices is None:
        return check_text(value, "value")
    if name in MANY:
        if words and set(words) <= set(choices) and len(set(words)) == len(words):
            return " ".join(words)
        raise Refused(
            f'"{value}" is no value of {name}; give one or several of {", ".join(choices)}, in order'
        )
    if len(words) == 1 and words[0] in choices:
        return words[0]
    raise Refused(f'"{value}" is no value of {name}; give one of {", ".join(choices)}')
