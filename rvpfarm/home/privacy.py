"""ACL (protocol notes 3.7, 8): who may do what with a node."""

from __future__ import annotations

from rvpfarm.auth.challenge import Identity
from rvpfarm.directory.model import Farm
from rvpfarm.home.node import News, Node, Outcome, Subscription, Visit
from rvpfarm.home.presence import OFFLINE
from rvpfarm.home.records import PutAcl, SavedAcl
from rvpfarm.protocol.acls import MOST_ENTRIES, Acl, parse_acl, render_acl
from rvpfarm.protocol.address import Principal
from rvpfarm.protocol.calls import BadRequest, Reply
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
    if b"content-type" not in visit.call.headers:
        acl = _amended(node.acl(visit.farm), acl, node.owner_key)
    before = node.own_acl
    node.set_acl(acl)

    def undo() -> None:
        node.set_acl(before)
        review(node, visit.farm)

    news = review(node, visit.farm)
    return Outcome(Reply(200), (PutAcl(SavedAcl(node.key, render_acl(acl))),), news=news, undo=undo)


def _amended(held: Acl, given: Acl, owner: str) -> Acl:
    """What C{given}, from a client that says no C{Content-Type}, makes of the list C{held}.

    pidgin's librvp sends no list but single entries: one for each new contact that grants it C{send-to} and
    C{presence}, one that denies them, and one with neither to take that back.  As a list these would leave
    the owner without any right of his own.  No list that is meant to be one says nothing of the owner and
    nothing of everybody, so what does is taken for changes to the principals it names.

    @raise BadRequest: there would be too many entries.
    """
    named = {ace.principal for ace in given.aces}
    if not named or None in named or owner in named:
        return given
    changed = tuple(ace for ace in given.aces if ace.grant or ace.deny)
    kept = tuple(ace for ace in held.aces if ace.principal not in named)
    if len(changed) + len(kept) > MOST_ENTRIES:
        raise BadRequest(f"more than {MOST_ENTRIES} entries")
    return Acl(changed + kept)


def review(node: Node, farm: Farm) -> list[News]:
    """Look again at who may watch, after the list, or what the default one follows from, has changed (8.5).

    @return: a last "offline" for those who may no longer, the present state for those who may again.
    """
    silenced: list[Subscription] = []
    welcomed = False
    for watcher in node.watchers.values():
        identity = _identity(watcher)
        sees = node.allows("presence", identity, farm)
        watcher.reads = node.allows("read", identity, farm)
        if sees != watcher.sees:
            watcher.sees = sees
            watcher.told, watcher.heard = "" if sees else OFFLINE, ""
            welcomed = welcomed or sees
            if not sees:
                silenced.append(watcher)
    news = [News(tuple(silenced), (render_state(OFFLINE),))] if silenced else []
    return news + node.late_news() if welcomed else news


def _identity(watcher: Subscription) -> Identity:
    """Who made the subscription, as proved at the time."""
    who = watcher.subscriber
    if not who.principal:
        return Identity(None, who.proof)
    return Identity(Principal(who.principal, who.url, "/" not in who.principal), who.proof)
