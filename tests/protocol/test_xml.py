"""Tests of L{rvpfarm.protocol.xml}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.xml import (
    ACL,
    DAV,
    RVP,
    CData,
    Element,
    QName,
    cdata,
    escape,
    parse_document,
    parse_xml,
    render_document,
    render_element,
    render_inner,
    render_tags,
)
from tests.support import printed
from tests.support.hypothesis import MODEST

#: Text that XML can hold and that a parser gives back as it is.
TEXT = st.text(st.characters(exclude_characters="\ufffe\uffff", exclude_categories=("Cs", "Cc")))
NAMES = st.text("abcXYZ_", min_size=1, max_size=5)
SPACES = st.sampled_from(("", DAV, RVP, ACL, "urn:example:parcel", "urn:x'\"<&>", "http://n.example/"))


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> Element:
    """Any element."""
    content: list[str | Element] = draw(st.lists(TEXT | (elements(depth - 1) if depth else TEXT), max_size=3))
    attributes = draw(st.dictionaries(st.builds(QName, SPACES, NAMES), TEXT, max_size=2))
    return Element(draw(st.builds(QName, SPACES, NAMES)), "", attributes, {}, content)


def shape(element: Element) -> object:
    """Everything that C{element} means."""
    content: list[object] = []
    for piece in element.content:
        if isinstance(piece, Element):
            content.append(shape(piece))
        elif piece and content and isinstance(content[-1], str):
            content[-1] += piece
        elif piece:
            content.append(str(piece))
    return (element.name, element.attributes, content)


class ParseXmlTests(SynchronousTestCase):
    """What clients send is understood, and what could harm is refused (protocol notes 4.4)."""

    def refused(self, *documents: bytes) -> None:
        """Every one of C{documents} is 400."""
        for document in documents:
            self.assertRaises(BadRequest, parse_xml, document)

    def test_tree(self) -> None:
        """Elements, attributes, text and CDATA arrive in their order."""
        root = parse_xml(b"<a x='1'> one <b/><![CDATA[<two>]]>&amp;</a>")
        self.assertEqual(root.name, QName("", "a"))
        self.assertEqual(root.attributes, {QName("", "x"): "1"})
        self.assertEqual(root.text, " one <two>&")
        self.assertEqual(root.trimmed, "one <two>&")
        self.assertEqual([child.name.local for child in root.children], ["b"])
        self.assertIsInstance(root.content[2], CData)

    def test_any_prefix(self) -> None:
        """Prefixes and quotation marks are the sender's choice, and so is a default namespace."""
        for document in (
            b"<D:prop xmlns:D='DAV:'/>",
            b'<prop xmlns="DAV:"/>',
            b"\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?>\r\n<!-- a --><?b c?>\n"
            b"<z:prop xmlns:z='DAV:'/>\n",
        ):
            self.assertEqual(parse_xml(document).name, QName(DAV, "prop"))

    def test_spellings(self) -> None:
        """The namespaces of RVP are known in any letter case, with and without the final slash (4.5)."""
        for spelling, exact in (
            ("http://schemas.Microsoft.com/rvp/acl", ACL),
            ("HTTP://SCHEMAS.MICROSOFT.COM/RVP/ACL/", ACL),
            ("http://schemas.microsoft.com/rvp", RVP),
            ("dav:", DAV),
        ):
            root = parse_xml(f"<x:a xmlns:x='{spelling}'/>".encode())
            self.assertEqual((root.name, root.bindings), (QName(exact, "a"), {"x": spelling}))

    def test_empty_body(self) -> None:
        """No body is 400."""
        self.refused(b"", b" ", b"\xef\xbb\xbf")

    def test_ill_formed(self) -> None:
        """So is anything ill-formed, also as the drafts print it (vector 24, 4.5)."""
        self.refused(
            b"<d:propfind",
            b"<d:propfind/>",
            b"<a></b>",
            b"<a/><b/>",
            b"<a b=c/>",
            b"<a b='1' b='2'/>",
            b"<a>]]></a>",
            b"<a>&nbsp;</a>",
            b"<a>&#0;</a>",
            b"<a>\x01</a>",
            b"<D:a xmlns:D='DAV:' xmlns:Z='DAV:'></Z:a>",
            b"text",
            b"<a/>text",
        )

    def test_document_type(self) -> None:
        """A document type is 400, whether it declares anything or not."""
        self.refused(
            b"<!DOCTYPE a><a/>",
            b"<!DOCTYPE a SYSTEM 'http://203.0.113.9/a.dtd'><a/>",
            b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
            b"<!DOCTYPE a [<!ENTITY % b SYSTEM 'file:///etc/passwd'> %b;]><a/>",
        )

    def test_encodings(self) -> None:
        """Only UTF-8 is taken, and only if it is that."""
        self.refused(
            b"<a>\xff</a>",
            b"<a>\xed\xa0\x80</a>",
            b"<a>\xc0\xaf</a>",
            b"<?xml version='1.0' encoding='iso-8859-1'?><a/>",
            b"<?xml version='1.0' encoding='utf-16'?><a/>",
            b"<?xml version='1.0' encoding='nonsense'?><a/>",
            "<a/>".encode("utf-16"),
            "<a/>".encode("utf-16-le"),
            "<a/>".encode("utf-16-be"),
            "<a/>".encode("utf-32"),
        )

    def test_depth(self) -> None:
        """32 levels are enough for everybody."""
        parse_xml(b"<a>" * 32 + b"</a>" * 32)
        self.refused(b"<a>" * 33 + b"</a>" * 33, b"<a>" * 100000)

    @MODEST
    @given(st.binary(max_size=80))
    def test_anything(self, data: bytes) -> None:
        """Any bytes are a document or a 400, nothing else."""
        for document in (data, b"<a>" + data + b"</a>", b"<?xml " + data + b"?><a/>", b"<a " + data + b"/>"):
            try:
                root = parse_xml(document)
            except BadRequest:
                continue
            self.assertIsInstance(root, Element)

    @MODEST
    @given(st.sampled_from([body for body, _ in printed.LENGTHS]), st.data())
    def test_damaged(self, body: bytes, data: st.DataObject) -> None:
        """A printed body with bytes replaced is a document or a 400."""
        damaged = bytearray(body)
        for at, byte in data.draw(
            st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255)), max_size=3)
        ):
            damaged[at] = byte
        try:
            parse_xml(bytes(damaged))
        except BadRequest:
            return

    def test_bare(self) -> None:
        """A document is bare if it is written as we would, as far as that shows around its elements."""
        head = b'<?xml version="1.0"?>'
        self.assertTrue(parse_document(head + b"<a>x</a>").bare)
        for document in (
            b"<a/>",
            head + b"\n<a/>",
            head + b"<a/>\n",
            head + b"<a><!-- b --></a>",
            head + b"<a><?b c?></a>",
            b"\xef\xbb\xbf" + head + b"<a/>",
            b'<?xml version="1.0" encoding="utf-8"?><a/>',
            b"<?xml version='1.0'?><a/>",
        ):
            self.assertFalse(parse_document(document).bare)

    def test_self_closed(self) -> None:
        """An empty-element tag is told from a start tag, whatever its attributes hold."""
        root = parse_xml(b"<a><b/><b></b><b c='/>' d=\"'>\"/><b c='/>'></b><b c = '>/' /><b\n/></a>")
        self.assertEqual([b.self_closed for b in root.children], [True, False, True, False, True, True])


class ElementTests(SynchronousTestCase):
    """Children are found by name."""

    def test_find(self) -> None:
        """Every one of a name, or the only one, in any of some namespaces."""
        root = parse_xml(b"<a xmlns:d='DAV:'><d:b/><b/><d:c/><c>x</c></a>")
        self.assertEqual(len(root.every("b", DAV)), 1)
        self.assertEqual(len(root.every("b", DAV, "")), 2)
        self.assertIsNone(root.only("b", RVP))
        self.assertEqual(root.only("c", ""), root.children[3])
        self.assertRaises(BadRequest, root.only, "c", "", DAV)
        self.assertEqual([e.name.local for e in root.walk()], ["a", "b", "b", "c", "c"])


class RenderTests(SynchronousTestCase):
    """What is written is compact, and means what was meant."""

    def test_document(self) -> None:
        """All three namespaces are declared on the root, in single quotes."""
        self.assertEqual(
            render_document("r:subscriptions", "").decode()[:41], '<?xml version="1.0"?><r:subscriptions xml'
        )
        self.assertEqual(parse_xml(render_document("r:x", "")).bindings, {"d": DAV, "r": RVP, "a": ACL})

    def test_foreign(self) -> None:
        """Other people's namespaces are declared where they first appear, under names of ours."""
        root = parse_xml(
            b"<parcel xmlns='urn:p' xmlns:q='urn:q' q:size='1'>"
            b"<q:kind a='&lt;'><x/></q:kind><t xmlns=''/></parcel>"
        )
        self.assertEqual(
            render_element(root),
            "<n1:parcel n2:size='1' xmlns:n1='urn:p' xmlns:n2='urn:q'>"
            "<n2:kind a='&lt;'><n1:x/></n2:kind><t/></n1:parcel>",
        )

    def test_texts(self) -> None:
        """A text element is never written as an empty-element tag, others are."""
        root = parse_xml(
            b"<r:state xmlns:r='http://schemas.microsoft.com/rvp/'><r:email/><r:busy></r:busy></r:state>"
        )
        self.assertEqual(render_element(root), "<r:state><r:email></r:email><r:busy/></r:state>")

    def test_tags(self) -> None:
        """A foreign name brings its declaration along."""
        self.assertEqual(render_tags(QName("urn:a'b", "c")), ("<n1:c xmlns:n1='urn:a&apos;b'>", "</n1:c>"))
        self.assertEqual(render_tags(QName(RVP, "c")), ("<r:c>", "</r:c>"))

    def test_escape(self) -> None:
        """Only what must be escaped is; what cannot be said becomes U+FFFD."""
        self.assertEqual(escape("a < b && \"c\" > 'd'"), "a &lt; b &amp;&amp; \"c\" > 'd'")
        self.assertEqual(escape("]]>\r\x00\ud800\uffff"), "]]&gt;&#13;\ufffd\ufffd\ufffd")

    def test_cdata(self) -> None:
        """The end of a section inside a text takes two sections."""
        self.assertEqual(cdata("a]]>b"), "<![CDATA[a]]]]><![CDATA[>b]]>")

    @MODEST
    @given(TEXT)
    def test_escape_and_back(self, text: str) -> None:
        """Text comes back as it was, escaped or in sections."""
        for xml in (escape(text), cdata(text)):
            self.assertEqual(parse_xml(f"<a>{xml}</a>".encode()).text, text)

    @MODEST
    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Whatever the text, the document is well-formed."""
        parse_xml(f"<a>{escape(text)}{cdata(text)}</a>".encode())

    @MODEST
    @given(elements())
    def test_element_and_back(self, element: Element) -> None:
        """An element means the same after it was written and read."""
        parsed = parse_xml(render_document("r:x", render_element(element))).children[0]
        self.assertEqual(shape(parsed), shape(element))

    @MODEST
    @given(elements())
    def test_canonical(self, element: Element) -> None:
        """What was written once is written the same ever after."""
        once = render_inner(element)
        self.assertEqual(render_inner(parse_xml(render_document("r:x", once))), once)
