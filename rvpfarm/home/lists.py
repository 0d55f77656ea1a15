"""Access lists as administrators see and set them: what holds for everybody, and who is named (core)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rvpfarm.directory.model import Farm
from rvpfarm.home.node import Node, Outcome
from rvpfarm.home.privacy import review
from rvpfarm.home.records import DropAcl, PutAcl, SavedAcl
from rvpfarm.protocol.acls import MOST_ENTRIES, OPENNESS, RIGHTS, Ace, Acl, default_acl, render_acl
from rvpfarm.protocol.address import Names, Principal, parse_principal
from rvpfarm.protocol.calls import BadRequest, Reply
from rvpfarm.protocol.control import Entry, Privacy

#: What who is allowed may do, and who is denied may not: what the default list lets everybody.
ALLOWED = frozenset(("list", "read", "send-to", "presence"))
#: Goes back to the default list.
DEFAULT = "default"
#: What an administrator may set for everybody who is not named.
MODES = (*OPENNESS, DEFAULT)

_ANY = frozenset(("any",))


@dataclass(frozen=True, slots=True)
class Wish:
    """What an administrator wants changed of an access list.

    @ivar mode: one of L{MODES}; empty to leave it.
    @ivar allow: URLs of those who may; C{deny} of those who may not; C{remove} of those no longer named.
    """

    mode: str = ""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Nothing is wanted but to see it."""
        return not (self.mode or self.allow or self.deny or self.remove)


def describe(node: Node, farm: Farm) -> Privacy:
    """The list in force."""
    return _describe(node.acl(farm), node, farm)


def _describe(acl: Acl, node: Node, farm: Farm) -> Privacy:
    entries = tuple(
        Entry(ace.principal_url, _effect(ace), _ordered(ace.grant), _ordered(ace.deny))
        for ace in acl.aces
        if ace.principal not in (None, node.owner_key)
    )
    everybody = _of(acl.aces, None)
    modes = [mode for mode in OPENNESS if _of(_default(node, farm, mode).aces, None) == everybody]
    return Privacy(modes[0] if modes else "custom", node.own_acl is not None, entries)


def change(node: Node, farm: Farm, names: Names, wish: Wish) -> tuple[Outcome, Privacy, Privacy]:
    """Give C{node} the list that C{wish} makes of the one in force.

    @return: what follows, and the list before and after.
    @raise BadRequest: it cannot be done.
    """
    before, held = describe(node, farm), node.own_acl
    acl = _wanted(node, farm, names, wish)
    node.set_acl(acl)

    def undo() -> None:
        node.set_acl(held)
        review(node, farm)

    news = review(node, farm)
    record = DropAcl(node.key) if acl is None else PutAcl(SavedAcl(node.key, render_acl(acl)))
    return Outcome(Reply(200), (record,), news=news, undo=undo), before, describe(node, farm)


def rehearse(node: Node, farm: Farm, names: Names, wish: Wish) -> tuple[Privacy, Privacy]:
    """The list before and after L{change}, which is not done.

    @raise BadRequest: it cannot be done.
    """
    before, acl = describe(node, farm), _wanted(node, farm, names, wish)
    if acl is None:
        default = _default(node, farm, farm.policy("default-acl", node.domain))
        plain = _describe(default, node, farm)
        return before, Privacy(plain.mode, False)
    after = _describe(acl, node, farm)
    return before, Privacy(after.mode, True, after.entries)


def _wanted(node: Node, farm: Farm, names: Names, wish: Wish) -> Acl | None:
    """The list that is to be; C{None} for the default one.

    @raise BadRequest: it cannot be had.
    """
    if wish.mode and wish.mode not in MODES:
        raise BadRequest(f"there is no mode {wish.mode}")
    aces = node.acl(farm).aces
    if wish.mode == DEFAULT:
        if wish.allow or wish.deny or wish.remove:
            raise BadRequest("the default list names nobody")
        return None
    if wish.mode:
        rest = tuple(ace for ace in aces if ace.principal is not None)
        aces = _of(_default(node, farm, wish.mode).aces, None) + rest
    allow, deny, remove = (_principals(urls, names) for urls in (wish.allow, wish.deny, wish.remove))
    named = {principal.key for principal in (*allow, *deny, *remove)}
    if node.owner_key in named:
        raise BadRequest("whoever owns the list may everything, and is not to be named on it")
    if len(named) < len(allow) + len(deny) + len(remove):
        raise BadRequest("somebody is named twice")
    held = {ace.principal for ace in aces}
    missing = [principal.url for principal in remove if principal.key not in held]
    if missing:
        raise BadRequest(f"{missing[0]} is not on the list")
    aces = tuple(ace for ace in aces if ace.principal not in named)
    aces += tuple(Ace(who.key, who.url, _ANY, ALLOWED, frozenset()) for who in allow)
    aces += tuple(Ace(who.key, who.url, _ANY, frozenset(), ALLOWED) for who in deny)
    if len(aces) > MOST_ENTRIES:
        raise BadRequest(f"more than {MOST_ENTRIES} entries")
    return Acl(aces)


def _default(node: Node, farm: Farm, mode: str) -> Acl:
    """The list that the policy C{default-acl} would give the node if it were C{mode}."""
    owner = Principal(node.owner_key, f"http://{node.owner_key}", False)
    asked = farm.policy("authentication", node.domain) != "off"
    return default_acl(owner, authentication=asked, openness=mode)


def _of(aces: Iterable[Ace], principal: str | None) -> tuple[Ace, ...]:
    """What is said of one principal."""
    return tuple(ace for ace in aces if ace.principal == principal)


def _effect(ace: Ace) -> str:
    """What an entry comes to, in a word: a client of old may have granted less than all of it."""
    if not ace.deny and {"send-to", "presence"} <= ace.grant | _all(ace.grant):
        return "allow"
    if not ace.grant and {"send-to", "presence"} <= ace.deny | _all(ace.deny):
        return "deny"
    return "other"


def _all(rights: frozenset[str]) -> frozenset[str]:
    """Every right, if C{all} is among these."""
    return frozenset(RIGHTS) if "all" in rights else frozenset()


def _ordered(rights: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(rights))


def _principals(urls: Iterable[str], names: Names) -> list[Principal]:
    """Whom the URLs mean.

    @raise BadRequest: one means nobody.
    """
    return [parse_principal(url, names) for url in urls]
