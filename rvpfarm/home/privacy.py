"""ACL (protocol notes 3.7, 8): who may do what with a node."""

from __future__ import annotations

from rvpfarm.auth.challenge import Identity
from rvpfarm.home.node import News, Node, Outcome, Subscription, Visit
from rvpfarm.home.presence import OFFLINE
from rvpfarm.home.records import PutAcl, SavedAcl
from rvpfarm.protocol.acls import parse_acl, render_acl
from rvpfarm.protocol.address import Principal
from rvpfarm.protocol.calls import Reply
from rvpfarm.protocol.headers import check_content_type
from rvpfarm.protocol.properties import render_state


def access(node: Node, visit: Visit) -> Outcome:
    """Read the list when the body is empty, replace it otherwise."""
    if not visit.call.body.strip():
        node.demand("readacl", visit)
        return Outcome(Reply(200, ((b"Content-Type", b"text/xml"),), render_acl(node.acl(visit.farm))))
    node.demand("writeacl", visit)
    check_content_type(visit.call.headers)
    acl = parse_acl(visit.call.body, visit.names)
    before = node.own_acl
    node.set_acl(acl)

    def undo() -> None:
        node.set_acl(before)
        review(node, visit)

    news = review(node, visit)
    return Outcome(Reply(200), (PutAcl(SavedAcl(node.key, render_acl(acl))),), news=news, undo=undo)


def review(node: Node, visit: Visit) -> list[News]:
    """Look again at who may watch, after the list has changed (8.5).

    @return: a last "offline" for those who may no longer, the present state for those who may again.
    """
    silenced: list[Subscription] = []
    welcomed: list[Subscription] = []
    for watcher in node.watchers.values():
        identity = _identity(watcher)
        sees = node.allows("presence", identity, visit.farm)
        watcher.reads = node.allows("read", identity, visit.farm)
        if sees != watcher.sees:
            (welcomed if sees else silenced).append(watcher)
            watcher.sees = sees
    news = [News(tuple(silenced), (render_state(OFFLINE),))] if silenced else []
    news += [News((watcher,), (render_state(node.state_for(watcher.principal)),)) for watcher in welcomed]
    return news


def _identity(watcher: Subscription) -> Identity:
    """Who made the subscription, as proved at the time."""
    if not watcher.principal:
        return Identity(None, watcher.proof)
    return Identity(Principal(watcher.principal, watcher.url, "/" not in watcher.principal), watcher.proof)
