"""Routers and homes that are there already: shown, drained, taken back, removed (product F05, D21)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Refused, enumerate_names
from rvpfarm.admin.users import Rehearsed
from rvpfarm.directory.model import Farm, Router
from rvpfarm.directory.store import Store
from rvpfarm.directory.writing import Writing
from rvpfarm.discovery.zone import active

#: What a server is when it takes whatever comes, and when it is being emptied.
ACTIVE, DRAINING = "active", "draining"


@dataclass(frozen=True, slots=True)
class RouterChange:
    """What was done with a router.

    @ivar router: as it is now, or was when it was removed.
    @ivar left: how many routers are active afterwards.
    """

    router: Router
    left: int


def router_named(farm: Farm, name: str) -> Router:
    """The router of that name.

    @raise Refused: there is none.
    """
    wanted = name.strip().lower()
    for router in farm.routers.values():
        if router.name == wanted:
            return router
    if not farm.routers:
        raise Refused(
            'there is no router yet; make one with "rvpfarm router create r1 --host im.example.com"'
        )
    names = enumerate_names(router.name for router in farm.routers.values())
    raise Refused(f'there is no router "{name}"; give one of {names}')


def drain_router(
    store: Store, name: str, *, force: bool = False, actor: str | None = None, dry_run: bool = False
) -> RouterChange:
    """A router that is to get nothing new, so that it can be stopped.

    @param force: also the last active one.
    @raise Refused: there is none of that name, it drains already, or nobody else would be left.
    """

    def drain(writing: Writing, farm: Farm, router: Router) -> Router:
        if router.state == DRAINING:
            raise Refused(f'router {router.name} drains already; "rvpfarm router resume" takes it back')
        _keep_one(farm, router, force)
        drained = replace(router, state=DRAINING)
        writing.update_router(drained)
        return drained

    return _change(store, "router drain", name, drain, actor, dry_run)


def resume_router(
    store: Store, name: str, *, actor: str | None = None, dry_run: bool = False
) -> RouterChange:
    """A router that drained and shall get work again.

    @raise Refused: there is none of that name, or it does not drain.
    """

    def resume(writing: Writing, farm: Farm, router: Router) -> Router:
        if router.state == ACTIVE:
            raise Refused(f"router {router.name} is active already")
        resumed = replace(router, state=ACTIVE)
        writing.update_router(resumed)
        return resumed

    return _change(store, "router resume", name, resume, actor, dry_run)


def remove_router(
    store: Store, name: str, *, force: bool = False, actor: str | None = None, dry_run: bool = False
) -> RouterChange:
    """A router that is there no longer.

    @param force: also an active one, or the last.
    @raise Refused: there is none of that name, it has not been drained, or nobody else would be left.
    """

    def remove(writing: Writing, farm: Farm, router: Router) -> Router:
        _keep_one(farm, router, force)
        if router.state == ACTIVE and not force:
            raise Refused(
                f'router {router.name} is active, and clients know it; first "rvpfarm router drain '
                f'{router.name}", or give --yes'
            )
        writing.remove_router(router)
        return router

    return _change(store, "router remove", name, remove, actor, dry_run)


def _keep_one(farm: Farm, router: Router, force: bool) -> None:
    """Another router than this one is active.

    @raise Refused: none is, and nobody insists.
    """
    others = [one for one in active(farm.routers.values()) if one.id != router.id]
    if others or force:
        return
    raise Refused(
        f"no other router is active, so that nobody would find the farm without {router.name}; "
        'make another with "rvpfarm router create", or give --yes'
    )


def _change(
    store: Store,
    action: str,
    name: str,
    change: Callable[[Writing, Farm, Router], Router],
    actor: str | None,
    dry_run: bool,
) -> RouterChange:
    """Do something with the router called C{name}."""
    with suppress(Rehearsed), store.change(actor or default_actor(), action, name) as writing:
        farm = writing.farm()
        router = router_named(farm, name)
        writing.subject = router.name
        router = change(writing, farm, router)
        done = RouterChange(router, len(active(writing.farm().routers.values())))
        if dry_run:
            raise Rehearsed
    return done
