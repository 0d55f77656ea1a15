"""C{rvpfarm dns publish} and C{dns check} with a real BIND whose zone is changed by signed updates."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from unittest import TestCase, skipUnless

import dns.exception
import dns.message
import dns.query
import dns.rcode

from rvpfarm.admin import handlers, publishing
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.servers import drain_router
from tests.support.processes import BIN, Ran, free_ports, run, scratch, wait_for

NAMED = shutil.which("named", path="/usr/bin:/usr/sbin:/bin:/sbin")

ZONE = "fabrik.example"

#: What other people have in the zone, which stays as it is.
OWN = """\
$TTL 60
@ IN SOA ns hostmaster 1 3600 600 604800 10
@ IN NS ns
@ IN MX 10 mail
ns IN A 127.0.0.1
www IN A 192.0.2.80
_ldap._tcp IN SRV 0 0 389 www
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
}};
controls {{ }};
include "{where}/right.key";
include "{where}/weak.key";
zone "fabrik.example" {{
    type primary;
    file "{where}/fabrik.zone";
    update-policy {{ grant right zonesub A AAAA SRV; }};
}};
zone "fabrik.test" {{ type primary; file "{where}/test.zone"; }};
"""

KEY = 'key "{name}" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret}";\n}};\n'


@skipUnless(NAMED, "BIND is not installed (bind9)")
class PublishingTests(TestCase):
    """The plan reaches a zone that others use, too, and nothing but the plan."""

    def setUp(self) -> None:
        """A farm, and a BIND with a zone for it that knows nothing of it."""
        self.where = self.enterContext(scratch())
        self.url = f"sqlite:///{self.where / 'directory.sqlite'}"
        self.store, _new = handlers.prepare(self.url, self.where / "farm.key")
        self.addCleanup(self.store.close)
        handlers.init(self.store, actor="test")
        handlers.add_domain(self.store, "im.fabrik.example", ["fabrik.example"], actor="test")
        handlers.create_home(self.store, "hs1", "hs1.fabrik.example", address="192.0.2.11", actor="test")
        for number in (1, 2):
            handlers.create_router(
                self.store,
                f"r{number}",
                f"r{number}.fabrik.example",
                address=f"192.0.2.{number}",
                actor="test",
            )
        self.key("right", "cmlnaHQgcmlnaHQgcmlnaHQgcmlnaHQ=")
        self.key("weak", "d2VhayB3ZWFrIHdlYWsgd2VhayB3ZWFr")
        self.port = self.start_named("named", OWN)

    def key(self, name: str, secret: str, file: str = "") -> Path:
        """A key file."""
        path = self.where / f"{file or name}.key"
        path.write_text(KEY.format(name=name, secret=secret))
        path.chmod(0o600)
        return path

    def start_named(self, name: str, zone: str) -> int:
        """Start a BIND with that zone; it is ended after the test.

        @return: its port.
        """
        where = self.where / name
        where.mkdir()
        for file in ("fabrik.zone", "test.zone"):
            (where / file).write_text(zone)
        for file in ("right.key", "weak.key"):
            shutil.copy(self.where / file, where / file)
        (port,) = free_ports(1)
        (where / "named.conf").write_text(CONFIGURATION.format(where=where, port=port))
        with (where / "log").open("a") as log:
            process = subprocess.Popen(
                [str(NAMED), "-g", "-n", "1", "-c", str(where / "named.conf")],
                stdout=log,
                stderr=log,
                cwd=where,
            )

        def end() -> None:
            process.terminate()
            process.wait(60)

        self.addCleanup(end)

        def serves() -> bool:
            try:
                return bool(self.ask(f"ns.{ZONE}", "A", port))
            except (OSError, dns.exception.DNSException):
                return False

        wait_for("BIND serving", serves)
        return port

    def ask(self, name: str, kind: str, port: int = 0) -> list[str]:
        """What BIND says."""
        query = dns.message.make_query(name, kind)
        reply = dns.query.udp(query, "127.0.0.1", port=port or self.port, timeout=5)
        return sorted(rdata.to_text() for rrset in reply.answer for rdata in rrset)

    def rvpfarm(self, *words: str | Path) -> Ran:
        """Run the administrator's command."""
        return run(BIN / "rvpfarm", "--directory", self.url, *words)

    def publish(self, *words: str | Path, key: str = "right") -> Ran:
        """Publish with a key."""
        server = f"127.0.0.1:{self.port}"
        key_file = self.where / f"{key}.key"
        return self.rvpfarm("dns", "publish", "--server", server, "--key-file", key_file, *words)

    def check(self, *words: str) -> tuple[int, list[dict[str, str]]]:
        """The exit status of a check, and what it finds."""
        server = f"127.0.0.1:{self.port}"
        done = self.rvpfarm("dns", "check", "--authoritative", server, "--no-probe", "--json", *words)
        self.assertIn(done.status, (0, 1), done)
        return done.status, json.loads(done.out)["findings"]

    def test_whole_way(self) -> None:
        """A check finds what is missing, a dry run shows it, publishing mends it and is quiet the second time."""
        status, found = self.check("--dns", f"127.0.0.1:{self.port}")
        self.assertEqual(status, 1)
        self.assertLessEqual({"D01", "D02", "D21"}, {one["rule"] for one in found})
        (missing,) = [one for one in found if "_rvp._tcp.fabrik.example" in one["what"]]
        self.assertEqual(
            missing["remedy"], "publish: _rvp._tcp.fabrik.example. 60 IN SRV 0 0 80 im.fabrik.example."
        )
        shown = self.publish("--dry-run")
        self.assertEqual(shown.status, 0, shown)
        self.assertIn("+ im.fabrik.example. 60 IN A 192.0.2.1\n", shown.out)
        self.assertEqual(self.ask("im.fabrik.example", "A"), [])
        done = self.publish()
        self.assertEqual(done.status, 0, done)
        self.assertEqual(done.out.replace("changed", "would change"), shown.out)
        self.assertEqual(self.ask("im.fabrik.example", "A"), ["192.0.2.1", "192.0.2.2"])
        self.assertEqual(self.ask("_rvp._tcp.fabrik.example", "SRV"), ["0 0 80 im.fabrik.example."])
        self.assertEqual(self.check("--dns", f"127.0.0.1:{self.port}"), (0, []))
        self.assertIn("nothing to change", self.publish().out)

    def test_others_records(self) -> None:
        """What others have in the zone is as it was."""
        self.publish()
        self.assertEqual(self.ask("www.fabrik.example", "A"), ["192.0.2.80"])
        self.assertEqual(self.ask("fabrik.example", "MX"), ["10 mail.fabrik.example."])
        self.assertEqual(self.ask("_ldap._tcp.fabrik.example", "SRV"), ["0 0 389 www.fabrik.example."])

    def test_drained_router(self) -> None:
        """A router that drains is taken out of the domain, and its own name goes."""
        self.publish()
        drain_router(self.store, "r1", actor="test")
        _, found = self.check("--dns", f"127.0.0.1:{self.port}")
        self.assertEqual({one["rule"] for one in found}, {"D21"})
        done = self.publish()
        self.assertIn("- im.fabrik.example. 60 IN A 192.0.2.1\n", done.out)
        self.assertIn("- r1.fabrik.example. 60 IN A 192.0.2.1\n", done.out)
        self.assertEqual(self.ask("im.fabrik.example", "A"), ["192.0.2.2"])
        self.assertEqual(self.ask("r1.fabrik.example", "A"), [])

    def test_wrong_key(self) -> None:
        """A secret that the server does not have changes nothing, and the sentence says which option."""
        self.key("right", "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmc=", "wrong")
        done = self.publish(key="wrong")
        self.assertEqual(done.status, 1, done)
        self.assertIn("--key-file", done.err)
        self.key("stranger", "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmc=")
        self.assertEqual(self.publish(key="stranger").status, 1)
        self.assertEqual(self.ask("im.fabrik.example", "A"), [])

    def test_refused(self) -> None:
        """A key without rights, or a zone that takes no updates, is refused with the reason."""
        done = self.publish(key="weak")
        self.assertEqual(done.status, 1, done)
        self.assertIn("REFUSED", done.err)
        handlers.add_mail_domain(self.store, "im.fabrik.example", "fabrik.test", actor="test")
        done = self.publish("--zone", "fabrik.test")
        self.assertEqual(done.status, 1, done)
        self.assertIn("fabrik.test", done.err)
        self.assertEqual(self.ask("_rvp._tcp.fabrik.test", "SRV"), [])

    def test_meanwhile(self) -> None:
        """Who changes the same records in between is not overwritten: nothing at all is changed then."""
        server = "127.0.0.1", self.port
        farm = handlers.farm_of(self.store)
        key = publishing.load_key(self.where / "right.key")
        (plan,) = publishing.plan_updates(farm, server, None, 5)
        self.publish()
        with self.assertRaisesRegex(Refused, "somebody changed"):
            publishing.publish(plan, key, 5)
        drain_router(self.store, "r2", actor="test")
        (late,) = publishing.plan_updates(handlers.farm_of(self.store), server, None, 5)
        handlers.create_router(self.store, "r3", "r3.fabrik.example", address="192.0.2.3", actor="test")
        self.publish()
        with self.assertRaisesRegex(Refused, "somebody changed"):
            publishing.publish(late, key, 5)
        self.assertEqual(self.ask("im.fabrik.example", "A"), ["192.0.2.1", "192.0.2.3"])

    def test_readable_key(self) -> None:
        """A key that everybody can read is not used."""
        (self.where / "right.key").chmod(0o644)
        done = self.publish()
        self.assertEqual(done.status, 1)
        self.assertIn("everybody can read", done.err)

    def test_stale_resolver(self) -> None:
        """A resolver that says what was true before is found, with the time until it forgets (D20)."""
        self.publish()
        old = OWN + "im IN A 192.0.2.9\n_rvp._tcp IN SRV 0 0 80 im\n"
        stale = self.start_named("stale", old)
        status, found = self.check("--dns", f"127.0.0.1:{stale}")
        self.assertEqual(status, 1)
        (told,) = [one for one in found if one["rule"] == "D20" and "192.0.2.9" in one["what"]]
        self.assertIn("for 60 seconds more", told["what"])
        self.assertIn("rndc flushname im.fabrik.example", told["remedy"])
