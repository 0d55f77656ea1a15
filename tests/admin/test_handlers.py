"""What administrators do: each does the whole of it, or refuses with a remedy and changes nothing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers, servers
from rvpfarm.admin.handlers import Refused
from rvpfarm.directory.schema import known_revisions
from rvpfarm.directory.store import Store
from tests.support.store import directory_url, make_farm_store, make_folder, make_store, open_store


class HandlerCase(SynchronousTestCase):
    """A directory, and refusals that leave it as it was."""

    def setUp(self) -> None:
        """One domain and two homes."""
        self.store = self.make()

    def make(self) -> Store:
        """The directory to begin with."""
        return make_farm_store(self)

    # Arguments are whatever the handler takes.
    def refused(self, words: str, handler: object, *args: object, **options: object) -> None:
        """C{handler} refuses with a sentence that has C{words} in it, and leaves no trail."""
        before = len(handlers.list_audit(self.store))
        problem = self.assertRaises(Refused, handler, self.store, *args, **options)  # type: ignore[arg-type]
        self.assertIn(words, str(problem))
        self.assertEqual(len(handlers.list_audit(self.store)), before)


class InitTests(SynchronousTestCase):
    """The directory and the farm key are made once."""

    def test_first_and_again(self) -> None:
        """The first time makes tables, the second finds them."""
        store = open_store(self, make_folder(self))
        first = handlers.init(store, actor="test")
        newest = known_revisions()[0]
        self.assertEqual((first.before, first.revision), (None, newest))
        second = handlers.init(store, actor="test")
        self.assertEqual((second.before, second.revision), (newest, newest))
        self.assertEqual([row.action for row in handlers.list_audit(store)], ["init"])

    def test_prepare(self) -> None:
        """A new farm gets a key; an existing one is used."""
        folder = make_folder(self)
        url, key_file = directory_url(self, folder), folder / "farm.key"
        for expected in (True, False):
            store, new = handlers.prepare(url, key_file)
            self.addCleanup(store.close)
            handlers.init(store, actor="test")
            self.assertEqual(new, expected)

    def test_lost_key(self) -> None:
        """No second key is made for a directory that has secrets of the first."""
        folder = make_folder(self)
        make_store(self, folder)
        key_file = folder / "farm.key"
        key_file.unlink()
        problem = self.assertRaises(Refused, handlers.prepare, directory_url(self, folder), key_file)
        self.assertIn("restore it", str(problem))
        self.assertFalse(key_file.exists())

    def test_bad_key(self) -> None:
        """A key file that is none, or that others may read, is refused."""
        folder = make_folder(self)
        make_store(self, folder)
        key_file = folder / "farm.key"
        url = directory_url(self, folder)
        key_file.chmod(0o644)
        problem = self.assertRaises(Refused, handlers.open_store, url, key_file)
        self.assertIn("chmod", str(problem))
        key_file.chmod(0o600)
        key_file.write_text("no key\n")
        self.assertRaises(Refused, handlers.open_store, url, key_file)


class DomainTests(HandlerCase):
    """C{domain add}"""

    def test_added(self) -> None:
        """Names are lowered, repeated ones are taken once."""
        domain = handlers.add_domain(
            self.store, "IM.Orchard.Example.", ["Orchard.Example", "orchard.example"], ["Orchard"], "orchard"
        )
        self.assertEqual(domain.name, "im.orchard.example")
        self.assertEqual(domain.mail_domains, ("orchard.example",))
        self.assertEqual((domain.aliases, domain.netbios), (("orchard",), "ORCHARD"))
        self.assertEqual(handlers.farm_of(self.store).domains["im.orchard.example"], domain)

    def test_own_mail_domain(self) -> None:
        """An IM domain may be its own mail domain."""
        domain = handlers.add_domain(self.store, "orchard.example", ["orchard.example"])
        self.assertEqual(handlers.enable_user(self.store, "i@orchard.example").domain, domain.name)

    def test_refused(self) -> None:
        """Bad and taken names are refused."""
        add = handlers.add_domain
        self.refused("fully qualified", add, "orchard")
        self.refused("already", add, "im.fabrik.example")
        self.refused("belongs to the IM domain im.fabrik.example", add, "im.x.example", ["fabrik.example"])
        self.refused("belongs to the IM domain im.fabrik.example", add, "im.x.example", [], ["omnent"])
        self.refused("belongs to the IM domain im.fabrik.example", add, "fabrik.example")
        self.refused("belongs to the IM domain", add, "im.x.example", ["im.fabrik.example"])
        self.refused("host of home hs1", add, "hs1.fabrik.example")
        self.refused("alias of itself", add, "im.x.example", [], ["im.x.example"])
        self.refused("--mail-domain", add, "im.x.example", ["x"])
        self.refused("--netbios", add, "im.x.example", netbios="a b")


class ServerTests(HandlerCase):
    """C{home create} and C{router create}"""

    def test_home(self) -> None:
        """A home gets an id of its own; without C{--host} its name is its host."""
        home = handlers.create_home(self.store, "HS3.Fabrik.Example", port=8080, address="192.0.2.3")
        self.assertEqual((home.name, home.host), ("hs3", "hs3.fabrik.example"))
        self.assertEqual((home.port, home.link_port, home.address), (8080, 8081, "192.0.2.3"))
        self.assertEqual(handlers.farm_of(self.store).homes[home.id], home)

    def test_single_label(self) -> None:
        """A name that is not fully qualified is refused: KB 319758."""
        self.refused(
            '"HS9" is not a fully qualified name; give --host the name that clients resolve, such as '
            "hs1.example.com (KB 319758)",
            handlers.create_home,
            "HS9",
        )
        self.refused("KB 319758", handlers.create_home, "hs9", "hs9")
        self.refused("is not a fully qualified name", handlers.create_router, "r1", "R1")

    def test_names_taken(self) -> None:
        """Two homes cannot have one name, in whatever letter case."""
        self.refused('there is a home "hs1" already', handlers.create_home, "HS1", "hs9.fabrik.example")
        handlers.create_router(self.store, "r1", "im.fabrik.example")
        self.refused('there is a router "r1"', handlers.create_router, "r1", "r9.fabrik.example")

    def test_ports(self) -> None:
        """Two servers cannot listen at one place; another port or address is another place."""
        create = handlers.create_home
        self.refused(
            "port 80 on hs1.fabrik.example is taken by home hs1", create, "hs9", "hs1.fabrik.example"
        )
        self.refused(
            "port 8081 on hs1.fabrik.example", create, "hs9", "hs1.fabrik.example", port=8080, link_port=8081
        )
        self.refused("cannot share port 8080", create, "hs9", "hs9.fabrik.example", port=8080, link_port=8080)
        create(self.store, "hs9", "hs1.fabrik.example", port=8080, link_port=8082)
        create(self.store, "hs10", "hs10.fabrik.example", address="192.0.2.10")
        self.refused(
            "port 80 on 192.0.2.10 is taken by home hs10",
            handlers.create_router,
            "r1",
            "r1.fabrik.example",
            address="192.0.2.10",
        )
        self.refused("is not a port", create, "hs11", "hs11.fabrik.example", port=0)

    def test_homes_share_a_port(self) -> None:
        """Homes may have one address and port under several names; one process then runs them all."""
        create = handlers.create_home
        homes = [
            create(self.store, name, f"{name}.fabrik.example", 80, link, "192.0.2.10")
            for name, link in (("hs11", 8081), ("hs10", 8082), ("hs12", 8083))
        ]
        apart = create(self.store, "hs13", "hs13.fabrik.example", 8080, 8084, "192.0.2.10")
        farm = handlers.farm_of(self.store)
        beside = handlers.homes_beside(farm, homes[2])
        self.assertEqual([home.name for home in beside], ["hs10", "hs11"])
        self.assertEqual(handlers.homes_beside(farm, apart), [])

    def test_duplicate_homes(self) -> None:
        """What tells homes apart is address, port and name; and farm links cannot be shared."""
        handlers.create_home(self.store, "hs10", "hs10.fabrik.example", 80, 8081, "192.0.2.10")

        def refused(why: str, host: str, port: int, link_port: int, address: str = "192.0.2.10") -> None:
            self.refused(
                why, handlers.create_home, "hs11", f"{host}.fabrik.example", port, link_port, address
            )

        refused("duplicate address, port and host name: port 80 on hs10.fabrik.example", "hs10", 80, 8082)
        refused("duplicate port and host name: port 80 on hs10.fabrik", "hs10", 80, 8082, "192.0.2.11")
        refused("port 8081 on 192.0.2.10 is taken by home hs10; give --link-port", "hs11", 80, 8081)
        refused("port 8081 on 192.0.2.10 is taken by home hs10; give --port", "hs11", 8081, 8082)
        refused("port 80 on 192.0.2.10 is taken by home hs10; give --link-port", "hs11", 8080, 80)
        handlers.create_router(self.store, "r1", "im.fabrik.example", 8080, "192.0.2.10")
        refused("port 8080 on 192.0.2.10 is taken by router r1; give --port", "hs11", 8080, 8082)
        refused("port 8080 on 192.0.2.10 is taken by router r1; give --link-port", "hs11", 80, 8080)

    def test_routers_share_a_host(self) -> None:
        """Routers behind one name are told apart by their addresses."""
        for number in (1, 2):
            handlers.create_router(
                self.store, f"r{number}", "im.fabrik.example", 8080, f"192.0.2.{number}", actor="test"
            )
        self.refused(
            "--address an address of its own", handlers.create_router, "r3", "im.fabrik.example", 8080
        )
        self.assertEqual(len(handlers.farm_of(self.store).routers), 2)

    def test_metrics(self) -> None:
        """Two servers do not show themselves at one place, nor where either takes calls; homes may."""
        create = handlers.create_home
        create(self.store, "hs3", "hs3.fabrik.example", address="192.0.2.3", metrics="192.0.2.3:9464")
        create(self.store, "hs4", "hs4.fabrik.example", address="192.0.2.4", metrics="192.0.2.3:9464")
        self.refused(
            "192.0.2.3:9464 is where hs3 shows its metrics",
            handlers.create_router,
            "r1",
            "r1.fabrik.example",
            metrics="192.0.2.3:9464",
        )
        self.refused(
            "hs5 itself takes calls at 192.0.2.5:8081",
            create,
            "hs5",
            "hs5.fabrik.example",
            address="192.0.2.5",
            metrics="192.0.2.5:8081",
        )

    def test_set(self) -> None:
        """A server can be given another place, unless somebody is there; a trail is left."""
        change_home, change_router = servers.change_home, servers.change_router
        home = change_home(self.store, "HS1", metrics="192.0.2.11:9464", address="192.0.2.11", actor="ann")
        self.assertEqual(handlers.farm_of(self.store).homes[home.id], home)
        self.assertEqual((home.metrics, home.address), ("192.0.2.11:9464", "192.0.2.11"))
        self.assertEqual(change_home(self.store, "hs1", metrics="").address, "192.0.2.11")
        trail = handlers.list_audit(self.store, "hs1")
        self.assertEqual([(row.actor, row.action) for row in trail][1], ("ann", "home set"))
        self.refused("taken by home hs1", change_home, "hs2", address="192.0.2.11")
        self.refused('no home "hs9"; the directory has hs1, hs2', change_home, "hs9", metrics="")
        self.refused('no router "r1"; the directory has none', change_router, "r1", metrics="")
        handlers.create_router(self.store, "r1", "im.fabrik.example")
        self.assertEqual(change_router(self.store, "r1", address="192.0.2.9").address, "192.0.2.9")
        self.refused("taken by home hs1", change_router, "r1", address="192.0.2.11")

    def test_home_is_no_domain(self) -> None:
        """A home has a name of its own, since an IM domain is answered for by routers."""
        self.refused("name of the home's own", handlers.create_home, "hs9", "im.fabrik.example")


class UserTests(HandlerCase):
    """C{user enable}, C{disable}, C{passwd}, C{show} and C{list}"""

    def test_enable(self) -> None:
        """A new user has an address, two URLs, and a home: the one with the fewest accounts."""
        petra = handlers.enable_user(self.store, "Petra@fabrik.example", display_name="Petra Novak")
        tomasz = handlers.enable_user(self.store, "tomasz@fabrik.example")
        homes = handlers.farm_of(self.store).homes
        self.assertEqual([homes[one.home].name for one in (petra, tomasz)], ["hs1", "hs2"])
        view = handlers.show_user(self.store, "petra@fabrik.example")
        self.assertEqual(view.account, petra)
        self.assertEqual(petra.url, "http://im.fabrik.example/instmsg/aliases/Petra")
        self.assertEqual(
            view.home_url,
            "http://hs1.fabrik.example/instmsg/local/im.fabrik.example/instmsg/aliases/Petra",
        )
        self.assertEqual((petra.display_name, tomasz.display_name), ("Petra Novak", "tomasz"))
        self.assertEqual(view.schemes, ())

    def test_enable_with_everything(self) -> None:
        """Home, domain, mail address and password can be given."""
        handlers.add_domain(self.store, "im.orchard.example")
        ingrid = handlers.enable_user(
            self.store,
            "ingrid",
            "HS2",
            "im.orchard.example",
            "Ingrid",
            "Blue-Kite-41",
            email="ingrid@orchard.example",
            actor="ann",
        )
        self.assertEqual(ingrid.address, "ingrid@im.orchard.example")
        self.assertEqual(ingrid.email, "ingrid@orchard.example")
        view = handlers.show_user(self.store, ingrid.address)
        self.assertEqual((view.home.name, view.schemes), ("hs2", ("digest-md5", "digest-sha-256", "nt")))

    def test_found_by_any_address(self) -> None:
        """A user is meant by every address that leads to the same URL, in any letter case."""
        petra = handlers.enable_user(self.store, "petra@fabrik.example")
        for text in ("PETRA", "petra@im.fabrik.example", "Petra@FABRIK.example", "petra@omnent"):
            self.assertEqual(handlers.find_user(self.store, text), petra)
        self.assertIs(handlers.find_user(self.store, "petra@elsewhere.example"), None)
        self.assertIs(handlers.find_user(self.store, "nobody"), None)

    def test_bare_name_in_two_domains(self) -> None:
        """A bare name that means two users is refused."""
        handlers.add_domain(self.store, "im.orchard.example")
        for domain in ("im.fabrik.example", "im.orchard.example"):
            handlers.enable_user(self.store, "petra", domain=domain)
        self.refused("say which", handlers.show_user, "petra")

    def test_enable_refused(self) -> None:
        """Unknown homes and domains, bad names, names taken and weak passwords are refused."""
        enable = handlers.enable_user
        enable(self.store, "petra@fabrik.example", "hs1")
        self.refused("enabled already, on home hs1", enable, "Petra@im.fabrik.example")
        self.refused("give --home one of hs1, hs2", enable, "tomasz@fabrik.example", "hs9")
        self.refused("no IM domain here serves", enable, "tomasz@elsewhere.example")
        self.refused("cannot be a user name", enable, "tom asz@fabrik.example")
        self.refused("too short", enable, "tomasz@fabrik.example", password="short")
        self.refused("contains the user's name", enable, "tomasz@fabrik.example", password="tomasz-41")
        self.assertIs(handlers.find_user(self.store, "tomasz@fabrik.example"), None)

    def test_address_stays_reserved(self) -> None:
        """A disabled user keeps address and password, and comes back with them."""
        petra = handlers.enable_user(self.store, "petra@fabrik.example", "hs1", password="Blue-Kite-41")
        disabled = handlers.disable_user(self.store, "petra")
        self.assertEqual((disabled.id, disabled.enabled), (petra.id, False))
        self.refused("disabled already", handlers.disable_user, "petra@fabrik.example")
        plan = handlers.plan_user(self.store, "petra")
        self.assertTrue(plan.returning)
        back = handlers.enable_user(self.store, "petra", "hs2", display_name="Petra")
        self.assertEqual((back.id, back.address, back.enabled), (petra.id, petra.address, True))
        view = handlers.show_user(self.store, "petra")
        self.assertEqual((view.home.name, len(view.schemes)), ("hs2", 3))

    def test_passwd(self) -> None:
        """A new password replaces every verifier of the old one."""
        handlers.enable_user(self.store, "petra@fabrik.example", password="Blue-Kite-41")
        with self.store.read() as reading:
            old = reading.account("im.fabrik.example/instmsg/aliases/petra")
        handlers.set_password(self.store, "petra", "Green-Kite-42")
        with self.store.read() as reading:
            new = reading.account("im.fabrik.example/instmsg/aliases/petra")
        assert old is not None and new is not None
        self.assertEqual(len(new.verifiers), len(old.verifiers))
        self.assertFalse({one.secret for one in new.verifiers} & {one.secret for one in old.verifiers})
        self.assertIn("FABRIK\\petra", {one.username for one in new.verifiers})
        self.refused('there is no user "nobody"', handlers.set_password, "nobody", "Green-Kite-42")

    def test_no_verifiers_allowed(self) -> None:
        """Where the policy forbids verifiers, no password is kept."""
        for name in ("digest-verifiers", "nt-hashes"):
            handlers.set_policy(self.store, name, "forbidden", "im.fabrik.example")
        self.refused(
            "digest-verifiers", handlers.enable_user, "petra@fabrik.example", password="Blue-Kite-41"
        )
        handlers.enable_user(self.store, "petra@fabrik.example")

    def test_list(self) -> None:
        """Users are listed by address: all, of a domain, or on a home."""
        for alias, home in (("petra", "hs1"), ("Ann", "hs2"), ("tomasz", "hs1")):
            handlers.enable_user(self.store, f"{alias}@fabrik.example", home)
        self.assertEqual([one.alias for one in handlers.list_users(self.store)], ["Ann", "petra", "tomasz"])
        self.assertEqual(
            [one.alias for one in handlers.list_users(self.store, home="hs1")], ["petra", "tomasz"]
        )
        self.assertEqual(len(handlers.list_users(self.store, "im.fabrik.example")), 3)
        self.refused("there is no home", handlers.list_users, home="hs9")
        self.refused("there is no IM domain", handlers.list_users, "im.elsewhere.example")

    def test_generated_password(self) -> None:
        """A generated password is accepted for anybody, and never comes twice."""
        passwords = {handlers.generate_password() for _ in range(50)}
        self.assertEqual(len(passwords), 50)
        handlers.enable_user(self.store, "petra@fabrik.example", password=passwords.pop())


class EmptyFarmTests(HandlerCase):
    """A farm without homes or domains says what comes first."""

    def make(self) -> Store:
        """Nothing but the tables."""
        return make_store(self)

    def test_order(self) -> None:
        """First a domain, then a home, then users."""
        self.refused("rvpfarm domain add", handlers.enable_user, "petra@fabrik.example")
        handlers.add_domain(self.store, "im.fabrik.example", ["fabrik.example"])
        self.refused("rvpfarm home create", handlers.enable_user, "petra@fabrik.example")
        self.refused("rvpfarm home create", handlers.enable_user, "petra@fabrik.example", "hs1")


class SettingTests(HandlerCase):
    """C{policy set} and C{network add|remove}"""

    def test_policy(self) -> None:
        """A value is kept in its one spelling; taking it back returns to the next wider one."""
        self.assertEqual(handlers.set_policy(self.store, "referral", "NEVER"), "never")
        self.assertEqual(handlers.set_policy(self.store, "referral", "always", "IM.fabrik.example"), "always")
        self.assertEqual(handlers.set_policy(self.store, "referral", None, "im.fabrik.example"), "never")
        self.assertEqual(
            handlers.set_policy(self.store, "schemes", "digest-sha-256  Digest-MD5"),
            "digest-sha-256 digest-md5",
        )

    def test_limits(self) -> None:
        """Limits are numbers, and hold for the farm as a whole, never for a domain alone."""
        for name in ("max-connections", "connections-per-source", "inbound-queue"):
            self.assertEqual(handlers.set_policy(self.store, name, "0700"), "700")
            self.refused("from 1 to 1000000", handlers.set_policy, name, "0")
            self.refused("leave --domain out", handlers.set_policy, name, "7", "im.fabrik.example")

    def test_forwarded_header(self) -> None:
        """One header at most says who calls, and it is the same one for the whole farm."""
        self.assertEqual(handlers.set_policy(self.store, "forwarded-header", "Forwarded"), "forwarded")
        self.refused("give one of", handlers.set_policy, "forwarded-header", "forwarded x-forwarded-for")
        self.refused(
            "leave --domain out", handlers.set_policy, "forwarded-header", "none", "im.fabrik.example"
        )

    def test_farm_wide(self) -> None:
        """How old what is known of the directory may be is the farm's to say, in seconds."""
        change = handlers.set_policy
        self.assertEqual(change(self.store, "directory-staleness", "86400"), "86400")
        for value in ("59", "31536001", "a week"):
            self.refused("give a number from 60 to 31536000", change, "directory-staleness", value)
        self.refused("leave --domain out", change, "directory-staleness", "3600", "im.fabrik.example")

    def test_policy_refused(self) -> None:
        """Unknown policies, values and domains are refused with the known ones."""
        change = handlers.set_policy
        self.refused("the policies are address-form, announce-from, authentication", change, "colour", "blue")
        self.refused("give one of auto, always, never", change, "referral", "maybe")
        self.refused("give one of auto", change, "referral", "auto always")
        self.refused("one or several of", change, "schemes", "digest-md5 digest-md5")
        self.refused("one or several of", change, "schemes", "")
        self.refused("there is no IM domain", change, "referral", "auto", "im.elsewhere.example")

    def test_networks(self) -> None:
        """A range counts once, until it is removed."""
        network = handlers.add_network(self.store, "inside", "192.0.2.0/24")
        self.assertEqual(handlers.farm_of(self.store).networks, (network,))
        self.refused("already", handlers.add_network, "inside", "192.0.2.0-192.0.2.255")
        self.refused("one of inside", handlers.add_network, "outside", "192.0.2.0/24")
        handlers.remove_network(self.store, "inside", "192.0.2.0/24")
        self.refused("does not count", handlers.remove_network, "inside", "192.0.2.0/24")
        self.assertEqual(handlers.farm_of(self.store).networks, ())

    def test_actor(self) -> None:
        """Left out, the actor is the OS user."""
        handlers.set_policy(self.store, "referral", "never")
        self.assertTrue(handlers.list_audit(self.store)[-1].actor)
        self.assertEqual(len(handlers.list_audit(self.store, newest=2)), 2)
