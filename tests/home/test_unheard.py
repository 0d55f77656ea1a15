"""News that did not arrive: whoever missed it hears how things are when he next renews."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.courier import RETRY_SECONDS
from rvpfarm.home.delivery import FarmDestination
from rvpfarm.home.records import DropNode
from rvpfarm.protocol.calls import Call, Reply, Slow, Unreachable
from tests.support.disk import Disk
from tests.support.homes import DOMAIN, PETRA, TOMASZ, Asked, LocalHome

PORT = 4000
OLGA = f"http://{DOMAIN}/instmsg/aliases/olga"


class UnheardCase(SynchronousTestCase):
    """Tomasz, signed in here, and olga, who is of another home, watch petra."""

    def setUp(self) -> None:
        """Everybody can be reached, and has been told that petra is online."""
        self.at = LocalHome()
        self.addCleanup(self.at.stop)
        self.at.outgoing.answers[PORT] = 200
        self.at.login("/t", TOMASZ, f"http://192.0.2.78:{PORT}")
        self.at.state("online")
        self.tomasz = self.at.watch("/p", TOMASZ)
        self.olga = self.at.watch("/p", OLGA)

    def renew(self, watch: Asked, who: str, at: LocalHome | None = None) -> list[str]:
        """Renew a subscription.

        @return: the states that anybody was told because of that.
        """
        at = at or self.at
        at.outgoing.take()
        at.elsewhere.clear()
        renewed = at.ask(
            "SUBSCRIBE",
            "/p",
            who=who,
            peer="192.0.2.78",
            Subscription_Id=watch.header(b"Subscription-Id").decode(),
            Subscription_Lifetime="14400",
        )
        self.assertEqual(renewed.status, 200)
        bodies = [sent.wire for sent in at.outgoing.take()] + [call.body for call in at.elsewhere]
        return [body.decode().partition("<r:state><r:")[2].partition("/>")[0] for body in bodies]


class UnheardTests(UnheardCase):
    """What was not heard is told again, and nothing else is."""

    def test_heard(self) -> None:
        """Whoever has heard everything is told nothing by a renewal."""
        self.assertEqual(self.renew(self.tomasz, TOMASZ), [])
        self.at.state("busy")
        self.assertEqual(self.renew(self.tomasz, TOMASZ), [])
        self.assertEqual(self.renew(self.olga, OLGA), [])

    def test_call_back_down(self) -> None:
        """A call-back that could not be reached over all retries has missed the news."""
        self.at.outgoing.answers[PORT] = Unreachable("down")
        self.at.state("busy")
        self.at.clock.pump(RETRY_SECONDS)
        self.at.outgoing.answers[PORT] = 200
        self.assertEqual(self.renew(self.tomasz, TOMASZ), ["busy"])
        self.assertEqual(self.renew(self.tomasz, TOMASZ), [])

    def test_call_back_slow(self) -> None:
        """One that took everything and answered nothing may have missed it too."""
        self.at.outgoing.answers[PORT] = Slow("asleep")
        self.at.state("busy")
        self.at.clock.pump(RETRY_SECONDS)
        self.at.outgoing.answers[PORT] = 200
        self.assertEqual(self.renew(self.tomasz, TOMASZ), ["busy"])

    def test_retried(self) -> None:
        """What arrived at the second attempt was heard."""
        self.at.outgoing.answers[PORT] = Unreachable("down")
        self.at.state("busy")
        self.at.outgoing.answers[PORT] = 200
        self.at.clock.advance(RETRY_SECONDS[0])
        self.assertEqual(self.renew(self.tomasz, TOMASZ), [])

    def test_any_status(self) -> None:
        """A client that answers a property notification with an error has heard it (6.5)."""
        self.at.outgoing.answers[PORT] = 500
        self.at.state("busy")
        self.assertEqual(self.renew(self.tomasz, TOMASZ), [])

    def test_one_of_two_places(self) -> None:
        """Somebody who is signed in twice has heard what both places have."""
        self.at.login("/t", TOMASZ, "http://192.0.2.79:4001")
        self.at.outgoing.answers[4001] = Unreachable("down")
        self.at.state("busy")
        self.at.clock.pump(RETRY_SECONDS)
        self.at.outgoing.answers[4001] = 200
        self.assertIn("busy", self.renew(self.tomasz, TOMASZ))

    def test_signed_out_meanwhile(self) -> None:
        """Somebody who was not signed in when something changed has missed it."""
        self.at.elsewhere_answer = Reply(412)
        self.at.state("busy")
        self.at.elsewhere_answer = Reply(200)
        self.assertEqual(self.renew(self.olga, OLGA), ["busy"])
        self.assertEqual(self.renew(self.olga, OLGA), [])

    def test_overtaken(self) -> None:
        """Old news that arrives late is no proof that the new was heard."""
        self.at.outgoing.answers.clear()
        self.at.state("busy")
        (first,) = self.at.outgoing.take()
        self.at.state("away")
        first.reply(200)
        (second,) = self.at.outgoing.take()
        self.at.outgoing.answers[PORT] = 200
        second.done(Unreachable("down"))
        self.at.clock.advance(0)
        self.assertEqual(self.renew(self.tomasz, TOMASZ), ["away"])

    def test_signed_in_anew(self) -> None:
        """Who was away, and signs in and watches anew, is not told afterwards what he missed before."""
        self.at.outgoing.answers[PORT] = Unreachable("down")
        self.at.state("busy")
        self.at.outgoing.answers[PORT] = 200
        self.at.login("/t", TOMASZ, f"http://192.0.2.78:{PORT}")
        self.at.watch("/p", TOMASZ)
        self.at.outgoing.take()
        self.at.clock.pump(RETRY_SECONDS)
        self.assertEqual(self.at.outgoing.take(), [])

    def test_ended_meanwhile(self) -> None:
        """What could not be delivered is not tried again for a subscription that has ended: others may have
        told something newer by then."""
        self.at.outgoing.answers[PORT] = Unreachable("down")
        self.at.state("busy")
        number = self.tomasz.header(b"Subscription-Id").decode()
        self.at.ask("UNSUBSCRIBE", "/p", who=TOMASZ, Subscription_Id=number)
        self.at.outgoing.take()
        self.at.clock.pump(RETRY_SECONDS)
        self.assertEqual(self.at.outgoing.take(), [])

    def test_blocked(self) -> None:
        """Nobody hears by a renewal what he may not see."""
        self.at.outgoing.answers[PORT] = Unreachable("down")
        self.at.state("busy")
        self.at.clock.pump(RETRY_SECONDS)
        self.at.outgoing.answers[PORT] = 200
        blocked = self.at.ask("ACL", "/p", _ONLY_PETRA, who=PETRA)
        self.assertEqual(blocked.status, 200)
        self.assertEqual(self.renew(self.tomasz, TOMASZ), [])

    def test_seeing_again(self) -> None:
        """Who was blocked and hears the state when he is not any more is not told it once more."""
        self.at.ask("ACL", "/p", _ONLY_PETRA, who=PETRA)
        self.at.outgoing.take()
        allowed = self.at.ask("ACL", "/p", _EVERYBODY, who=PETRA)
        self.assertEqual(allowed.status, 200)
        (sent,) = self.at.outgoing.take()
        self.assertIn(b"<r:online/>", sent.wire)
        self.assertEqual(self.renew(self.tomasz, TOMASZ), [])

    def test_seeing_again_unheard(self) -> None:
        """What he should have heard then and did not is told when he renews."""
        self.at.ask("ACL", "/p", _ONLY_PETRA, who=PETRA)
        self.at.outgoing.answers[PORT] = Unreachable("down")
        self.at.ask("ACL", "/p", _EVERYBODY, who=PETRA)
        self.at.clock.pump(RETRY_SECONDS)
        self.at.outgoing.answers[PORT] = 200
        self.assertEqual(self.renew(self.tomasz, TOMASZ), ["online"])


class RestartTests(UnheardCase):
    """After a restart nobody knows what was still on its way."""

    def test_told_once(self) -> None:
        """The first renewal tells the state, the second nothing."""
        self.at.stop()
        disk = Disk()
        self.addCleanup(disk.close)
        disk.commit(self.at.journal.written)
        again = LocalHome(saved=disk.read(), now=self.at.clock.seconds())
        self.addCleanup(again.stop)
        again.outgoing.answers[PORT] = 200
        self.assertEqual(self.renew(self.tomasz, TOMASZ, again), ["online"])
        self.assertEqual(self.renew(self.tomasz, TOMASZ, again), [])

    def test_moved_meanwhile(self) -> None:
        """Who moved away while this home was down is not said to be offline when his old lease ends."""
        self.at.stop()
        disk = Disk()
        self.addCleanup(disk.close)
        disk.commit(self.at.journal.written)
        again = LocalHome(saved=disk.read(), now=self.at.clock.seconds())
        self.addCleanup(again.stop)
        key = PETRA.removeprefix("http://")
        again.directory.move(key, again.other, silently=True)
        again.directory.forget(key)
        again.clock.pump([1.0] * 1300)
        self.assertEqual((again.outgoing.take(), again.elsewhere), ([], []))
        self.assertIn(DropNode(key), again.journal.written)
        self.assertIsNone(again.home.keeper.get(key))


class FarmDestinationTests(SynchronousTestCase):
    """The way to another home."""

    def test_no_way(self) -> None:
        """A link that takes nothing more, as when this home stops, is an outcome like any other."""

        def elsewhere(call: Call) -> Reply:
            raise Unreachable("the link is closed")

        outcomes: list[int | Unreachable] = []
        FarmDestination("farm:1", OLGA.encode(), elsewhere).send(b"", b"", outcomes.append)
        self.assertEqual([type(outcome) for outcome in outcomes], [Unreachable])


_ACE = "<a:ace><a:principal>{}<a:credentials><a:any/></a:credentials></a:principal><a:grant><a:all/></a:grant></a:ace>"
_LIST = (
    "<?xml version=\"1.0\"?><a:rvpacl xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' "
    "xmlns:a='http://schemas.microsoft.com/rvp/acl/'><a:acl>{}</a:acl></a:rvpacl>"
)
_ONLY_PETRA = _LIST.format(_ACE.format(f"<a:rvp-principal>{PETRA}</a:rvp-principal>"))
_EVERYBODY = _LIST.format(_ACE.format("<a:allprincipals/>"))
