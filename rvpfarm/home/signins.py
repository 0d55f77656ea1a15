"""What an operator hears of sign-ins that no user can put right (shell)."""

from __future__ import annotations

from twisted.logger import Logger

from rvpfarm.auth.challenge import Miss
from rvpfarm.auth.throttle import Episodes
from rvpfarm.observe.metrics import Metrics

#: After how many seconds without another one the same thing is worth a new line in the log.
QUIET_SECONDS = 600.0

#: What is said, by what was counted; nothing is counted when there is nothing to check a password by.
_LINES = {
    "": "{account} cannot sign in by {method}: nothing is kept that the password could be checked by; "
    '"rvpfarm user show {account}" says what to do',
    "pair": "sign-ins of {account} from {peer} are held back: too many wrong passwords",
    "address": "sign-ins from {peer} are held back: too many wrong passwords of several users",
    "account": "sign-ins of {account} are held back where it is not known: too many wrong passwords, from "
    "several addresses",
}


class SignIns:
    """Counts them all, and logs the first of each kind: a client asks again and again."""

    _log = Logger()

    def __init__(self, metrics: Metrics) -> None:
        """
        @param metrics: counts who is held back; causes are counted where they arise.
        """
        self._metrics = metrics
        self._episodes = Episodes(QUIET_SECONDS)

    def missed(self, miss: Miss) -> None:
        """Somebody could not prove who he is."""
        if miss.scope:
            self._metrics.auth_throttled(miss.scope)
        account = "" if miss.account is None or miss.scope == "address" else miss.account.address
        peer = miss.peer if miss.scope in ("pair", "address") else ""
        kind = miss.scope or miss.method
        if self._episodes.begins((kind, account, peer), miss.now):
            self._log.warn(
                _LINES[miss.scope], account=account, peer=peer, method=miss.method, cause=miss.cause
            )
