"""The DNS plan in a real BIND: it is loaded without a complaint, and answers as rvp-dns does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from unittest import TestCase, skipUnless

import dns.flags
import dns.message
import dns.query
import dns.rcode

from rvpfarm.admin import handlers
from rvpfarm.admin.servers import drain_router
from tests.support.processes import BIN, free_ports, run, scratch, wait_for

CHECK, NAMED = (
    shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin") for name in ("named-checkzone", "named")
)

ZONE = "fabrik.example"

#: What stands in anybody's zone besides the plan.
OWN = """\
$TTL 60
@ IN SOA ns hostmaster 1 3600 600 604800 10
@ IN NS ns
ns IN A 127.0.0.1
$INCLUDE {plan}
"""

CONFIGURATION = """\
options {{
    directory "{where}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    recursion no;
    dnssec-validation no;
    minimal-responses yes;
}};
controls {{ }};
zone "{zone}" {{ type primary; file "{zone}.zone"; }};
"""


@skipUnless(CHECK and NAMED, "BIND is not installed (bind9, bind9-utils)")
class BindTests(TestCase):
    """What C{rvpfarm dns plan} prints can be published as it is."""

    def setUp(self) -> None:
        """A farm with everything that the plan knows, and its plan, one file for each zone."""
        self.where = self.enterContext(scratch())
        self.url = f"sqlite:///{self.where / 'directory.sqlite'}"
        self.make_farm()
        plan = self.rvpfarm("dns", "plan")
        self.assertIn("; Left out: router r4", plan)
        sections = re.split(r"^; zone (.+)$", plan, flags=re.MULTILINE)
        self.zones = dict(zip(sections[1::2], sections[2::2], strict=True))
        for zone, lines in self.zones.items():
            (self.where / f"{zone}.plan").write_text(sections[0] + lines)
            (self.where / f"{zone}.zone").write_text(OWN.format(plan=self.where / f"{zone}.plan"))

    def make_farm(self) -> None:
        """The directory."""
        store, _new = handlers.prepare(self.url, self.where / "farm.key")
        self.addCleanup(store.close)
        handlers.init(store, actor="test")
        names = ["fabrik.example", "fabrik.test"], ["old.fabrik.example", "omnent"]
        handlers.add_domain(store, "im.fabrik.example", *names, actor="test")
        for name, address in (("hs1", "192.0.2.11"), ("hs2", "")):
            handlers.create_home(store, name, f"{name}.fabrik.example", address=address, actor="test")
        for name, host, address in (
            ("r1", "r1", "192.0.2.1"),
            ("r2", "im", "192.0.2.2"),
            ("r3", "r3", "2001:db8::3"),
            ("r4", "r4", "192.0.2.4"),
        ):
            handlers.create_router(store, name, f"{host}.fabrik.example", address=address, actor="test")
        drain_router(store, "r4", actor="test")

    def rvpfarm(self, *words: str) -> str:
        """Run the administrator's command."""
        done = run(BIN / "rvpfarm", "--directory", self.url, *words)
        self.assertEqual(done.status, 0, done)
        return done.out

    def start(self, *command: str | Path) -> None:
        """Start a name server; it is ended after the test."""
        with (self.where / "log").open("a") as log:
            process = subprocess.Popen(
                [str(part) for part in command], stdout=log, stderr=log, cwd=self.where
            )

        def end() -> None:
            process.terminate()
            process.wait(60)

        self.addCleanup(end)

    def ask(self, port: int, name: str, kind: str) -> dns.message.Message:
        """Put a question to the server at C{port}."""
        return dns.query.udp(dns.message.make_query(name, kind), "127.0.0.1", port=port, timeout=5)

    def answers(self, port: int) -> bool:
        """Does the server at C{port} serve the zone?"""
        try:
            return bool(self.ask(port, ZONE, "SOA").answer)
        except (OSError, dns.exception.DNSException):
            return False

    def said(self, port: int, name: str, kind: str) -> tuple[str, bool, list[str]]:
        """The outcome, whether it is authoritative, and the records in the order of their text."""
        reply = self.ask(port, name, kind)
        found = sorted(text for rrset in reply.answer for text in rrset.to_text().splitlines())
        return dns.rcode.to_text(reply.rcode()), bool(reply.flags & dns.flags.AA), found

    def test_checked(self) -> None:
        """BIND's own check takes every zone of the plan, and has nothing to remark."""
        self.assertEqual(sorted(self.zones), ["fabrik.example", "fabrik.test"])
        for zone in self.zones:
            # "local": it asks nobody about names of other zones
            done = run(str(CHECK), "-i", "local", zone, self.where / f"{zone}.zone")
            self.assertEqual(done.status, 0, done)
            self.assertEqual(done.out.splitlines()[1:], ["OK"], done.out)

    def test_served(self) -> None:
        """Whatever clients ask, a real BIND with the plan answers as rvp-dns does from the directory."""
        bind, ours = free_ports(2)
        configuration = self.where / "named.conf"
        configuration.write_text(CONFIGURATION.format(where=self.where, port=bind, zone=ZONE))
        self.start(str(NAMED), "-g", "-n", "1", "-c", configuration)
        self.start(
            *(BIN / "twistd", "--nodaemon", "--pidfile=", "rvp-dns", "--directory", self.url),
            *("--zone", ZONE, "--listen", f"127.0.0.1:{ours}"),
        )
        for port, who in ((bind, "BIND"), (ours, "rvp-dns")):
            wait_for(f"{who} serving", lambda port=port: self.answers(port))  # type: ignore[misc]
        names = {line.split()[0] for line in self.zones[ZONE].splitlines() if line}
        self.assertEqual(len(names), 7)
        for name in sorted(names | {f"{name}.{ZONE}." for name in ("r4", "hs2", "nobody", "_tcp", "omnent")}):
            for kind in ("SRV", "A", "AAAA", "MX"):
                with self.subTest(name=name, kind=kind):
                    self.assertEqual(self.said(bind, name, kind), self.said(ours, name, kind))
        self.assertEqual(
            self.said(bind, f"_rvp._tcp.{ZONE}", "SRV"),
            ("NOERROR", True, [f"_rvp._tcp.{ZONE}. 60 IN SRV 0 0 80 im.fabrik.example."]),
        )
        self.assertEqual(len(self.said(bind, "im.fabrik.example", "A")[2]), 2)
        self.rvpfarm("router", "drain", "r1")
        wait_for("r1 being left out", lambda: len(self.said(ours, "im.fabrik.example", "A")[2]) == 1)
        self.assertEqual(self.said(ours, "r1.fabrik.example", "A")[0], "NXDOMAIN")
        planned = [line for line in self.rvpfarm("dns", "plan").splitlines() if not line.startswith(";")]
        self.assertFalse([line for line in planned if line.endswith(" 192.0.2.1")])
