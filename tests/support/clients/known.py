"""The clients that a transcript can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.support.clients.common import Client, Plain
from tests.support.clients.miranda import Miranda
from tests.support.clients.netrvp import NetRvp
from tests.support.clients.strict import Librvp, Strict

#: What makes a reader of each.
CLIENTS: Mapping[str, Callable[[], Client]] = {
    "win": Strict,
    "miranda": Miranda,
    "net-rvp": NetRvp,
    "librvp": Librvp,
    "plain": Plain,
}
