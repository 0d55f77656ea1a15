"""A home that says yes, for tests of clients: no delivery, no rights, no passwords."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from rvpfarm.protocol.calls import Call, Reply
from rvpfarm.protocol.properties import (
    Propstat,
    parse_propertyupdate,
    render_leased_state,
    render_multistatus,
    render_state,
)
from rvpfarm.web.responses import Response
from tests.support.carrier import Asked, Outcome, response


class FakeHome:
    """A home that grants everything, for a short while, and that tests can make refuse.

    @ivar refuse: the outcome of a method, in place of the usual one.
    @ivar silent: methods that are not answered.
    @ivar states: the presence of each path.
    @ivar known: the ids that it knows, by path.
    """

    def __init__(self) -> None:
        self.refuse: dict[str, Outcome] = {}
        self.silent: set[str] = set()
        self.states: dict[str, str] = {}
        self.known: dict[str, str] = {}
        self.seconds = 1000
        self._last = 40000

    def answer(self, asked: Asked) -> Outcome:
        """One answer."""
        method, path = asked.line.split(" ")
        if method in self.silent:
            return Deferred()
        if method in self.refuse:
            return self.refuse[method]
        if method == "SUBSCRIBE":
            return self._subscribe(asked, path)
        if method == "UNSUBSCRIBE":
            return response(200 if self.known.pop(asked.header("Subscription-Id") or "", None) else 412)
        if method == "PROPPATCH":
            (change,) = parse_propertyupdate(asked.call.body)
            self.states[path] = change.value
            shown = render_leased_state(change.value, "offline", 600, change.view or 77)
            return response(
                207, render_multistatus(f"http://im.farm.localhost{path}", [Propstat(200, (shown,))])
            )
        if method == "PROPFIND":
            return response(207, self._state_of(path))
        return response(200)

    def _state_of(self, path: str) -> bytes:
        state = render_state(self.states.get(path, "offline"))
        return render_multistatus(f"http://im.farm.localhost{path}", [Propstat(200, (state,))])

    def _subscribe(self, asked: Asked, path: str) -> Outcome:
        id = asked.header("Subscription-Id")
        if id is not None and id not in self.known:
            return response(412)
        new = id is None
        if id is None:
            self._last += 1
            id = str(self._last)
            self.known[id] = asked.header("Notification-Type") or ""
        headers = {"Subscription_Id": id, "Subscription_Lifetime": str(self.seconds)}
        if new and self.known[id] == "update/propchange":
            return response(207, self._state_of(path), **headers)
        return response(200, **headers)

    def serve(self, call: Call) -> Reply:
        """The same for a real listener; C{refuse} may hold responses only."""
        outcome = self.answer(Asked("", 0, call))
        assert isinstance(outcome, Response)
        headers = [(name, value) for name, value in outcome.headers.items()]
        headers += [(b"WWW-Authenticate", challenge) for challenge in outcome.challenges]
        return Reply(outcome.status, tuple(headers), outcome.body)
