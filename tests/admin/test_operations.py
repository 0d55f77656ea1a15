"""The table of operations: complete, documented by the handlers themselves, and kept by every role."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import get_type_hints

import click
from twisted.trial.unittest import SynchronousTestCase

import rvpfarm.admin
from rvpfarm.admin import handlers, schemas
from rvpfarm.admin.administrators import add_administrator, create_token, list_administrators
from rvpfarm.admin.catalogue import OPERATIONS
from rvpfarm.admin.checks import Forbidden, Refused
from rvpfarm.admin.command import rvpfarm as command
from rvpfarm.admin.networks import add_network
from rvpfarm.admin.nodes import create_node
from rvpfarm.admin.openapi import make_document
from rvpfarm.admin.operations import BadArgument, Caller, Effect, Operation, Scope, perform
from rvpfarm.directory.reading import OutOfBounds
from rvpfarm.directory.store import Store
from tests.support.processes import free_ports
from tests.support.store import make_farm_store

#: Functions of a store that are no operations, and why.
NO_OPERATION = {
    "addresses.plan_readdress": "a step of readdress",
    "addresses.readdress_user": "a step of readdress",
    "addresses.users_to_readdress": "a step of readdress",
    "administrators.find_by_token": "how callers are known",
    "handlers.check_audit": "verify_audit says more",
    "handlers.farm_of": "what the lists are made of",
    "handlers.init": "there is no directory before it",
    "handlers.list_audit": "list_changes says more",
    "handlers.set_policy": "change_policy says more",
    "broadcasting.broadcast": "a step of announce",
    "broadcasting.find_audience": "a step of announce",
    "bulk.enable_many": "a step of import_people",
    "doors.link_key": "it is a secret",
    "importing.import_people": "a function decides about each of its people, and passwords go into a file here",
    "keys.make_key": "the key file is on this machine",
    "keys.retire_keys": "the key file is on this machine",
    "keys.seal_all": "the key file is on this machine",
    "keys.show_keys": "the key file is on this machine",
    "ldapimport.people_in_ldap": "a step of import_people",
    "states.reset_home": "the home's state is on its own machine",
    "exchange.plan_import": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap.asking": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap.ensure_local": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap.find_person": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap.half_filled": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap.ldap_of": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap.ldap_users": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap.set_ldap": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap.test_user": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap.unset_ldap": "LDAP is set up and tried out where the farm key and its servers are",
    "nodes.find_node": "a step of remove_node",
    "routes.think_of": "a step of explain_call",
    "users.enable_user": "a step of enroll_user",
    "users.find_user": "a step of show_user",
    "users.list_users": "page_users shows as much in parts",
    "users.plan_user": "enroll_user can be rehearsed",
}

#: Verbs that are no operations, and why.
NO_VERB_OPERATION = {
    "api": "it is a door to operations",
    "dns check": "it asks DNS servers as this machine sees them",
    "dns publish": "the key that signs the updates is in a file here",
    "doctor": "it asks DNS servers and members as this machine sees them",
    "doctor prepare": "it writes passwords into a file here",
    "explain": "it needs no farm",
    "home reset": "the home's state is on its own machine",
    "key retire": "the key file is on this machine",
    "key rotate": "the key file is on this machine",
    "key show": "the key file is on this machine",
    "policy pack": "it writes files here",
    "preflight": "it examines this machine",
    "user import": "it reads and writes files here",
    "user welcome": "its sheets are for a printer here",
    "completion": "it speaks of the command line only",
    "init": "there is no directory before it",
    "ldap faults": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap import-settings": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap set": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap show": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap test": "LDAP is set up and tried out where the farm key and its servers are",
    "ldap unset": "LDAP is set up and tried out where the farm key and its servers are",
}

#: What the home of the user does; here it is away, which nobody is told who may not ask it.
AT_HOME = frozenset({"session.kill", "user.acl", "user.acl.set", "user.watchers"})

#: The petra of IM domain im.fabrik.example is his, the ingrid of im.orchard.example is not.
OWN, OTHER = "im.fabrik.example", "im.orchard.example"
CLERK = Caller("token:clerk/desk", frozenset({OWN}))
CHIEF = Caller("token:chief/desk")


def public_handlers() -> Iterator[tuple[str, Callable[..., object]]]:
    """Every public function of our modules whose first parameter is a store."""
    for module in pkgutil.iter_modules(rvpfarm.admin.__path__):
        loaded = importlib.import_module(f"rvpfarm.admin.{module.name}")
        for name, one in vars(loaded).items():
            if name.startswith("_") or not inspect.isfunction(one) or one.__module__ != loaded.__name__:
                continue
            first = next(iter(inspect.signature(one).parameters), "")
            if first == "store" and get_type_hints(one).get("store") is Store:
                yield f"{module.name}.{name}", one


def leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every verb, by what is typed for it."""
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            if one.invoke_without_command:
                yield f"{path}{name}", one
            yield from leaves(one, f"{path}{name} ")
        else:
            yield f"{path}{name}", one


class TableTests(SynchronousTestCase):
    """Nothing that can be done is missing in the table, and the table invents nothing."""

    def test_every_handler(self) -> None:
        """A public handler is an operation, or one of the exceptions, and never both."""
        done = {one.handler for one in OPERATIONS.values()}
        lacking = {
            name for name, one in public_handlers() if one not in done and name != "operations.perform"
        }
        self.assertEqual(lacking, set(NO_OPERATION))

    def test_every_verb(self) -> None:
        """A verb of the command line is an operation, or one of the exceptions, and never both."""
        done = {one.command for one in OPERATIONS.values()}
        verbs = {name for name, _ in leaves(command)}
        self.assertEqual(verbs - done, set(NO_VERB_OPERATION))
        self.assertEqual(done - verbs, set())

    def test_documented(self) -> None:
        """Every operation and parameter says what it means."""
        for one in OPERATIONS.values():
            self.assertTrue(schemas.summary(one.handler), one.name)
            for parameter in one.parameters.values():
                self.assertTrue(parameter.doc, f"{one.name} {parameter.name}")

    def test_scoped(self) -> None:
        """What an operation is limited by is a parameter of it; what changes anything records who did it."""
        for one in OPERATIONS.values():
            if one.scope in (Scope.DOMAIN, Scope.USER):
                self.assertIn(one.subject, one.parameters, one.name)
            if one.effect is not Effect.READS:
                self.assertTrue(one.takes("actor"), one.name)
            self.assertEqual(one.method == "GET", one.effect is Effect.READS, one.name)
            self.assertTrue(one.method != "DELETE" or one.effect is Effect.DESTROYS, one.name)

    def test_routes_differ(self) -> None:
        """No two operations are at one place, and all of a path are parameters."""
        self.assertEqual(len({one.route for one in OPERATIONS.values()}), len(OPERATIONS))
        for one in OPERATIONS.values():
            for part in one.path.split("/"):
                self.assertTrue(not part.startswith("{") or part[1:-1] in one.parameters, one.name)

    def test_document(self) -> None:
        """The document has each operation once, and no secret among what is returned."""
        document = make_document()
        found = [one["operationId"] for path in document["paths"].values() for one in path.values()]
        self.assertEqual(sorted(found), sorted(OPERATIONS))
        shown = document["components"]["schemas"]
        self.assertNotIn("verifiers", shown["Account"]["properties"])
        self.assertNotIn("hash", shown["Token"]["properties"])
        self.assertNotIn("salt", shown["Token"]["properties"])


class PerformCase(SynchronousTestCase):
    """Two IM domains with a user each, and one of everything else."""

    def setUp(self) -> None:
        """Make them."""
        self.store = make_farm_store(self)
        handlers.add_domain(self.store, OTHER, ["orchard.example"])
        handlers.set_policy(self.store, "address-form", "mail")  # or the machine's own DNS would be asked
        (port,) = free_ports(1)
        with self.store.change("test", "home set", "") as writing:
            for home in writing.farm().homes.values():  # to where nobody listens
                writing.update_home(replace(home, address="127.0.0.1", link_port=port))
        handlers.add_alias(self.store, OWN, "chat.fabrik.example")
        handlers.add_mail_domain(self.store, OWN, "weberei.example")
        for name in ("petra@fabrik.example", "ingrid@orchard.example"):
            handlers.enable_user(self.store, name, password="Blue-Kite-41")
        handlers.create_router(self.store, "r1", "r1.fabrik.example", address="192.0.2.1")
        handlers.create_router(self.store, "r2", "r2.fabrik.example", address="192.0.2.2")
        handlers.create_router(self.store, "r3", "r3.fabrik.example", address="192.0.2.3")
        for name in ("r2", "r3"):
            perform(self.store, OPERATIONS["router.drain"], CHIEF, {"name": name})
        create_node(self.store, "/groups/shipping", "petra@fabrik.example", domain=OWN)
        add_network(self.store, "inside", "192.0.2.0/24")
        add_administrator(self.store, "chief", "farm")
        create_token(self.store, "chief", "desk")

    def perform(
        self, one: Operation, caller: Caller, given: dict[str, object], *, rehearsing: bool = False
    ) -> bool:
        """Have it done; returns false if only the home's silence was in the way."""
        if one.name not in AT_HOME:
            perform(self.store, one, caller, given, rehearsing=rehearsing)
            return True
        with self.assertRaises(Refused) as caught:
            perform(self.store, one, caller, given, rehearsing=rehearsing)
        self.assertIn("home hs1 did not answer: connection refused", str(caught.exception))
        return False

    def arguments(self, operation: Operation, address: str, domain: str) -> dict[str, object]:
        """What to give, so that an administrator of the farm is not refused."""
        name = operation.name
        if name.startswith("node."):
            domain = OWN
        special: dict[str, dict[str, object]] = {
            "admin.add": {"name": "new", "role": "farm"},
            "admin.remove": {"name": "chief"},
            "admin.show": {"name": "chief"},
            "admin.token.create": {"name": "chief"},
            "admin.token.revoke": {"name": "chief", "token": "desk"},
            "domain.add": {"name": "im.mill.example"},
            "domain.alias.add": {"host": "talk.fabrik.example", "domain": OWN},
            "domain.alias.remove": {"host": "chat.fabrik.example", "domain": OWN},
            "domain.mail.add": {"mail_domain": "mill.example", "domain": OWN},
            "domain.mail.remove": {"mail_domain": "weberei.example", "domain": OWN},
            "home.create": {"name": "hs9.fabrik.example"},
            "broadcast": {"text": "Moving at noon", "sender": "petra@fabrik.example"},
            "home.rename": {"name": "hs1", "new": "hs7"},
            "home.set": {"name": "hs1", "address": "192.0.2.9"},
            "home.show": {"name": "hs1"},
            "network.add": {"kind": "inside", "addresses": "198.51.100.0/24"},
            "network.remove": {"kind": "inside", "addresses": "192.0.2.0/24"},
            "network.set": {"kind": "inside", "ranges": ["198.51.100.0/24"]},
            "network.test": {"address": "192.0.2.7", "domain": domain},
            "node.create": {"path": "/groups/sales", "owner": "petra@fabrik.example", "domain": domain},
            "node.remove": {"path": "/groups/shipping", "domain": domain},
            "policy.set": {"name": "password-length", "value": "9"},
            "router.create": {"name": "r9.fabrik.example", "address": "192.0.2.99"},
            "router.drain": {"name": "r1", "force": True},
            "router.remove": {"name": "r3"},
            "router.rename": {"name": "r1", "new": "r7"},
            "router.resume": {"name": "r2"},
            "router.set": {"name": "r1", "address": "192.0.2.77"},
            "router.show": {"name": "r1"},
            "user.acl.set": {"mode": "contacts-only"},
            "user.enable": {"address": f"new@{domain.removeprefix('im.')}"},
            "user.passwd": {"password": "Red-Boat-Nine"},
            "user.policy": {"name": "nt-hashes", "value": "forbidden"},
            "user.readdress": {"form": "im"},
        }
        given = dict(special.get(name, {}))
        if operation.scope is Scope.USER:
            given.setdefault(operation.subject, address)
        if operation.scope is Scope.DOMAIN:
            given["domain"] = domain
        return given


class RoleTests(PerformCase):
    """Each role may do what it may, and nothing else (product F51): every operation is tried."""

    def test_farm(self) -> None:
        """An administrator of the farm is refused nothing; a rehearsal of it changes nothing."""
        for one in OPERATIONS.values():
            before = handlers.list_audit(self.store)
            given = self.arguments(one, "petra@fabrik.example", OWN)
            self.perform(one, CHIEF, given, rehearsing=one.effect is not Effect.READS)
            self.assertEqual(handlers.list_audit(self.store), before, one.name)

    def test_users_of_his(self) -> None:
        """An administrator of users does what concerns users of his domains, under his own name."""
        for one in OPERATIONS.values():
            given = self.arguments(one, "petra@fabrik.example", OWN)
            if one.scope is Scope.FARM:
                sentence = str(self.assertRaises(Forbidden, perform, self.store, one, CLERK, given))
                self.assertIn("administrators of the farm", sentence)
                continue
            if self.perform(one, CLERK, given) and one.effect is not Effect.READS:
                self.assertEqual(handlers.list_audit(self.store)[-1].actor, CLERK.actor, one.name)
            if one.name == "user.disable":
                handlers.enable_user(self.store, "petra@fabrik.example")

    def test_users_of_others(self) -> None:
        """He neither reads nor changes anything of users elsewhere, and is told so."""
        before = handlers.list_audit(self.store)
        for one in OPERATIONS.values():
            if one.scope in (Scope.ALL, Scope.LISTED):
                continue
            given = self.arguments(one, "ingrid@orchard.example", OTHER)
            sentence = str(self.assertRaises(Forbidden, perform, self.store, one, CLERK, given))
            self.assertRegex(sentence, "administ(er|rators of)", one.name)
        self.assertEqual(handlers.list_audit(self.store), before)

    def test_detours(self) -> None:
        """Nor does he by naming his domain with another's address, an alias of it, or a bare name."""
        enable, show = OPERATIONS["user.enable"], OPERATIONS["user.show"]
        for address, domain in (
            ("ingrid@orchard.example", OTHER.upper()),
            ("INGRID@ORCHARD.EXAMPLE", None),
            (f"ingrid@{OTHER}", None),
            ("ingrid", None),
            ("ingrid@nowhere.example", None),
        ):
            given: dict[str, object] = {"address": address}
            self.assertRaises(Forbidden, perform, self.store, show, CLERK, given)
            if domain is not None:
                given["domain"] = domain
            self.assertRaises(Forbidden, perform, self.store, enable, CLERK, given)

    def test_sessions_of_all(self) -> None:
        """He names the user whose sessions he asks for; an administrator of the farm need not."""
        listing = OPERATIONS["session.list"]
        sentence = str(self.assertRaises(Forbidden, perform, self.store, listing, CLERK, {}))
        self.assertIn("name one of them as user", sentence)
        self.assertRaises(Forbidden, perform, self.store, listing, CLERK, {"user": None})
        self.assertEqual(list(perform(self.store, listing, CHIEF, {}).silent), ["hs1", "hs2"])

    def test_shown_only_his(self) -> None:
        """Lists of domains and users leave out what is not his; several domains have to be named."""
        found = perform(self.store, OPERATIONS["domain.list"], CLERK, {})
        self.assertEqual([one.name for one in found], [OWN])
        found = perform(self.store, OPERATIONS["user.list"], CLERK, {})
        self.assertEqual([one.address for one in found], ["petra@fabrik.example"])
        both = Caller("x", frozenset({OWN, OTHER}))
        self.assertRaises(Forbidden, perform, self.store, OPERATIONS["user.list"], both, {})

    def test_behind_the_table(self) -> None:
        """What gets past the table all the same is undone by the directory."""
        limited = self.store.limited(within={OWN})
        self.assertRaises(OutOfBounds, handlers.disable_user, limited, "ingrid@orchard.example")
        self.assertRaises(OutOfBounds, handlers.add_domain, limited, "im.mill.example")
        self.assertRaises(OutOfBounds, add_administrator, limited, "me", "farm")
        handlers.disable_user(limited, "petra@fabrik.example")
        self.assertTrue(handlers.show_user(self.store, "ingrid@orchard.example").account.enabled)
        self.assertEqual([one.name for one in list_administrators(self.store)], ["chief"])


class ArgumentTests(PerformCase):
    """Arguments are what the handler takes, or refused with their name."""

    def test_refused(self) -> None:
        """Missing, unknown, of another type, too long, in two lines, or half a character."""
        for given, field in (
            ({}, "address"),
            ({"address": "a@b", "shoe": 1}, "shoe"),
            ({"address": 1}, "address"),
            ({"address": "x" * 501}, "address"),
            ({"address": "a\nb"}, "address"),
            ({"address": "\ud800"}, "address"),
            ({"address": None}, "address"),
        ):
            problem = self.assertRaises(
                BadArgument, perform, self.store, OPERATIONS["user.show"], CHIEF, given
            )
            self.assertEqual(problem.field, field)

    def test_whole_numbers(self) -> None:
        """80.0 is a whole number in JSON; true and 80.5 are none."""
        create = OPERATIONS["router.create"]
        self.assertEqual(create.accept({"name": "r", "port": 80.0})["port"], 80)
        for port in (True, 80.5, -1, 2**31):
            self.assertRaises(BadArgument, create.accept, {"name": "r", "port": port})

    def test_words(self) -> None:
        """A refusal speaks of parameters, not of options of the command line, and names the one to change."""
        problem = self.assertRaises(
            Refused, perform, self.store, OPERATIONS["home.create"], CHIEF, {"name": "h", "host": "h"}
        )
        told, field = OPERATIONS["home.create"].in_words_of(str(problem))
        self.assertEqual(field, "host")
        self.assertNotIn("--", told)
