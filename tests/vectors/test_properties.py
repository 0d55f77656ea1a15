"""Vectors 21 to 34: PROPFIND, PROPPATCH and what watchers are told."""

from __future__ import annotations

from tests.support.farmhouse import PETRA, TOMASZ
from tests.support.homes import INGRID, LocalHome, leased
from tests.support.printed import MULTISTATUS_LEASE, MULTISTATUS_NAME, PROPFIND, PROPFIND_ALL, PROPPATCH
from tests.support.vectors import VectorTestCase, propfind, propstats, view_id
from tests.support.wire import state_in

#: The addresses A and B of vectors 31 and 32.
A, B = "127.0.0.1", "127.0.0.5"

#: Vector 27: what a draft prints, as far as it is well-formed.
CLUMSY = """<?xml version="1.0"?>
<D:propupdate xmlns:D="DAV:" xmlns:Z="http://schemas.microsoft.com/rvp/">
  <D:set>
    <D:prop>
      <Z:state>
        <Z:leased-value>
          <Z:value> <Z:online/> </Z:value>
          <Z:default-value> <Z:offline/> </Z:default-value>
          <Z:timeout> 1200 </Z:timeout>
        </Z:leased-value>
      </Z:state>
    </D:prop>
  </D:set>
</D:propupdate>
"""


class FindVectors(VectorTestCase):
    """Reading properties."""

    def find(self, status: int, body: str | bytes, *headers: str) -> bytes:
        """The PROPFIND of vector 21."""
        headers = headers or ("Depth: 0",)
        return self.check(status, "PROPFIND", "/p", *headers, who=TOMASZ, body=body).body

    def test_vector_21(self) -> None:
        """The answer is the one printed in section 3.4, byte for byte."""
        self.assertEqual(self.find(207, PROPFIND), MULTISTATUS_NAME)

    def test_vector_22(self) -> None:
        """The depth must be given and be 0."""
        self.check(412, "PROPFIND", "/p", who=TOMASZ, body=PROPFIND)
        self.find(412, PROPFIND, "Depth: 1")
        self.find(412, PROPFIND, "Depth: infinity")

    def test_vector_23(self) -> None:
        """What was found comes first, what there is not comes after it."""
        self.assertEqual(
            propstats(self.find(207, propfind("r:email", "r:shoe-size"))),
            [(200, "<r:email>petra@fabrik.example</r:email>"), (404, "<r:shoe-size/>")],
        )

    def test_vector_24(self) -> None:
        """Nothing, half a document, a document type, and what does not say that it is XML."""
        self.find(400, b"")
        self.find(400, b"<d:propfind")
        self.find(400, PROPFIND.replace(b"<d:propfind", b"<!DOCTYPE d:propfind><d:propfind", 1))
        self.find(415, PROPFIND, "Depth: 0", "Content-Type: text/plain")

    def test_vector_25(self) -> None:
        """Everything comes in one propstat."""
        ((status, props),) = propstats(self.find(207, PROPFIND_ALL))
        self.assertEqual(status, 200)
        self.assertTrue(props.startswith("<r:state><r:offline/></r:state><d:displayname>"), props)


class PatchVectors(VectorTestCase):
    """Presence: leases, views, and who is told."""

    def setUp(self) -> None:
        """Have ingrid and tomasz watch, tomasz where he is logged in."""
        super().setUp()
        self.orchard_hears = self.orchard()
        self.tomasz_hears = self.listener()
        self.login(self.tomasz_hears, "/t", TOMASZ)
        self.watch(self.ingrid)
        self.watch(TOMASZ)

    def check_told(self, *states: str) -> None:
        """Both watchers have been told C{states} and nothing else, one at a time."""
        for listener, hops in ((self.orchard_hears, "1"), (self.tomasz_hears, "2")):
            self.assertEqual(listener.states(len(states)), list(states))
            self.assertEqual(len(listener.heard), len(states), listener.heard)
            for told in listener.heard:
                self.assertEqual(told.header("RVP-Hop-Count"), hops)
                self.assertEqual(told.body.count(b"<r:propnotification>"), 1)

    def test_vector_26(self) -> None:
        """The lease is granted as printed in section 3.5, and each watcher is told once."""
        answer = self.check(207, "PROPPATCH", "/p", who=PETRA, body=PROPPATCH)
        self.assertEqual(answer.body, MULTISTATUS_LEASE.replace(b"3577", view_id(answer).encode()))
        self.check_told("online")

    def test_vector_27(self) -> None:
        """Other prefixes, white space and a draft's own mistakes mean the same."""
        answer = self.check(207, "PROPPATCH", "/p", who=PETRA, body=CLUMSY)
        self.assertEqual(answer.body, MULTISTATUS_LEASE.replace(b"3577", view_id(answer).encode()))
        self.check_told("online")

    def test_vector_28(self) -> None:
        """Saying the same again renews the lease of the same view, and nobody is told."""
        first = self.check(207, "PROPPATCH", "/p", who=PETRA, body=PROPPATCH)
        self.check_told("online")
        second = self.check(207, "PROPPATCH", "/p", who=PETRA, body=PROPPATCH)
        self.assertEqual(view_id(first), view_id(second))
        self.set_state("busy")
        self.check_told("online", "busy")  # a notification of the repetition would stand between them

    def test_vector_29(self) -> None:
        """Nobody says for somebody else where that one is."""
        self.check(403, "PROPPATCH", "/p", who=TOMASZ, body=PROPPATCH)
        self.assertEqual(self.state(), "offline")

    def test_vector_30(self) -> None:
        """A state that there is not conflicts, and changes nothing."""
        self.set_state("online")
        self.check_told("online")
        answer = self.check(207, "PROPPATCH", "/p", who=PETRA, body=leased("sleepy"))
        self.assertEqual(propstats(answer.body), [(409, "<r:state/>")])
        self.assertEqual(self.state(), "online")
        self.set_state("busy")
        self.check_told("online", "busy")

    def test_vector_31(self) -> None:
        """Clients that know nothing of views are told apart by address: offline is offline at once."""
        self.set_state("online", source=A)
        self.check_told("online")
        self.set_state("offline", source=A)
        self.assertEqual(self.state(), "offline")
        self.check_told("online", "offline")

    def test_vector_32(self) -> None:
        """One place going offline leaves the other online; what that one says then is the state."""
        first = view_id(self.set_state("online", source=A))
        self.check_told("online")
        second = view_id(self.set_state("online", source=B))
        self.assertNotEqual(first, second)
        self.set_state("offline", source=B)
        self.assertEqual(self.state(), "online")
        self.set_state("busy", source=A)
        self.assertEqual(self.state(), "busy")
        self.check_told("online", "busy")

    def test_vector_33(self) -> None:
        """Silence makes offline, no sooner than the lease says and within 5 s after.

        This one is on a clock; L{tests.vectors.test_slow} waits for it.
        """
        at = LocalHome()
        self.addCleanup(at.stop)
        at.watch("/p", INGRID)
        at.state("online", timeout="60")
        (told,) = at.outgoing.take()
        self.assertEqual(state_in(told.call.body), "online")
        told.reply()
        at.clock.pump([1.0] * 59 + [0.9])
        self.assertEqual(at.outgoing.take(), [])
        at.clock.pump([1.0] * 5)
        (told,) = at.outgoing.take()
        self.assertEqual(state_in(told.call.body), "offline")
        told.reply()

    def test_vector_34(self) -> None:
        """The invisible see themselves so, and everybody else sees them offline."""
        petra_hears = self.listener()
        self.login(petra_hears)
        self.watch(PETRA)
        self.set_state("online")
        self.check_told("online")
        self.assertEqual(petra_hears.states(1), ["online"])
        self.set_state("invisible")
        self.assertEqual(
            (self.state(PETRA), self.state(), self.state(self.ingrid)), ("invisible", "offline", "offline")
        )
        self.assertEqual(petra_hears.states(2), ["online", "invisible"])
        self.check_told("online", "offline")
        self.assertTrue(self.watch(self.ingrid).has("<r:state><r:offline/></r:state>"))
        self.assertTrue(self.watch(PETRA).has("<r:state><r:invisible/></r:state>"))
