"""Tests of L{rvpfarm.protocol.acls}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.acls import (
    ALL_RIGHTS,
    CREDENTIALS,
    RIGHTS,
    Ace,
    Acl,
    default_acl,
    parse_acl,
    render_acl,
)
from rvpfarm.protocol.address import Names, parse_principal
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.xml import render_document
from tests.support import printed
from tests.support.hypothesis import MODEST

IM = "im.fabrik.example"
NAMES = Names({IM: IM}, {})
OWNER = parse_principal("http://im.fabrik.example/instmsg/aliases/petra", NAMES)
EVERYBODY = "<a:principal><a:allprincipals/><a:credentials><a:any/></a:credentials></a:principal>"


def rvpacl(inner: str) -> bytes:
    """The body with the entries C{inner}."""
    return render_document("a:rvpacl", f"<a:acl>{inner}</a:acl>")


def aces() -> st.SearchStrategy[Ace]:
    """Any entry."""
    urls = st.none() | st.sampled_from(
        (
            "http://im.fabrik.example/instmsg/aliases/Petra",
            "http://im.orchard.example:99/instmsg/aliases/ingrid",
            "http://im.orchard.example/groups/a&b",
            "im.orchard.example",
        )
    )
    rights = st.frozensets(st.sampled_from((*RIGHTS, ALL_RIGHTS)))
    credentials = st.frozensets(st.sampled_from(CREDENTIALS), min_size=1)

    def ace(url: str | None, proof: frozenset[str], grant: frozenset[str], deny: frozenset[str]) -> Ace:
        key = None if url is None else parse_principal(url, NAMES).key
        return Ace(key, url or "", proof, grant, deny)

    return st.builds(ace, urls, credentials, rights, rights)


class RenderAclTests(SynchronousTestCase):
    """Lists are written as they are printed (3.7)."""

    def test_default(self) -> None:
        """The default list is the printed one, byte for byte."""
        self.assertEqual(render_acl(default_acl(OWNER, authentication=True)), printed.ACL)

    def test_trusting(self) -> None:
        """Where nobody has to prove anything, the owner's word is enough (vector 49)."""
        everybody, owner = default_acl(OWNER, authentication=False).aces
        self.assertEqual(owner.credentials, {"assertion", "digest", "ntlm"})
        self.assertEqual(everybody, default_acl(OWNER, authentication=True).aces[0])

    def test_printed(self) -> None:
        """Printed lists come back as they were sent."""
        for body in (printed.ACL, printed.ACL_BLOCK):
            self.assertEqual(render_acl(parse_acl(body, NAMES)), body)

    @MODEST
    @given(st.lists(aces(), max_size=5))
    def test_there_and_back(self, entries: list[Ace]) -> None:
        """A list that was written is read as it was."""
        acl = Acl(tuple(entries))
        self.assertEqual(parse_acl(render_acl(acl), NAMES), acl)


class ParseAclTests(SynchronousTestCase):
    """Lists are read with tolerance for the drafts, and refused for nonsense (4.5, 8.6)."""

    def test_block(self) -> None:
        """The printed list blocks somebody."""
        block = parse_acl(printed.ACL_BLOCK, NAMES).aces[0]
        self.assertEqual(block.principal, "im.orchard.example/instmsg/aliases/ingrid")
        self.assertEqual(block.deny, {"send-to", "presence"})
        self.assertEqual(block.grant, frozenset())
        self.assertEqual(block.credentials, {"assertion", "digest", "ntlm"})

    def test_drafts(self) -> None:
        """C{allow}, principals in RVP's namespace, trailing slashes and odd namespaces are understood."""
        body = b"""<A:rvpacl xmlns:A="http://schemas.Microsoft.com/rvp/acl"
                xmlns:R="http://schemas.microsoft.com/rvp/"> <A:acl>
            <A:ace> <A:allow> <A:read/> </A:allow> <A:grant><A:list/></A:grant> <A:unknown/>
            <R:principal> <A:credentials> <A:any/> </A:credentials>
            <R:rvp-principal> HTTP://IM.fabrik.example:80/instmsg/aliases/petra/ </R:rvp-principal>
            </R:principal> </A:ace> </A:acl> </A:rvpacl>"""
        self.assertEqual(
            parse_acl(body, NAMES).aces,
            (Ace(OWNER.key, OWNER.url, frozenset({"any"}), frozenset({"read", "list"}), frozenset()),),
        )

    def test_empty(self) -> None:
        """A list may be empty, and everything in it but the principal too."""
        self.assertEqual(parse_acl(rvpacl(""), NAMES), Acl(()))
        (ace,) = parse_acl(rvpacl(f"<a:ace>{EVERYBODY}</a:ace>"), NAMES).aces
        self.assertEqual((ace.principal, ace.grant, ace.deny), (None, frozenset(), frozenset()))

    def test_no_credentials(self) -> None:
        """Credentials are never left out, and the reason phrase says so (vector 50)."""
        for credentials in ("", "<a:credentials/>", "<a:credentials></a:credentials>"):
            body = rvpacl(f"<a:ace><a:principal><a:allprincipals/>{credentials}</a:principal></a:ace>")
            refusal = self.assertRaises(BadRequest, parse_acl, body, NAMES)
            self.assertEqual(refusal.reason, b"Credentials not specified")

    def test_refused(self) -> None:
        """Everything that cannot be is 400 (8.6, vector 50)."""
        any_ = "<a:credentials><a:any/></a:credentials>"
        petra = f"<a:rvp-principal>{OWNER.url}</a:rvp-principal>"
        for entry in (
            "",
            f"<a:principal>{any_}</a:principal>",
            f"<a:principal>{any_}<a:rvp-principal/></a:principal>",
            f"<a:principal>{any_}<a:rvp-principal> </a:rvp-principal></a:principal>",
            f"<a:principal>{any_}<a:rvp-principal>a b</a:rvp-principal></a:principal>",
            f"<a:principal>{any_}{petra}{petra}</a:principal>",
            f"<a:principal>{any_}{petra}<a:allprincipals/></a:principal>",
            f"<a:principal>{petra}<a:credentials><a:basic/></a:credentials></a:principal>",
            f"<a:principal>{petra}<a:credentials><r:any/></a:credentials></a:principal>",
            f"<a:principal>{petra}{any_}{any_}</a:principal>",
            EVERYBODY + EVERYBODY,
            EVERYBODY + "<a:grant><a:delete/></a:grant>",
            EVERYBODY + "<a:deny><a:writeowner/></a:deny>",
            EVERYBODY + "<a:grant><d:read/></a:grant>",
            EVERYBODY + "<a:grant><a:READ/></a:grant>",
        ):
            self.assertRaises(BadRequest, parse_acl, rvpacl(f"<a:ace>{entry}</a:ace>"), NAMES)
        for body in (
            b"",
            b"<rvpacl/>",
            render_document("a:rvpacl", ""),
            render_document("a:acl", ""),
            render_document("r:rvpacl", "<a:acl/>"),
            rvpacl("<a:inheritance>parent</a:inheritance>"),
            rvpacl("<a:inheritance/>"),
        ):
            self.assertRaises(BadRequest, parse_acl, body, NAMES)

    def test_size(self) -> None:
        """512 entries are taken, and one more is not."""
        ace = f"<a:ace>{EVERYBODY}</a:ace>"
        self.assertEqual(len(parse_acl(rvpacl(ace * 512), NAMES).aces), 512)
        self.assertRaises(BadRequest, parse_acl, rvpacl(ace * 513), NAMES)
