"""Every command of C{docs/administrators-guide.md} does what the guide says of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from unittest import TestCase

import dns.exception
import dns.message
import dns.query
import pytest

from tests.support.pages import DOCS, Player, blocks, steps
from tests.support.processes import free_ports, scratch, wait_for
from tests.support.slapd import OPENLDAP, Slapd, missing
from tests.support.trees import openldap_tree

PAGE = DOCS / "administrators-guide.md"
NAMED = shutil.which("named", path="/usr/bin:/usr/sbin:/bin:/sbin")

#: The ports of the guide; the test gives each of them one that is free here.
PORTS = [str(20080 + number) for number in range(7)] + ["20053"]

ZONE = """\
$TTL 60
@ IN SOA ns hostmaster 1 3600 600 604800 10
@ IN NS ns
ns IN A 127.0.0.1
"""

KEY = 'key "rvpfarm" { algorithm hmac-sha256; secret "cmlnaHQgcmlnaHQgcmlnaHQgcmlnaHQ="; };\n'

CONFIGURATION = """\
options {{
    directory "{where}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    pid-file none; session-keyfile none; recursion no; dnssec-validation no;
}};
controls {{ }};
include "{where}/tsig.key";
zone "fabrik.example" {{
    type primary; file "{where}/fabrik.zone"; update-policy {{ grant rvpfarm zonesub A AAAA SRV; }};
}};
"""


@pytest.mark.farm
class GuideTests(TestCase):
    """The guide is one session in an empty folder, with the site's own DNS and LDAP servers."""

    def test_commands(self) -> None:
        """Exit statuses and what is printed are as shown; hardly anything stands outside of it."""
        if NAMED is None or missing() or not all(map(shutil.which, ("bash", "curl", "sqlite3"))):
            self.skipTest("the guide needs bash, curl, sqlite3, named (bind9) and slapd")
        folder = self.enterContext(scratch())
        places = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        self.start_named(folder, int(places["20053"]))
        (folder / "slapd").mkdir()
        slapd = Slapd(folder / "slapd", OPENLDAP, openldap_tree())
        self.addCleanup(slapd.stop)
        places["ldap://ldap.fabrik.example"] = slapd.url
        places["ldap-ca.pem"] = str(slapd.certificate)
        player = Player(folder)
        self.addCleanup(player.end)
        found = [step for _, text in blocks(PAGE, "sh") for step in steps(text)]
        self.assertGreater(len(found), 30)
        for step in found:
            player.play(step, places)
        self.assertLessEqual(len(blocks(PAGE, "console")), 3)
        self.assertEqual(len(blocks(PAGE, "[a-z]*")), len(blocks(PAGE, "sh", "console")))

    def start_named(self, where: Path, port: int) -> None:
        """Start a BIND that keeps the site's zone and takes updates signed with C{tsig.key}."""
        assert NAMED is not None
        (where / "fabrik.zone").write_text(ZONE)
        (where / "tsig.key").write_text(KEY)
        (where / "tsig.key").chmod(0o600)
        (where / "named.conf").write_text(CONFIGURATION.format(where=where, port=port))
        with (where / "named.log").open("a") as log:
            command = [NAMED, "-g", "-n", "1", "-c", str(where / "named.conf")]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=where)

        def end() -> None:
            process.terminate()
            process.wait(60)

        self.addCleanup(end)

        def serves() -> bool:
            try:
                query = dns.message.make_query("ns.fabrik.example", "A")
                return bool(dns.query.udp(query, "127.0.0.1", port=port, timeout=1).answer)
            except (OSError, dns.exception.DNSException):
                return False

        wait_for("BIND serving", serves)
