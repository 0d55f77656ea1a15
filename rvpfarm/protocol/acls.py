"""Access control lists on the wire (RVP 5.7; protocol notes 3.7 and 8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rvpfarm.protocol.address import Names, Principal, parse_principal
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.xml import ACL, RVP, Element, escape, parse_xml, render_document

#: Every right, in the order in which they are written.
RIGHTS = (
    "list",
    "read",
    "write",
    "send-to",
    "receive-from",
    "readacl",
    "writeacl",
    "presence",
    "subscriptions",
    "subscribe-others",
)
#: Short for all of them.
ALL_RIGHTS = "all"
#: How a claim to be somebody may be proved, in the order in which they are written.
CREDENTIALS = ("any", "assertion", "digest", "internal", "ntlm")
#: How many entries a list may have.
MOST_ENTRIES = 512

_ORDER = (*RIGHTS, ALL_RIGHTS)


@dataclass(frozen=True, slots=True)
class Ace:
    """One entry of a list: whom it means, how they prove it, and what they may and may not.

    @ivar principal: a principal key; C{None} means everybody.
    @ivar principal_url: the logical URL or server-id as it is written; empty for everybody.
    @ivar credentials: some of L{CREDENTIALS}.
    @ivar grant: some of L{RIGHTS} and L{ALL_RIGHTS}.
    @ivar deny: likewise.
    """

    principal: str | None
    principal_url: str
    credentials: frozenset[str]
    grant: frozenset[str]
    deny: frozenset[str]


@dataclass(frozen=True, slots=True)
class Acl:
    """The list of one node.  The order of its entries decides nothing, and is kept."""

    aces: tuple[Ace, ...]


#: What L{default_acl} can be: for everybody, for whoever proved to be of this farm, for the owner alone.
OPENNESS = ("open", "same-organisation", "contacts-only")


def default_acl(owner: Principal, *, authentication: bool, openness: str = "open") -> Acl:
    """The list of a node that nobody has changed: who may look and write to; the owner may everything.

    No entry can name an organisation (protocol notes 8.2).  But only users of this farm have anything to
    prove themselves with here, so an entry for everybody that no mere claim satisfies means just them;
    C{internal} is there for what another member of the farm vouches for.

    @param authentication: people must prove who they are; without it, the owner's word is enough.
    @param openness: one of L{OPENNESS}.
    """
    proved = frozenset(("digest", "ntlm"))
    claimed = proved | {"assertion"}
    others = frozenset(("list", "read", "send-to", "presence"))
    own = Ace(owner.key, owner.url, proved if authentication else claimed, frozenset(RIGHTS), frozenset())
    if openness == "contacts-only":
        return Acl((own,))
    whom = claimed if openness == "open" else proved | {"internal"}
    return Acl((Ace(None, "", whom, others, frozenset()), own))


def parse_acl(body: bytes, names: Names) -> Acl:
    """Read a list that is to replace another (protocol notes 8.6).

    @raise BadRequest: it is not one, or says what cannot be.
    """
    root = parse_xml(body)
    if root.name.namespace != ACL or root.name.local != "rvpacl":
        raise BadRequest("the body is not an rvpacl")
    acl = root.only("acl", ACL)
    if acl is None:
        raise BadRequest("the rvpacl has no acl")
    inheritance = acl.only("inheritance", ACL)
    if inheritance is not None and inheritance.trimmed != "none":
        raise BadRequest("there is no inheritance but none")
    aces = acl.every("ace", ACL)
    if len(aces) > MOST_ENTRIES:
        raise BadRequest(f"more than {MOST_ENTRIES} entries")
    return Acl(tuple([_ace(ace, names) for ace in aces]))


def render_acl(acl: Acl) -> bytes:
    """The list as a client reads it."""
    aces = "".join([_render(ace) for ace in acl.aces])
    return render_document("a:rvpacl", f"<a:acl><a:inheritance>none</a:inheritance>{aces}</a:acl>")


def _ace(ace: Element, names: Names) -> Ace:
    """One entry.

    @raise BadRequest: it is not one.
    """
    holder = ace.only("principal", ACL, RVP)
    if holder is None:
        raise BadRequest("an entry names no principal")
    named = holder.only("rvp-principal", ACL, RVP)
    everybody = holder.only("allprincipals", ACL)
    if (named is None) == (everybody is None):
        raise BadRequest("an entry means either one principal or everybody")
    key, url = None, ""
    if named is not None:
        principal = parse_principal(named.trimmed, names)
        key, url = principal.key, principal.url
    credentials = holder.only("credentials", ACL)
    if credentials is None or not credentials.children:
        text = "Credentials not specified"
        raise BadRequest(text, reason=text.encode())
    return Ace(
        key,
        url,
        _words((credentials,), CREDENTIALS),
        _words(ace.every("grant", ACL) + ace.every("allow", ACL), _ORDER),
        _words(ace.every("deny", ACL), _ORDER),
    )


def _words(holders: Iterable[Element], known: tuple[str, ...]) -> frozenset[str]:
    """The names of the elements inside C{holders}.

    @raise BadRequest: one of them is not C{known}.
    """
    words = set()
    for holder in holders:
        for child in holder.children:
            if child.name.namespace != ACL or child.name.local not in known:
                raise BadRequest(f"there is no right or credential {child.name.local}")
            words.add(child.name.local)
    return frozenset(words)


def _render(ace: Ace) -> str:
    """One entry."""
    if ace.principal is None:
        principal = "<a:allprincipals/>"
    else:
        principal = f"<a:rvp-principal>{escape(ace.principal_url)}</a:rvp-principal>"
    credentials = _elements("credentials", ace.credentials, CREDENTIALS)
    return (
        f"<a:ace><a:principal>{principal}{credentials}</a:principal>"
        f"{_elements('grant', ace.grant, _ORDER)}{_elements('deny', ace.deny, _ORDER)}</a:ace>"
    )


def _elements(name: str, words: frozenset[str], order: tuple[str, ...]) -> str:
    """The element C{name} around one empty element for each of C{words}."""
    if not words:
        return f"<a:{name}/>"
    return f"<a:{name}>{''.join([f'<a:{word}/>' for word in order if word in words])}</a:{name}>"
