"""A home that calls other organisations by name, and a name that leads astray."""

from __future__ import annotations

from tests.support.farmhouse import TRAP
from tests.support.processes import wait_for
from tests.support.vectors import VectorTestCase


class StrangersTests(VectorTestCase):
    """Whom a stranger's name may have called (design invariant 6)."""

    def test_a_name_that_leads_to_loopback(self) -> None:
        """A watcher whose server's name leads to loopback is subscribed and never called; others are."""
        victim, orchard = self.listener(), self.orchard()
        trap = f"http://{TRAP}:{victim.port}/instmsg/aliases/mallory"
        self.watch(trap)
        self.watch(self.ingrid)
        before = self.blocked()
        self.set_state("online")
        wait_for("the call being blocked", lambda: self.blocked() > before)
        self.assertEqual(orchard.states(1), ["online"])
        self.assertEqual(victim.heard, [])
        log = self.house.home.log
        self.assertIn(f"{TRAP} leads to 127.0.0.1, which must not be called (special)", log)

    def blocked(self) -> float:
        """How many calls were not made for that reason, as the home says itself."""
        page = self.house.home.page("/metrics").decode()
        counted = [line for line in page.splitlines() if line.startswith("rvp_call_back_blocked_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in counted if 'rule="special"' in line)
