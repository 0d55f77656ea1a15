"""Which bodies of NOTIFY every client understands as they are (protocol notes 6.4, 4.3).

Some clients compare prefixed names as plain text, others read namespace declarations from the root only.  So
a fit body is also one in which none of them can see another sender or message than we did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rvpfarm.protocol.properties import STATES
from rvpfarm.protocol.xml import ACL, DAV, PREFIXES, RVP, STATE, TEXTS, CData, Document, Element

_OURS: Mapping[str, str] = {"d": DAV, "r": RVP, "a": ACL}
_FROM, _TO = "notification-from", "notification-to"


def message_fits(document: Document) -> bool:
    """Can this message be relayed as it is?"""
    parts = _parts(document, "message")
    if parts is None or parts[-1].name.local != "msgbody":
        return False
    data = _known(parts[-1])
    return (
        _named(data, "mime-data")
        and not data[0].attributes
        and bool(data[0].content)
        and all(isinstance(piece, CData) for piece in data[0].content)
    )


def property_fits(document: Document) -> bool:
    """Can this property notification be relayed as it is?"""
    parts = _parts(document, "propnotification")
    if parts is None or parts[-1].name.local != "propertyupdate":
        return False
    steps = _known(parts[-1])
    if not steps or any(step.name.local not in ("set", "remove") for step in steps):
        return False
    groups = [_known(step) for step in steps]
    return all(_named(group, "prop") and _props_fit(group[0]) for group in groups)


def raw_fits(root: Element) -> bool:
    """Can this foreign content be relayed as it is?

    It can unless a prefix of ours means something else anywhere, or another one means ours at the root.
    """
    if root.prefix != "r" or root.bindings.get("r") != RVP:
        return False
    others = [uri.lower().rstrip("/") for prefix, uri in root.bindings.items() if prefix not in _OURS]
    if RVP.rstrip("/") in others:
        return False
    return all(
        _OURS.get(prefix, uri) == uri for element in root.walk() for prefix, uri in element.bindings.items()
    )


def _parts(document: Document, local: str) -> Sequence[Element] | None:
    """The parts of a message or property notification if everything around its content fits."""
    root = document.root
    if not document.bare or root.prefix != "r" or not _bound(root):
        return None
    tops = _known(root)
    if not _named(tops, local):
        return None
    parts = _known(tops[0])
    names = [part.name.local for part in parts]
    if len(names) < 3 or names[0] != _FROM or any(name != _TO for name in names[1:-1]):
        return None
    if any(not _party_fits(part) for part in parts[:-1]):
        return None
    return parts


def _bound(root: Element) -> bool:
    """Do our prefixes, and no others, mean our namespaces, and is that said on the root alone?"""
    bindings = root.bindings
    if "d" not in bindings or "r" not in bindings or "" in bindings:
        return False
    ours = [uri.lower().rstrip("/") for uri in _OURS.values()]
    for prefix, uri in bindings.items():
        if prefix in _OURS:
            if uri != _OURS[prefix]:
                return False
        elif uri.lower().rstrip("/") in ours:
            return False
    for element in root.walk():
        if element is not root and not _OURS.keys().isdisjoint(element.bindings):
            return False
        if element.prefix != PREFIXES.get(element.name.namespace, element.prefix):
            return False
    return True


def _known(element: Element) -> list[Element]:
    """The children of C{element} that are RVP's; none if there is anything that does not fit.

    Other people's elements fit as long as nothing of RVP is inside them.
    """
    if element.attributes or not all(isinstance(piece, Element) for piece in element.content):
        return []
    known = []
    for child in element.children:
        if child.name.namespace in (DAV, RVP, ACL):
            known.append(child)
        elif any(inner.name.namespace in (DAV, RVP, ACL) for inner in child.walk()):
            return []
    return known


def _named(elements: Sequence[Element], local: str) -> bool:
    """Is there exactly one element, and is that its name?"""
    return len(elements) == 1 and elements[0].name.local == local


def _party_fits(party: Element) -> bool:
    """Does it name one contact by URL and display name, as clients want it?"""
    contacts = _known(party)
    if not _named(contacts, "contact"):
        return False
    texts = _known(contacts[0])
    names = [text.name.local for text in texts]
    wanted = names == ["href", "description"] or (names == ["href"] and party.name.local == _TO)
    return wanted and bool(texts[0].content) and all(_text_fits(text) for text in texts)


def _text_fits(element: Element) -> bool:
    """Is it plain text, without white space around it, between a start tag and an end tag?"""
    return (
        not element.self_closed
        and not element.attributes
        and not any(isinstance(piece, CData | Element) for piece in element.content)
        and element.text == element.trimmed
    )


def _props_fit(group: Element) -> bool:
    """Are the properties in C{d:prop} such as clients take them: a presence plain, texts as texts?"""
    if group.attributes or not group.content or len(group.children) != len(group.content):
        return False
    for prop in group.children:
        if prop.name == STATE:
            states = _known(prop)
            if len(states) != 1 or len(prop.content) != 1 or states[0].name.namespace != RVP:
                return False
            if states[0].name.local not in STATES or states[0].content:
                return False
        elif prop.name in TEXTS:
            if not _text_fits(prop):
                return False
        elif prop.every("leased-value", RVP):
            return False
    return True
