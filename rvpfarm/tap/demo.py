"""Makes the directory of a farm on one machine: key, tables, domain, servers, users and their passwords.

Everything is made at the first start and found again at the next; a later start only follows what
its options say differently.
"""

from __future__ import annotations

from dataclasses import replace

from rvpfarm.admin import handlers
from rvpfarm.admin.checks import enumerate_names
from rvpfarm.auth.logins import make_verifiers
from rvpfarm.directory.model import Account, DirectoryUnavailable, Farm
from rvpfarm.directory.store import Store
from rvpfarm.directory.writing import Writing
from rvpfarm.tap.plan import Plan
from rvpfarm.tap.state import State, User, read_passwords, write_passwords

#: Who the audit trail names.
ACTOR = "rvp-farm"


def prepare_farm(plan: Plan, state: State, one_password: str | None) -> tuple[User, ...]:
    """Make the directory say what C{plan} says: key, tables, domain, servers, users.

    @param one_password: every user's from now on; C{None} keeps the known ones and makes the missing.
    @return: the users.
    @raise SystemExit: it cannot be done; one sentence.
    """
    try:
        store, _new = handlers.prepare(state.directory, state.key_file)
        try:
            handlers.init(store, actor=ACTOR)
            _settle_domain(store, plan, state)
            _settle_servers(store, plan)
            return _settle_users(store, plan, state, one_password)
        finally:
            store.close()
    except (handlers.Refused, DirectoryUnavailable) as problem:
        raise SystemExit(f"rvp-farm: {problem}") from problem
    except OSError as problem:
        raise SystemExit(f"rvp-farm: cannot keep state in {state.path}: {problem}") from problem


def _settle_domain(store: Store, plan: Plan, state: State) -> None:
    """The IM domain, unless it is there."""
    known = handlers.farm_of(store).domains
    if plan.im_domain in known:
        return
    if known:
        raise handlers.Refused(
            f"the farm in {state.path} is {enumerate_names(known)}, not {plan.im_domain}; "
            "give --domain what it was made with, or begin another with --state-dir"
        )
    handlers.add_domain(store, plan.im_domain, [plan.mail_domain], actor=ACTOR)


def _settle_servers(store: Store, plan: Plan) -> None:
    """Homes and routers where C{plan} has them."""
    farm = handlers.farm_of(store)
    gone = {home.name for home in farm.homes.values()} - {member.name for member in plan.homes}
    if gone:
        raise handlers.Refused(
            f"users live on {enumerate_names(gone)}, which would not run; "
            "give --home once for each home, or begin another farm with --state-dir"
        )
    with store.change(ACTOR, "farm settle", plan.im_domain) as writing:
        _move_servers(writing, farm, plan)
    known = {home.name for home in farm.homes.values()}
    for member in plan.homes:
        if member.name not in known:
            assert member.link is not None
            listen, link = member.listen, member.link
            handlers.create_home(
                store,
                member.name,
                member.host,
                listen.port,
                link.port,
                listen.host,
                metrics=str(member.metrics),
                actor=ACTOR,
            )
    known = {router.name for router in farm.routers.values()}
    for member in plan.routers:
        if member.name not in known:
            listen = member.listen
            handlers.create_router(
                store,
                member.name,
                member.host,
                listen.port,
                listen.host,
                metrics=str(member.metrics),
                actor=ACTOR,
            )


def _move_servers(writing: Writing, farm: Farm, plan: Plan) -> None:
    """Let what is recorded follow to new addresses; a router that is no longer wanted goes."""
    members = {member.name: member for member in (*plan.homes, *plan.routers)}
    for home in farm.homes.values():
        member = members[home.name]
        assert member.link is not None
        writing.update_home(
            replace(
                home,
                port=member.listen.port,
                link_port=member.link.port,
                address=member.listen.host,
                metrics=str(member.metrics),
            )
        )
    for router in farm.routers.values():
        if router.name in members:
            member = members[router.name]
            place, metrics = member.listen, str(member.metrics)
            writing.update_router(replace(router, port=place.port, address=place.host, metrics=metrics))
        else:
            writing.remove_router(router)


def _settle_users(store: Store, plan: Plan, state: State, one_password: str | None) -> tuple[User, ...]:
    """The users and their passwords."""
    kept = read_passwords(state.passwords)
    users: list[tuple[Account, str]] = []
    for alias in plan.aliases:
        address = f"{alias}@{plan.mail_domain}"
        account, known = handlers.find_user(store, address), kept.get(address)
        password = one_password or known or handlers.generate_password()
        if account is None:
            home, shown_name = plan.home_of(alias).name, alias.capitalize()
            account = handlers.enable_user(
                store, address, home, plan.im_domain, shown_name, password, actor=ACTOR
            )
        elif not _proves(store, account, password):
            if known is None or one_password is not None:
                handlers.set_password(store, address, password, actor=ACTOR)
            else:
                password = ""  # an administrator set another one: it stays
        users.append((account, password))
    shown = {account.address: password for account, password in users if password}
    if shown != {address: kept.get(address) for address in shown}:
        write_passwords(state.passwords, {**kept, **shown})
    homes = handlers.farm_of(store).homes
    return tuple(
        User(account.alias, account.address, homes[account.home].name, password, account.enabled)
        for account, password in users
    )


def _proves(store: Store, account: Account, password: str) -> bool:
    """Is C{password} the account's?"""
    with store.read() as reading:
        held = reading.account(account.key)
        domain = reading.farm().domains[account.domain]
    expected = set(make_verifiers(account.alias, domain, password))
    return held is not None and bool(held.verifiers) and expected >= set(held.verifiers)
