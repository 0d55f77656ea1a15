"""Questions to real LDAP servers: TLS, fail-over, deadlines, pages, and passwords."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.ldappeople import ldap_entries
from rvpfarm.directory.ldapservers import REST_SECONDS, LdapServers
from rvpfarm.directory.ldapsettings import LdapSettings
from rvpfarm.directory.model import DirectoryUnavailable
from tests.support.processes import free_ports
from tests.support.slapd import OPENLDAP, READER_PASSWORD, Slapd, missing
from tests.support.store import make_folder
from tests.support.tls import write_certificate
from tests.support.trees import (
    PASSWORDS,
    openldap_tree,
    person,
    person_dn,
    servers_for,
    settings_for,
    shared_slapd,
)


class LdapServersTests(SynchronousTestCase):
    """A question is answered by a server that proved who it is, or fails as what it is."""

    def setUp(self) -> None:
        """One server with people."""
        if missing():
            self.skipTest(missing())
        self.slapd = shared_slapd("openldap")

    def servers(self, settings: LdapSettings) -> LdapServers:
        """What asks, until the test ends."""
        made = servers_for(settings)
        self.addCleanup(made.close)
        return made

    def dns(self, servers: LdapServers, filter: str = "(uid=petra)") -> list[str]:
        """Whom a filter finds."""
        return [entry.dn for entry in servers.search(filter, ["uid"])]

    def test_encrypted(self) -> None:
        """By StartTLS and over TLS from the start, and the certificate can be seen."""
        for tls in (False, True):
            servers = self.servers(settings_for(self.slapd, tls=tls))
            self.assertEqual(self.dns(servers), [person_dn("petra")])
            reached = servers.reach()
            self.assertEqual(reached.server, self.slapd.tls_url if tls else self.slapd.url)
            self.assertEqual(reached.failed, ())

    def test_strange_certificate(self) -> None:
        """A server whose certificate no known authority made is not asked: it could be anybody."""
        _, strange = write_certificate(make_folder(self), "ldap.fabrik.example")
        for tls in (False, True):
            servers = self.servers(replace(settings_for(self.slapd, tls=tls), ca_file=strange))
            self.assertRaises(DirectoryUnavailable, self.dns, servers)

    def test_other_name(self) -> None:
        """Nor one whose certificate is for another host."""
        settings = settings_for(self.slapd, tls=True)
        url = self.slapd.tls_url.replace("127.0.0.1", "localhost")
        servers = self.servers(replace(settings, servers=(url,)))
        self.assertRaises(DirectoryUnavailable, self.dns, servers)

    def test_reader_refused(self) -> None:
        """A reader whose password is wrong makes nobody unknown: the directory cannot be asked."""
        servers = LdapServers(settings_for(self.slapd), "wrong")
        self.addCleanup(servers.close)
        problem = self.assertRaises(DirectoryUnavailable, self.dns, servers)
        self.assertIn("Invalid credentials", str(problem))
        self.assertNotIn("wrong", str(problem))

    def test_prove(self) -> None:
        """The right password, a wrong one, somebody unknown, and none at all, to which servers say yes."""
        servers = self.servers(settings_for(self.slapd))
        self.assertTrue(servers.prove(person_dn("petra"), PASSWORDS["petra"]))
        self.assertFalse(servers.prove(person_dn("petra"), "wrong"))
        self.assertFalse(servers.prove(person_dn("nobody"), "wrong"))
        self.assertFalse(servers.prove("no name at all", "wrong"))
        self.assertFalse(servers.prove(person_dn("petra"), ""))
        self.assertFalse(servers.prove("", "anything"))
        self.assertEqual(self.dns(servers), [person_dn("petra")], "the reader is still the reader")

    def test_silent_server(self) -> None:
        """A server that accepts and says nothing costs the deadline, not for ever; then the next is asked."""
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        for scheme in ("ldap", "ldaps"):
            url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
            settings = settings_for(self.slapd)
            servers = self.servers(replace(settings, servers=(url, *settings.servers), deadline_seconds=0.5))
            self.assertEqual(self.dns(servers), [person_dn("petra")])
            self.assertEqual(servers.current, self.slapd.url)

    def test_nobody_answers(self) -> None:
        """Without any server the sentence names each, and the next question fails at once."""
        (port,) = free_ports(1)
        url = f"ldap://127.0.0.1:{port}"
        servers = self.servers(replace(settings_for(self.slapd), servers=(url,)))
        problem = self.assertRaises(DirectoryUnavailable, self.dns, servers)
        self.assertIn(url, str(problem))
        problem = self.assertRaises(DirectoryUnavailable, servers.prove, person_dn("petra"), "x")
        self.assertIn("no LDAP server answers", str(problem))


class FailOverTests(SynchronousTestCase):
    """Two servers hold one tree."""

    def setUp(self) -> None:
        """Both answer."""
        if missing():
            self.skipTest(missing())
        self.pair = [Slapd(make_folder(self), OPENLDAP, openldap_tree()) for _ in range(2)]
        for slapd in self.pair:
            self.addCleanup(slapd.stop)
        self.now = 0.0
        settings = replace(settings_for(*self.pair), ca_file=self.bundle(), deadline_seconds=5.0)
        self.servers = LdapServers(settings, READER_PASSWORD, now=lambda: self.now)
        self.addCleanup(self.servers.close)

    def bundle(self) -> str:
        """One file with the authorities of both."""
        file = make_folder(self) / "authorities.pem"
        file.write_text("".join(Path(slapd.certificate).read_text() for slapd in self.pair))
        return str(file)

    def find(self) -> str:
        """Which server answers a question."""
        self.assertEqual(len(self.servers.search("(uid=petra)", ["uid"])), 1)
        return self.servers.current

    def test_sticky(self) -> None:
        """The second is stayed with when the first one is back, until it fails itself."""
        first, second = self.pair
        self.assertEqual(self.find(), first.url)
        first.stop()
        self.assertEqual(self.find(), second.url)
        first.start()
        self.now += REST_SECONDS + 1
        self.assertEqual(self.find(), second.url)
        second.stop()
        self.assertEqual(self.find(), first.url)

    def test_sign_ins_too(self) -> None:
        """A password is checked by whichever server answers."""
        self.pair[0].stop()
        self.assertTrue(self.servers.prove(person_dn("petra"), PASSWORDS["petra"]))
        self.pair[1].stop()
        self.assertRaises(DirectoryUnavailable, self.servers.prove, person_dn("petra"), PASSWORDS["petra"])

    def test_back_after_a_while(self) -> None:
        """When both failed, they are tried again after a while and not with each question."""
        for slapd in self.pair:
            slapd.stop()
        self.assertRaises(DirectoryUnavailable, self.find)
        self.pair[1].start()
        self.assertRaises(DirectoryUnavailable, self.find)
        self.now += REST_SECONDS + 1
        self.assertEqual(self.find(), self.pair[1].url)


class PagesTests(SynchronousTestCase):
    """A directory with more people than a server hands out at once."""

    def test_all(self) -> None:
        """All 1,203 come, each once, though the server gives no more than 500 unasked."""
        if missing():
            self.skipTest(missing())
        crowd = [person(f"user{number}") for number in range(1200)]
        slapd = Slapd(make_folder(self), OPENLDAP, [*openldap_tree(), *crowd])
        self.addCleanup(slapd.stop)
        settings = settings_for(slapd)
        found = list(ldap_entries(settings, password=READER_PASSWORD))
        self.assertEqual(len({one.dn for one in found}), 1203)
        some = list(ldap_entries(settings, "(uid=user12*)", password=READER_PASSWORD))
        self.assertEqual(len(some), 11)
        (one,) = ldap_entries(settings, "(uid=user777)", password=READER_PASSWORD)
        self.assertEqual((one.mail, one.display_name), ("user777@fabrik.example", "User777"))
        self.assertTrue(one.unique_id)
        self.assertFalse(one.disabled)

    def test_bad_filter(self) -> None:
        """A filter that cannot be read fails in a sentence."""
        if missing():
            self.skipTest(missing())
        entries = ldap_entries(settings_for(shared_slapd("openldap")), "(((", password=READER_PASSWORD)
        problem = self.assertRaises(DirectoryUnavailable, list, entries)
        self.assertIn("Bad search filter", str(problem))
