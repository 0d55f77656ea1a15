"""The body that lists subscriptions (RVP 5.5; protocol notes 3.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rvpfarm.protocol.xml import escape, render_document


@dataclass(frozen=True, slots=True)
class SubscriptionEntry:
    """One subscription as others may see it: never where its notifications go.

    @ivar href: the logical URL of the subscriber.
    @ivar seconds_left: until it ends, unless it is renewed.
    """

    id: int
    href: str
    seconds_left: int


def render_subscriptions(entries: Iterable[SubscriptionEntry]) -> bytes:
    """The answer to SUBSCRIPTIONS."""
    return render_document("r:subscriptions", "".join([_render(entry) for entry in entries]))


def _render(entry: SubscriptionEntry) -> str:
    """One subscription of the list."""
    href = escape(entry.href)
    return (
        f"<r:subscription><r:subscription-id>{entry.id}</r:subscription-id><d:href>{href}</d:href>"
        f"<a:principal><a:rvp-principal>{href}</a:rvp-principal></a:principal>"
        f"<d:timeout>{entry.seconds_left}</d:timeout></r:subscription>"
    )
