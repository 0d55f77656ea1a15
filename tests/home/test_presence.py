"""Views: several places, one state (protocol notes 5.3)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.presence import View, Views, visible


def view(number: int, address: str = "192.0.2.1") -> View:
    """A view that says nothing yet."""
    return View("im.example/instmsg/aliases/petra", number, "offline", "offline", 0, address, 0)


class ViewsTests(SynchronousTestCase):
    """What the views say adds up to the state of their principal."""

    def setUp(self) -> None:
        """A laptop and a desk."""
        self.views = Views()
        self.desk, self.laptop = view(1, "192.0.2.1"), view(2, "192.0.2.2")

    def say(self, which: View, state: str, default: str = "offline") -> None:
        """Let a view say C{state}."""
        self.views.set(which, state, default, 1200)

    def test_nobody(self) -> None:
        """Without a view a principal is offline."""
        self.assertEqual(self.views.effective, "offline")

    def test_shared_state_goes_over(self) -> None:
        """Busy at one place is busy at every place (rule 5)."""
        self.say(self.desk, "online")
        self.say(self.laptop, "busy")
        self.assertEqual((self.views.effective, self.desk.state), ("busy", "busy"))

    def test_offline_is_local(self) -> None:
        """Offline at one place leaves the principal online at the other (rule 6)."""
        self.say(self.desk, "online")
        self.say(self.laptop, "online")
        self.say(self.laptop, "offline")
        self.assertEqual((self.views.effective, len(self.views)), ("online", 1))

    def test_idle_is_local(self) -> None:
        """Idle shows only when no place has a shared state (rules 6 and 7)."""
        self.say(self.desk, "online")
        self.say(self.laptop, "idle")
        self.assertEqual(self.views.effective, "online")
        self.say(self.desk, "offline")
        self.assertEqual(self.views.effective, "idle")

    def test_latest_shared_state_wins(self) -> None:
        """Of two shared states the one set last counts, whichever place said it."""
        self.say(self.desk, "busy")
        self.say(self.laptop, "idle")
        self.say(self.laptop, "at-lunch")
        self.say(self.desk, "online")
        self.assertEqual(self.views.effective, "online")

    def test_found_by_address(self) -> None:
        """A call that names no view means the one made from its address (rule 2)."""
        self.say(self.desk, "online")
        self.assertIs(self.views.find(None, "192.0.2.1"), self.desk)
        self.assertIsNone(self.views.find(None, "192.0.2.2"))

    def test_found_by_id(self) -> None:
        """A call that names a view means that one, wherever it comes from; an unknown id none (rule 1)."""
        self.say(self.desk, "online")
        self.assertIs(self.views.find(1, "198.51.100.9"), self.desk)
        self.assertIsNone(self.views.find(77, "192.0.2.1"))

    def test_lapse_to_offline_ends(self) -> None:
        """A lease that runs out ends the view (rule 4)."""
        self.say(self.desk, "online")
        self.assertFalse(self.views.lapse(self.desk))
        self.assertEqual((self.views.effective, len(self.views)), ("offline", 0))

    def test_other_default_shows_for_one_more_lease(self) -> None:
        """A default other than offline shows for one more lease, then the view ends (rule 4)."""
        self.say(self.desk, "online", default="away")
        self.assertTrue(self.views.lapse(self.desk))
        self.assertEqual(self.views.effective, "away")
        self.assertFalse(self.views.lapse(self.desk))
        self.assertEqual(self.views.effective, "offline")

    def test_invisible(self) -> None:
        """The invisible look offline to others, and like themselves to themselves (rule 8)."""
        self.say(self.desk, "invisible")
        self.assertEqual(
            (self.views.effective, visible("invisible"), visible("busy")), ("invisible", "offline", "busy")
        )

    def test_restored_order_is_kept(self) -> None:
        """After a restart a newer setting still beats the restored ones."""
        desk = view(1)
        desk.state, desk.order = "busy", 7
        self.views.restore(desk)
        self.say(self.laptop, "online")
        self.assertEqual(self.views.effective, "online")
