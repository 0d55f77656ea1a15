"""XML: a tree or a 400; a tree that is written means the same, and reads the same ever after."""

from __future__ import annotations

from xml.parsers import expat

from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.xml import (
    DEEPEST,
    Element,
    parse_document,
    parse_xml,
    render_document,
    render_element,
    render_inner,
)
from tests.fuzz.trees import damage_tree
from tests.protocol.test_xml import shape
from tests.support import printed

TOKENS = (
    *(
        b"<?xml version='1.0'?>",
        b'<?xml version="1.0" encoding="utf-8"?>',
        b"encoding='utf-16'",
        b"standalone='no'",
    ),
    *(
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
        b"<!DOCTYPE a SYSTEM 'x'>",
        b"&b;",
        b"&amp;",
        b"&#65;",
        b"&#0;",
        b"&#xD;",
    ),
    *(
        b"<!--",
        b"-->",
        b"<?pi",
        b"?>",
        b"<![CDATA[",
        b"]]>",
        b"]]",
        b"<a>",
        b"</a>",
        b"<a/>",
        b"<a",
        b"/>",
        b">",
        b"</",
    ),
    *(
        b" xmlns='DAV:'",
        b" xmlns=''",
        b" xmlns:d='DAV:'",
        b" xmlns:x='urn:x'",
        b" xmlns:r='urn:r'",
        b" xmlns:n1='n'",
    ),
    *(b" xmlns:r='http://schemas.microsoft.com/rvp/'", b" xmlns:a='HTTP://schemas.microsoft.com/RVP/acl'"),
    *(
        b" xml:lang='de'",
        b" x:y='z'",
        b" b='c'",
        b'"',
        b"'",
        b"=",
        b"<d:prop>",
        b"</d:prop>",
        b"<r:state>",
        b"<x:y/>",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x00",
        b"\r\n",
        b"\r",
        b"\t",
        b"\x0b",
        b"\xc3\xa4",
        b"\xed\xa0\x80",
        b"\xef\xbf\xbe",
    ),
    *(
        b"<a>" * DEEPEST,
        b"</a>" * DEEPEST,
        b"&#10;",
        b"&lt;",
        b"&gt;",
        b"&quot;",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
    ),
)

STEPS = (damage_tree,)


def seeds() -> list[bytes]:
    """All printed bodies, and some that are written in other ways."""
    some = [body for body, _ in printed.LENGTHS]
    some += [printed.PROPFIND_ALL, printed.MULTISTATUS_MIXED, printed.PROPPATCH_PLAIN]
    return [
        *some,
        b"<a/>",
        b"<!DOCTYPE a><a/>",
        b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        b"<?xml version='1.0' encoding='iso-8859-1'?><a>\xe4</a>",
        "<a>\u00e4</a>".encode("utf-16"),
        b"<a>" * DEEPEST + b"</a>" * DEEPEST,
        b"<p xmlns='urn:p' xmlns:q='urn:q' q:s='1'><q:k a='&lt;>/'><x/>]]&gt;<![CDATA[]]]]><![CDATA[>]]></q:k>"
        b"<t xmlns='' xml:lang='de'/><!-- c --><?p i?></p>",
        b"<A:rvpacl xmlns:A='http://schemas.Microsoft.com/rvp/acl'> <A:acl/>\r\n</A:rvpacl>\n",
    ]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as a document, and write what it says."""
    try:
        document = parse_document(data)
    except BadRequest:
        return
    root = document.root
    _check_accepted(data)
    depth = _depth(root)
    assert depth <= DEEPEST
    once = render_inner(root)
    if depth == DEEPEST:
        return  # inside a document of ours it would nest too deep
    parsed = parse_xml(render_document("r:x", render_element(root))).children[0]
    assert shape(parsed) == shape(root), "it means something else"
    assert render_inner(parse_xml(render_document("r:x", once))) == once, "it is written differently again"


def _check_accepted(data: bytes) -> None:
    """Only what another parser takes too, in UTF-8 and without a document type, is taken."""
    data.decode("utf-8")
    assert b"\x00" not in data
    parser = expat.ParserCreate(namespace_separator="\n")
    seen: list[object] = []
    parser.StartDoctypeDeclHandler = lambda *what: seen.append(what)
    parser.EntityDeclHandler = lambda *what: seen.append(what)
    parser.Parse(data, True)
    assert not seen, seen


def _depth(element: Element) -> int:
    """How deep it nests; without recursion, so that a tree that is too deep is a finding of its own."""
    deepest, waiting = 0, [(element, 1)]
    while waiting:
        one, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting += [(child, depth + 1) for child in one.children]
    return deepest
