"""XML in and out: strict about what could harm, tolerant about what old clients write (RVP 9).

Refused are document types, entities, deep nesting, other encodings than UTF-8 and anything ill-formed.
The three namespaces of RVP are recognised however a client spells them, and always emitted as the prefixes
C{d}, C{r} and C{a}, which old clients compare as plain text (protocol notes 4.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from xml.parsers import expat

from rvpfarm.protocol.calls import BadRequest

#: WebDAV's namespace.
DAV = "DAV:"
#: The namespace of RVP's own elements and states.
RVP = "http://schemas.microsoft.com/rvp/"
#: The namespace of principals, credentials and rights.
ACL = "http://schemas.microsoft.com/rvp/acl/"

#: How deep a document may nest.
DEEPEST = 32

#: What counts as white space in XML; less than C{str.strip} takes.
SPACE = " \t\r\n"

#: The declaration that every document of ours begins with.
DECLARATION = '<?xml version="1.0"?>'

_XML = "http://www.w3.org/XML/1998/namespace"
_SPELLINGS = {name.lower().rstrip("/"): name for name in (DAV, RVP, ACL)}
_BOUND = f" xmlns:d='{DAV}' xmlns:r='{RVP}' xmlns:a='{ACL}'"
_ILLEGAL = r"\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"
_IN_TEXT = re.compile(rf"[&<\r{_ILLEGAL}]|\]\]>")
_IN_VALUE = re.compile(rf"[&<'\"\t\n\r{_ILLEGAL}]")
_UNSPEAKABLE = re.compile(f"[{_ILLEGAL}]")
_ESCAPES = {
    "&": "&amp;",
    "<": "&lt;",
    "]]>": "]]&gt;",
    "'": "&apos;",
    '"': "&quot;",
    "\t": "&#9;",
    "\n": "&#10;",
    "\r": "&#13;",
}

#: The prefix under which each namespace is emitted; C{xml} needs no declaration.
PREFIXES: Mapping[str, str] = MappingProxyType({DAV: "d", RVP: "r", ACL: "a", _XML: "xml"})


@dataclass(frozen=True, slots=True)
class QName:
    """The name of an element or attribute.

    @ivar namespace: empty when it has none; those of RVP in their exact spelling.
    """

    namespace: str
    local: str


#: The presence of a principal.
STATE = QName(RVP, "state")

#: Elements that hold text: they are never written as an empty-element tag, which kills an old client.
TEXTS = frozenset(
    (
        QName(DAV, "href"),
        QName(DAV, "displayname"),
        QName(DAV, "timeout"),
        QName(RVP, "email"),
        QName(RVP, "mobile-state"),
        QName(RVP, "mobile-description"),
        QName(RVP, "description"),
        QName(RVP, "view-id"),
        QName(RVP, "mime-data"),
    )
)


class CData(str):
    """Character data that stood in a CDATA section."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class Element:
    """One element, with everything needed to write it again.

    @ivar prefix: as the document wrote it; empty for none.
    @ivar attributes: without namespace declarations.
    @ivar bindings: prefix to namespace, exactly as declared on this very element.
    @ivar content: character data and elements in their order.
    @ivar self_closed: written as an empty-element tag.
    """

    name: QName
    prefix: str
    attributes: dict[QName, str]
    bindings: dict[str, str]
    content: list[str | Element]
    self_closed: bool = False

    @property
    def text(self) -> str:
        """All character data directly inside."""
        return "".join([piece for piece in self.content if isinstance(piece, str)])

    @property
    def trimmed(self) -> str:
        """The same without white space around it: what a text element means."""
        return self.text.strip(SPACE)

    @property
    def children(self) -> list[Element]:
        """The elements directly inside."""
        return [piece for piece in self.content if not isinstance(piece, str)]

    def every(self, local: str, *namespaces: str) -> list[Element]:
        """The children of that name in any of C{namespaces}."""
        return [
            child
            for child in self.content
            if not isinstance(child, str) and child.name.local == local and child.name.namespace in namespaces
        ]

    def only(self, local: str, *namespaces: str) -> Element | None:
        """The child of that name, C{None} if there is none.

        @raise BadRequest: there are several.
        """
        found = None
        for child in self.content:
            if not isinstance(child, str) and child.name.local == local:
                if child.name.namespace not in namespaces:
                    continue
                if found is not None:
                    raise BadRequest(f"more than one {local} element")
                found = child
        return found

    def walk(self) -> Iterator[Element]:
        """This element and everything inside, in document order."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting.extend(reversed(element.children))


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was written.

    @ivar bare: it starts with L{DECLARATION}, the root follows at once, and there are neither comments
        nor processing instructions anywhere, nor anything after the root.
    """

    root: Element
    bare: bool


def parse_xml(data: bytes) -> Element:
    """The root element of the document C{data}.

    @raise BadRequest: it is none, or one that is refused.
    """
    return parse_document(data).root


def parse_document(data: bytes) -> Document:
    """The document C{data}, and how it was written.

    @raise BadRequest: it is none, or one that is refused.
    """
    if not data:
        raise BadRequest("the body is empty")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    if b"\x00" in data:  # expat would guess at UTF-16
        raise BadRequest("the body is not XML")
    builder = _Builder(data)
    root = builder.build()
    after = data.find(b"?>") + 2
    bare = (
        builder.bare
        and data.startswith(DECLARATION.encode())
        and after == builder.root_at
        and data.endswith(b">")
    )
    return Document(root, bare)


def escape(text: str) -> str:
    """C{text} as character data; characters that XML cannot have become U+FFFD."""
    return _IN_TEXT.sub(_replacement, text) if _IN_TEXT.search(text) else text


def cdata(text: str) -> str:
    """C{text} as CDATA sections: as many as it takes to hold every C{]]>}."""
    text = _UNSPEAKABLE.sub("\ufffd", text).replace("]]>", "]]]]><![CDATA[>")
    return f"<![CDATA[{text}]]>"


def render_document(tag: str, inner: str) -> bytes:
    """A whole document with the root C{tag} (prefix and all) around C{inner}."""
    return f"{opening(tag)}{inner}</{tag}>".encode()


def opening(tag: str) -> str:
    """What a document with the root C{tag} begins with, up to the end of that tag."""
    return f"{DECLARATION}<{tag}{_BOUND}>"


def render_element(element: Element, scope: Mapping[str, str] = PREFIXES) -> str:
    """C{element} as it stands in a document of ours.

    Other people's namespaces get prefixes C{n1}, C{n2} ... and are declared where they first appear, so that
    the same content always reads the same.

    @param scope: the prefixes that are in force around it.
    """
    declared: dict[str, str] = {}
    tag = _tag(element.name, scope, declared)
    parts = [tag]
    for name, value in element.attributes.items():
        parts.append(f"{_tag(name, scope, declared)}='{_value(value)}'")
    parts.extend(f"xmlns:{prefix}='{_value(namespace)}'" for namespace, prefix in declared.items())
    inner = render_inner(element, {**scope, **declared} if declared else scope)
    if not inner and element.name not in TEXTS:
        return f"<{' '.join(parts)}/>"
    return f"<{' '.join(parts)}>{inner}</{tag}>"


def render_inner(element: Element, scope: Mapping[str, str] = PREFIXES) -> str:
    """What is inside C{element}, as it stands in a document of ours."""
    rendered: list[str] = []
    text = ""
    for piece in element.content:
        if isinstance(piece, str):
            text += piece  # pieces are joined first, or a "]]" and a ">" would meet unescaped
        else:
            rendered += (escape(text), render_element(piece, scope))
            text = ""
    rendered.append(escape(text))
    return "".join(rendered)


def render_tags(name: QName) -> tuple[str, str]:
    """The start tag and the end tag of an element without attributes in a document of ours."""
    declared: dict[str, str] = {}
    tag = _tag(name, PREFIXES, declared)
    bound = "".join(f" xmlns:{prefix}='{_value(namespace)}'" for namespace, prefix in declared.items())
    return f"<{tag}{bound}>", f"</{tag}>"


def _tag(name: QName, scope: Mapping[str, str], declared: dict[str, str]) -> str:
    """C{name} with its prefix; a namespace without one is added to C{declared}."""
    if not name.namespace:
        return name.local
    prefix = scope.get(name.namespace) or declared.get(name.namespace)
    if prefix is None:
        prefix = declared[name.namespace] = f"n{len(scope) + len(declared) - len(PREFIXES) + 1}"
    return f"{prefix}:{name.local}"


def _value(text: str) -> str:
    """C{text} as the value of an attribute."""
    return _IN_VALUE.sub(_replacement, text)


def _replacement(match: re.Match[str]) -> str:
    """What is written in place of text that cannot stand as it is."""
    return _ESCAPES.get(match[0], "\ufffd")


#: RVP's commonest elements by what expat calls them; everything else costs a little more.
_COMMON = {
    f"{namespace}\n{local}\n{PREFIXES[namespace]}": (QName(namespace, local), PREFIXES[namespace])
    for namespace, locals_ in (
        (DAV, "href prop propfind propertyupdate set timeout displayname allprop"),
        (RVP, "notification message notification-from notification-to contact description msgbody mime-data"),
        (RVP, "propnotification state leased-value value default-value view-id online offline busy away"),
        (ACL, "principal rvp-principal allprincipals credentials ace grant deny assertion digest ntlm"),
    )
    for local in locals_.split()
}


def _qname(name: str) -> tuple[QName, str]:
    """The name and the prefix in what expat calls it."""
    common = _COMMON.get(name)
    if common is not None:
        return common
    namespace, _, rest = name.rpartition("\n") if name.count("\n") < 2 else name.partition("\n")
    local, _, prefix = rest.partition("\n")
    if namespace:
        namespace = _SPELLINGS.get(namespace.lower().removesuffix("/"), namespace)
    return QName(namespace, local), prefix


class _Builder:
    """Builds the tree of one document out of expat's events.

    @ivar bare: neither comments nor processing instructions so far.
    @ivar root_at: where the root begins.
    """

    def __init__(self, data: bytes) -> None:
        self.bare = True
        self.root_at = -1
        self._data = data
        self._open: list[Element] = []
        self._root: Element | None = None
        self._bindings: dict[str, str] = {}
        self._section: int | None = None

    def build(self) -> Element:
        """Parse everything.

        @raise BadRequest: the document is refused.
        """
        parser = expat.ParserCreate("UTF-8", "\n")
        parser.namespace_prefixes = True
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._refused
        parser.EntityDeclHandler = self._refused
        parser.StartNamespaceDeclHandler = self._binding
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartCdataSectionHandler = self._start_section
        parser.EndCdataSectionHandler = self._end_section
        parser.CommentHandler = parser.ProcessingInstructionHandler = self._remark
        parser.StartElementHandler = lambda name, attributes: self._start(
            name, attributes, parser.CurrentByteIndex
        )
        try:
            parser.Parse(self._data, True)
        except expat.ExpatError as error:
            raise BadRequest(f"the body is not well-formed: {error}") from None
        finally:
            parser.StartElementHandler = None  # or the parser would hold itself
        assert self._root is not None  # expat insists on a root
        return self._root

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8"):
            raise BadRequest("the body is not UTF-8")

    def _refused(self, *what: object) -> None:
        raise BadRequest("document types and entities are refused")

    def _remark(self, *what: object) -> None:
        self.bare = False

    def _binding(self, prefix: str | None, namespace: str | None) -> None:
        self._bindings[prefix or ""] = namespace or ""

    def _start(self, name: str, attributes: dict[str, str], at: int) -> None:
        if len(self._open) == DEEPEST:
            raise BadRequest(f"the body nests deeper than {DEEPEST}")
        qname, prefix = _qname(name)
        values = {_qname(key)[0]: value for key, value in attributes.items()} if attributes else {}
        element = Element(qname, prefix, values, self._bindings, [])
        self._bindings = {}
        element.self_closed = self._closes(at)
        if self._open:
            self._open[-1].content.append(element)
        else:
            self._root = element
            self.root_at = at
        self._open.append(element)

    def _closes(self, at: int) -> bool:
        """Is the tag at C{at} one of an empty element?  Quoted values may hold what looks like its end."""
        data, quote = self._data, b""
        end = data.find(b">", at)
        if data.find(b"=", at, end) == -1:
            return data[end - 1] == 47  # a slash
        while True:
            quote = _unclosed(data[at:end], quote)
            if not quote:
                return data[end - 1 : end] == b"/"
            at, end = end, data.find(b">", end + 1)

    def _end(self, name: str) -> None:
        self._open.pop()

    def _characters(self, data: str) -> None:
        self._open[-1].content.append(data if self._section is None else CData(data))

    def _start_section(self) -> None:
        self._section = len(self._open[-1].content)

    def _end_section(self) -> None:
        content = self._open[-1].content
        if self._section == len(content):
            content.append(CData())
        self._section = None


def _unclosed(tag: bytes, quote: bytes) -> bytes:
    """The quotation mark that is still open at the end of C{tag}, which began inside C{quote}."""
    for mark in re.findall(rb"[\"']", tag):
        if not quote:
            quote = mark
        elif mark == quote:
            quote = b""
    return quote
