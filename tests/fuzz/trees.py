"""Damage to XML that keeps it well-formed, mostly: whole elements are left out, doubled, moved and renamed."""

from __future__ import annotations

import re
from random import Random

_PIECES = re.compile(rb"<!\[CDATA\[.*?\]\]>|<!--.*?-->|<[^<>]*>|[^<]+|<", re.DOTALL)
_TAG = re.compile(rb"<(/?)([^\s<>/!?]+)([^<>]*?)(/?)>", re.DOTALL)

#: A namespace that is everywhere, since all roots of ours declare it.
_NAMES = (
    *(
        b"d:href",
        b"d:prop",
        b"d:set",
        b"d:remove",
        b"d:propertyupdate",
        b"d:timeout",
        b"d:displayname",
        b"d:allprop",
    ),
    *(
        b"r:state",
        b"r:online",
        b"r:offline",
        b"r:leased-value",
        b"r:value",
        b"r:default-value",
        b"r:view-id",
        b"r:email",
    ),
    *(
        b"r:message",
        b"r:propnotification",
        b"r:contact",
        b"r:description",
        b"r:mime-data",
        b"r:notification-to",
    ),
    *(
        b"a:ace",
        b"a:grant",
        b"a:deny",
        b"a:principal",
        b"a:credentials",
        b"a:allprincipals",
        b"a:digest",
        b"a:read",
    ),
    *(b"x", b"z:y"),
)
_TEXTS = (
    b"",
    b" ",
    b"0",
    b"1",
    b"1200",
    b"9" * 11,
    b"none",
    b"&lt;",
    b"]]&gt;",
    b"<![CDATA[ ]]>",
    b"\r\n",
    b"<!-- -->",
    b"<?p?>",
)
_ATTRIBUTES = (
    b" xmlns='urn:x'",
    b" xmlns:r='urn:r'",
    b" b='>'",
    b" xmlns:z='urn:z' z:c='1'",
    b" xml:lang='de'",
)


def damage_tree(data: bytes, random: Random) -> bytes:
    """C{data} with one of its elements changed; C{data} itself if it has none."""
    pieces = _PIECES.findall(data)
    spans = _spans(pieces)
    if not spans:
        return data
    start, end = random.choice(spans)
    element = pieces[start:end]
    choice = random.randrange(8)
    if choice == 0:
        element = []
    elif choice == 1:
        element = element * 2
    elif choice == 2:
        element = _renamed(element, random.choice(_NAMES))
    elif choice == 3:
        element = [random.choice(_TEXTS), *element]
    elif choice == 4:
        element = [*element[:1], random.choice(_TEXTS), *element[1:][-1:]]
    elif choice == 5:
        name = random.choice(_NAMES)
        element = [b"<%s>" % name, *element, b"</%s>" % name]
    elif choice == 6:
        element = [_with(element[0], random.choice(_ATTRIBUTES)), *element[1:]]
    else:
        return b"".join(_moved(pieces, spans, (start, end), random))
    return b"".join((*pieces[:start], *element, *pieces[end:]))


def _spans(pieces: list[bytes]) -> list[tuple[int, int]]:
    """Where each element begins and ends."""
    spans, waiting = [], list[tuple[int, bytes]]()
    for index, piece in enumerate(pieces):
        match = _TAG.fullmatch(piece)
        if match is None:
            continue
        if match[1]:
            if waiting and waiting[-1][1] == match[2]:
                spans.append((waiting.pop()[0], index + 1))
        elif match[4]:
            spans.append((index, index + 1))
        else:
            waiting.append((index, match[2]))
    return spans


def _moved(
    pieces: list[bytes], spans: list[tuple[int, int]], which: tuple[int, int], random: Random
) -> list[bytes]:
    """One element before, or in place of, another."""
    element = pieces[which[0] : which[1]]
    start, end = random.choice(spans)
    if random.random() < 0.5:
        end = start
    return pieces[:start] + element + pieces[end:]


def _renamed(element: list[bytes], name: bytes) -> list[bytes]:
    match = _TAG.fullmatch(element[0])
    assert match is not None
    opening = b"<%s%s%s>" % (name, match[3], match[4])
    return [opening] if len(element) == 1 else [opening, *element[1:-1], b"</%s>" % name]


def _with(tag: bytes, attribute: bytes) -> bytes:
    """A start tag with one more attribute."""
    end = -2 if tag.endswith(b"/>") else -1
    return tag[:end] + attribute + tag[end:]
