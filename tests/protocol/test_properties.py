"""Tests of L{rvpfarm.protocol.properties}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.properties import (
    DISPLAY_NAME,
    EMAIL,
    MOBILE_DESCRIPTION,
    MOBILE_STATE,
    STATES,
    Change,
    FindKind,
    Lease,
    Propfind,
    Propstat,
    parse_propertyupdate,
    parse_propfind,
    render_empty,
    render_leased_prop,
    render_leased_state,
    render_multistatus,
    render_prop,
    render_state,
    render_text_prop,
)
from rvpfarm.protocol.xml import DAV, RVP, STATE, QName, escape, parse_xml, render_document
from tests.support import printed
from tests.support.hypothesis import MODEST

P = "http://im.fabrik.example/instmsg/aliases/petra"
SHOE = QName(RVP, "shoe-size")


def update(inner: str) -> bytes:
    """A PROPPATCH that sets the properties C{inner}."""
    return render_document("d:propertyupdate", f"<d:set><d:prop>{inner}</d:prop></d:set>")


def change(inner: str) -> Change:
    """The one change that setting the property C{inner} is."""
    (found,) = parse_propertyupdate(update(inner))
    return found


class MultistatusTests(SynchronousTestCase):
    """The answers are those that are printed, byte for byte."""

    def test_lengths(self) -> None:
        """Every printed length is that of the body printed with it."""
        for body, length in printed.LENGTHS:
            self.assertEqual(len(body), length)

    def test_subscribe(self) -> None:
        """The answer to a property subscription (3.1), and to allprop (3.4)."""
        props = (
            render_state("away"),
            render_text_prop("d:displayname", "Petra Novak"),
            render_text_prop("r:email", "petra@fabrik.example"),
            render_text_prop("r:mobile-state", "0"),
            render_text_prop("r:mobile-description", ""),
        )
        self.assertEqual(render_multistatus(P, [Propstat(200, props)]), printed.MULTISTATUS)

    def test_named(self) -> None:
        """The answer to one named property (3.4)."""
        props = (render_text_prop("d:displayname", "Petra Novak"),)
        self.assertEqual(render_multistatus(P, [Propstat(200, props)]), printed.MULTISTATUS_NAME)

    def test_mixed(self) -> None:
        """What is there comes before what is not, in whatever order they are given."""
        there = Propstat(200, (render_text_prop("r:email", "petra@fabrik.example"),))
        missing = Propstat(404, (render_empty(SHOE),))
        self.assertEqual(render_multistatus(P, [missing, there]), printed.MULTISTATUS_MIXED)

    def test_lease(self) -> None:
        """The answer to a leased state names lease and view (3.5)."""
        props = (render_leased_state("online", "offline", 1200, 3577),)
        self.assertEqual(render_multistatus(P, [Propstat(200, props)]), printed.MULTISTATUS_LEASE)

    def test_plain(self) -> None:
        """The answer to plain properties names them without values (3.5)."""
        props = (render_empty(MOBILE_STATE), render_empty(MOBILE_DESCRIPTION))
        self.assertEqual(render_multistatus(P, [Propstat(200, props)]), printed.MULTISTATUS_PLAIN)

    def test_escaped(self) -> None:
        """Names cannot break out of their elements."""
        body = render_multistatus(P + "&", [Propstat(409, (render_text_prop("d:displayname", "<&>"),))])
        self.assertIn(b"petra&amp;</d:href>", body)
        self.assertIn(b"<d:displayname>&lt;&amp;></d:displayname>", body)
        self.assertIn(b"<d:status>HTTP/1.1 409 Conflict</d:status>", body)

    def test_foreign(self) -> None:
        """Other people's properties bring their namespace along."""
        name = QName("urn:x", "shoe")
        self.assertEqual(render_empty(name), "<n1:shoe xmlns:n1='urn:x'/>")
        self.assertEqual(render_prop(name, "<r:a/>"), "<n1:shoe xmlns:n1='urn:x'><r:a/></n1:shoe>")
        self.assertEqual(
            render_leased_prop(EMAIL, "a", "b", 60),
            "<r:email><r:leased-value><r:value>a</r:value><r:default-value>b</r:default-value>"
            "<d:timeout>60</d:timeout></r:leased-value></r:email>",
        )


class ParsePropfindTests(SynchronousTestCase):
    """What a PROPFIND asks for (3.4)."""

    def test_printed(self) -> None:
        """Named properties, all of them, or their names."""
        self.assertEqual(parse_propfind(printed.PROPFIND), Propfind(FindKind.NAMED, (DISPLAY_NAME,)))
        self.assertEqual(parse_propfind(printed.PROPFIND_ALL), Propfind(FindKind.ALL))
        body = b"<propfind xmlns='DAV:'> <propname/> </propfind>"
        self.assertEqual(parse_propfind(body), Propfind(FindKind.NAMES))

    def test_once(self) -> None:
        """A property asked for twice is answered once."""
        body = b"<propfind xmlns='DAV:' xmlns:r='http://schemas.microsoft.com/rvp'><prop><r:email/><a/><r:email/></prop></propfind>"
        self.assertEqual(parse_propfind(body).names, (EMAIL, QName(DAV, "a")))

    def test_refused(self) -> None:
        """Asking for nothing is 400, and so is asking otherwise (vector 24)."""
        for body in (
            b"",
            b"<d:propfind",
            b"<!DOCTYPE a><propfind xmlns='DAV:'><allprop/></propfind>",
            b"<propfind xmlns='DAV:'/>",
            b"<propfind xmlns='DAV:'><prop/></propfind>",
            b"<propfind xmlns='DAV:'><other/></propfind>",
            b"<propfind xmlns='DAV:'><allprop/><prop><a/></prop></propfind>",
            b"<propfind><allprop/></propfind>",
            b"<find xmlns='DAV:'><allprop/></find>",
        ):
            self.assertRaises(BadRequest, parse_propfind, body)


class ParsePropertyupdateTests(SynchronousTestCase):
    """What a PROPPATCH changes (3.5)."""

    ONLINE = Change("set", STATE, "online", Lease("online", "offline", 1200))

    def test_printed(self) -> None:
        """The printed bodies (vector 26)."""
        self.assertEqual(parse_propertyupdate(printed.PROPPATCH), (self.ONLINE,))
        self.assertEqual(
            parse_propertyupdate(printed.PROPPATCH_PLAIN),
            (Change("set", MOBILE_STATE, "1"), Change("set", MOBILE_DESCRIPTION, "+48 555 0142")),
        )

    def test_drafts(self) -> None:
        """Other prefixes, white space, the draft's root and RVP's own time-out mean the same (vector 27)."""
        body = b"""<?xml version="1.0" encoding="utf-8" ?>
            <D:propupdate xmlns:D="DAV:" xmlns:Z="http://schemas.Microsoft.com/rvp">
              <D:set> <D:prop> <!-- note --> <Z:state unknown="1">
                <Z:leased-value>
                  <Z:timeout> 1200 </Z:timeout> <unknown/>
                  <Z:default-value> <Z:offline/> </Z:default-value>
                  <Z:value> <Z:online> </Z:online> </Z:value>
                </Z:leased-value>
              </Z:state> </D:prop> </D:set>
            </D:propupdate> """
        self.assertEqual(parse_propertyupdate(body), (self.ONLINE,))

    def test_short_lease(self) -> None:
        """Time-out and default may be left out, of any property."""
        lease = "<r:leased-value><r:value>%s</r:value></r:leased-value>"
        found = change(f"<r:state>{lease % '<r:busy/>'}</r:state>")
        self.assertEqual(found, Change("set", STATE, "busy", Lease("busy", None, None)))
        found = change(f"<r:email>{lease % ' a&amp;b '}</r:email>")
        self.assertEqual(found, Change("set", EMAIL, "a&amp;b", Lease("a&amp;b", None, None)))
        found = change(f"<x xmlns='urn:x'>{lease % '<y/>'}</x>")
        self.assertEqual(found.lease, Lease("<n1:y xmlns:n1='urn:x'/>", None, None))

    def test_plain_state(self) -> None:
        """A presence may come without a lease."""
        self.assertEqual(change("<r:state> <r:busy/> </r:state>"), Change("set", STATE, "busy"))

    def test_view(self) -> None:
        """The view may be named; a name that is none is the view of nobody."""
        for text, view in ((" 3577 ", 3577), ("abc", 0), ("", 0), ("0", 0), ("9" * 5000, 9999999999)):
            found = change(f"<r:state><r:online/><r:view-id>{text}</r:view-id></r:state>")
            self.assertEqual((found.view, found.value, found.problem), (view, "online", False))
        lease = "<r:leased-value><r:value><r:online/></r:value></r:leased-value>"
        self.assertEqual(change(f"<r:state><r:view-id>7</r:view-id>{lease}</r:state>").view, 7)

    def test_every_state(self) -> None:
        """All known presences are taken."""
        for name in STATES:
            self.assertEqual(change(render_state(name)).value, name)

    def test_problems(self) -> None:
        """Values that are not acceptable are marked so and refuse nothing else (vector 30)."""
        lease, busy = "<r:leased-value>%s</r:leased-value>", "<r:value><r:busy/></r:value>"
        for inner in (
            "<r:state><r:sleepy/></r:state>",
            "<r:state><online/></r:state>",
            "<r:state><d:online/></r:state>",
            "<r:state/>",
            "<r:state>online</r:state>",
            "<r:state><r:online/><r:busy/></r:state>",
            f"<r:state>{lease % '<r:value><r:sleepy/></r:value>'}</r:state>",
            f"<r:state>{lease % '<r:value/>'}</r:state>",
            f"<r:state>{lease % '<r:default-value><r:offline/></r:default-value>'}</r:state>",
            f"<r:state>{lease % (busy + '<r:default-value><x/></r:default-value>')}</r:state>",
            f"<r:state>{lease % (busy + '<d:timeout>soon</d:timeout>')}</r:state>",
            f"<r:state>{(lease % busy) * 2}</r:state>",
            "<r:mobile-state>2</r:mobile-state>",
            "<r:mobile-state/>",
            f"<r:mobile-state>{lease % '<r:value>yes</r:value>'}</r:mobile-state>",
            "<nameless>x</nameless>",
        ):
            found = parse_propertyupdate(update(f"{inner}<r:email>x</r:email>"))
            self.assertEqual([c.problem for c in found], [True, False], inner)

    def test_order(self) -> None:
        """Steps are taken in their order, and removing is one."""
        body = render_document(
            "d:propertyupdate",
            "<d:remove><d:prop><r:email/><r:state><r:view-id>7</r:view-id></r:state></d:prop></d:remove>"
            "<d:set><d:prop><r:email>a</r:email></d:prop><d:prop><r:shoe-size>9</r:shoe-size></d:prop></d:set>",
        )
        self.assertEqual(
            parse_propertyupdate(body),
            (
                Change("remove", EMAIL),
                Change("remove", STATE, view=7),
                Change("set", EMAIL, "a"),
                Change("set", SHOE, "9"),
            ),
        )

    def test_dead_property(self) -> None:
        """Any content is kept, in a form that may stand in any document of ours."""
        found = change("<c xmlns='urn:c'> <list xmlns:z='urn:z' z:n='1'>a<z:b/></list> </c>")
        self.assertEqual(found.name, QName("urn:c", "c"))
        self.assertEqual(
            found.value, "<n1:list n2:n='1' xmlns:n1='urn:c' xmlns:n2='urn:z'>a<n2:b/></n1:list>"
        )

    def test_refused(self) -> None:
        """Changing nothing is 400, and so is any other body."""
        for body in (
            b"",
            b"x",
            b"<propertyupdate xmlns='DAV:'/>",
            b"<propertyupdate xmlns='DAV:'><set/></propertyupdate>",
            b"<propertyupdate xmlns='DAV:'><set><prop/></set></propertyupdate>",
            b"<propertyupdate><set><prop><a/></prop></set></propertyupdate>",
            b"<D:propupdate xmlns:D='DAV:'></D:propertyupdate>",
        ):
            self.assertRaises(BadRequest, parse_propertyupdate, body)

    @MODEST
    @given(
        st.lists(
            st.one_of(
                st.builds(
                    Change, st.just("set"), st.just(STATE), st.sampled_from(sorted(STATES)), view=st.none()
                ),
                st.builds(
                    lambda name, text: Change("set", name, escape(text.strip(" \t\r\n"))),
                    st.sampled_from((DISPLAY_NAME, EMAIL, MOBILE_DESCRIPTION, SHOE, QName("urn:x", "y"))),
                    st.text(
                        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
                    ),
                ),
                st.builds(
                    Change, st.just("remove"), st.sampled_from((STATE, EMAIL, SHOE, QName("urn:x", "y")))
                ),
            ),
            min_size=1,
        )
    )
    def test_there_and_back(self, changes: list[Change]) -> None:
        """Changes that were written are read as they were."""
        steps = []
        for one in changes:
            prop = (
                render_state(one.value)
                if one.name == STATE and one.value
                else render_prop(one.name, one.value)
            )
            steps.append(f"<d:{one.action}><d:prop>{prop}</d:prop></d:{one.action}>")
        self.assertEqual(
            parse_propertyupdate(render_document("d:propertyupdate", "".join(steps))), tuple(changes)
        )

    @MODEST
    @given(
        st.sampled_from(sorted(STATES)),
        st.sampled_from(sorted(STATES)),
        st.integers(1, 10**6),
        st.integers(1, 10**6),
    )
    def test_lease_there_and_back(self, value: str, default: str, seconds: int, view: int) -> None:
        """A client that sends an answer back means what the answer said."""
        found = change(render_leased_state(value, default, seconds, view))
        self.assertEqual(found, Change("set", STATE, value, Lease(value, default, seconds), view))

    def test_answers_are_xml(self) -> None:
        """The answers can be read again."""
        for body in (printed.MULTISTATUS, printed.MULTISTATUS_LEASE, printed.MULTISTATUS_MIXED):
            self.assertEqual(parse_xml(body).name, QName(DAV, "multistatus"))
