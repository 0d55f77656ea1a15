"""The administrator's door into a running home: control calls over the farm link, answered in its own loop.

Everything else that comes over a link passes through to the home.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.directory.model import Account, Directory, DirectoryUnavailable
from rvpfarm.directory.names import names_of
from rvpfarm.home.lists import Wish, change, describe, rehearse
from rvpfarm.home.node import Node
from rvpfarm.home.server import Home
from rvpfarm.home.sessions import Listings, chosen, end, sessions_of, watchers_of
from rvpfarm.protocol.calls import Busy, Call, NotFound, NotSupported, Relayed, Reply
from rvpfarm.protocol.control import (
    METHOD,
    PAGE,
    Facts,
    Session,
    parse_question,
    privacy_record,
    record_of,
    render_answer,
)

_Answer = Reply | Relayed | Deferred[Reply | Relayed]


class Control:
    """Answers the control calls of one home."""

    _log = Logger()

    def __init__(self, home: Home, record: str, directory: Directory, clock: IReactorTime) -> None:
        """
        @param record: the id of the home in the directory.
        """
        self._home, self._record, self._directory, self._clock = home, record, directory, clock
        self._listings = Listings()
        self._operations: dict[str, Callable[[Facts, Call], _Answer]] = {
            "sessions": self._sessions,
            "end": self._end,
            "watchers": self._watchers,
            "acl": self._acl,
        }

    def answer(self, call: Call) -> _Answer:
        """Answer a call that came over the farm link.

        @raise Refusal: as L{Home.answer}, and what a control call cannot have.
        """
        if call.method != METHOD or not call.vouched:
            return self._home.answer(call)
        operation, facts = parse_question(call)
        if operation not in self._operations:
            raise NotSupported(f"this home knows no operation {operation}; is it an older rvpfarm?")
        return self._operations[operation](facts, call)

    # looking

    def _sessions(self, facts: Facts, call: Call) -> Reply:
        """Who is signed in: everybody, page by page, or one user."""
        keeper, user, now = self._home.keeper, facts.text("user"), self._clock.seconds()
        if user:
            one = keeper.get(user)
            nodes, last = ([] if one is None else [one]), ""
        else:
            limit = max(1, min(PAGE, facts.whole("limit") or PAGE))
            nodes, last = self._listings.page(keeper, facts.text("after"), limit, now)
        found = [session for node in nodes for session in self._sessions_of(node, now)]
        return render_answer({"sessions": [record_of(session) for session in found], "next": last})

    def _sessions_of(self, node: Node, now: float) -> list[Session]:
        books, condition = self._home.keeper.books, self._home.courier.condition
        return list(sessions_of(node, books.arrivals, condition, now))

    def _watchers(self, facts: Facts, call: Call) -> Reply:
        """Who watches a user."""
        node = self._home.keeper.get(facts.text("user"))
        if node is None:
            return render_answer({"watchers": [], "next": 0})
        limit = max(1, min(PAGE, facts.whole("limit") or PAGE))
        found, last = watchers_of(node, facts.whole("after") or 0, limit, self._clock.seconds())
        return render_answer({"watchers": [record_of(watcher) for watcher in found], "next": last})

    # changing

    def _end(self, facts: Facts, call: Call) -> _Answer:
        """End the sessions of a user, or one of them."""
        node = self._home.keeper.get(facts.text("user"))
        view = facts.whole("view")
        if node is None:
            return render_answer({"ended": []})
        places = chosen(node, view)
        ids = {(place.login and place.login.id, place.view and place.view.id) for place in places}
        ended = [
            record_of(session)
            for session in self._sessions_of(node, self._clock.seconds())
            if (session.login, session.view) in ids
        ]
        if facts.flag("dry_run") or not places:
            return render_answer({"ended": ended})
        self._log.info(
            "{count} sessions of {node} are ended by {caller}",
            count=len(ended),
            node=node.key,
            caller=call.via,
        )
        outcome = end(node, places, self._home.keeper)
        return self._done(self._home.enact(node, outcome), {"ended": ended})

    def _acl(self, facts: Facts, call: Call) -> _Answer:
        """Show the access list of a user, or change it."""
        key = facts.text("user")
        wish = Wish(facts.text("mode"), facts.names("allow"), facts.names("deny"), facts.names("remove"))
        dry_run = facts.flag("dry_run")
        account = self._directory.peek(key)
        if isinstance(account, Account):
            return self._acl_of(account, wish, dry_run, call)
        found = self._directory.find(key)
        found.addErrback(_unavailable)
        return found.addCallback(lambda account: self._acl_of(account, wish, dry_run, call))

    def _acl_of(self, account: Account | None, wish: Wish, dry_run: bool, call: Call) -> _Answer:
        """The same of a known account.

        @raise NotFound: it does not live here.
        """
        if account is None or account.home != self._record:
            raise NotFound("that user does not live at this home, or not yet; ask again in a moment")
        farm, keeper = self._directory.farm(), self._home.keeper
        names, node = names_of(farm), keeper.node(account)
        try:
            if wish.nothing:
                before = after = describe(node, farm)
            elif dry_run:
                before, after = rehearse(node, farm, names, wish)
            else:
                outcome, before, after = change(node, farm, names, wish)
                self._log.info(
                    "the access list of {node} is changed by {caller}", node=node.key, caller=call.via
                )
                told = {
                    "before": privacy_record(before),
                    "after": privacy_record(after),
                    "told": sum(len(news.watchers) for news in outcome.news),
                }
                return self._done(self._home.enact(node, outcome), told)
        finally:
            keeper.settle(node)
        return render_answer({"before": privacy_record(before), "after": privacy_record(after), "told": 0})

    def _done(self, reply: _Answer, said: dict[str, object]) -> _Answer:
        """What to answer once it is on disk."""
        if isinstance(reply, Deferred):
            return reply.addCallback(lambda _: render_answer(said))
        return render_answer(said)


def _unavailable(failure: Failure) -> Failure:
    """That the directory cannot be asked is no reason to say that there is no such user."""
    failure.trap(DirectoryUnavailable)
    raise Busy("the directory cannot be asked just now")
