"""What the directory says of a router, which it need not list."""

from __future__ import annotations

from twisted.logger import Logger

from rvpfarm.directory.model import Farm, Router
from rvpfarm.tap.daemon import record_of
from rvpfarm.tap.settings import RouterOptions

_log = Logger()


def own_record(farm: Farm, name: str) -> Router:
    """The record of the router C{name}, or an empty one if it is not listed.

    It is looked up by name whenever it is needed: a router may be listed while it runs, and then is anew.
    """
    for router in farm.routers.values():
        if router.name == name:
            return router
    return Router("", name, "", 0)


def find_record(farm: Farm, options: RouterOptions) -> Router:
    """The record of this router, at its start.  One that is told where to listen need not be listed: it keeps
    nothing, so to add a router is to start it.

    @raise SystemExit: the directory does not list it, and nobody said where to listen.
    """
    name = options["name"]
    if options["listen"] is None:
        return record_of(farm.routers, name, "router")
    record = own_record(farm, name)
    if not record.id:
        _log.warn(
            'the directory does not list the router "{name}", which works all the same; but the DNS plan '
            'leaves it out, and nothing forbids to name it as a call-back; "rvpfarm router create {name} '
            '--host HOST --port PORT --address ADDRESS" lists it',
            name=name,
        )
    return record
