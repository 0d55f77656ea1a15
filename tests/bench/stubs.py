"""Homes that say 200 to everything at once, so that a router can be measured alone.

C{python -m tests.bench.stubs KEY_FILE ID:PORT...} takes the farm link of each home at its port.
"""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> None:
    """Serve until ended."""
    from rvpfarm.tap.reactor import install

    install()
    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString

    from rvpfarm.auth.keys import FarmKey
    from rvpfarm.link.server import LinkFactory
    from rvpfarm.protocol.calls import Limits, Reply
    from tests.bench.farm import HOST

    key = FarmKey.load(arguments[0])
    said = Reply(200)
    for place in arguments[1:]:
        home, _, port = place.rpartition(":")
        factory = LinkFactory(
            lambda call: said, key=key.link, name=home, incarnation=1, clock=reactor, limits=Limits()
        )
        serverFromString(reactor, f"fast:tcp:{port}:interface={HOST}").listen(factory)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
