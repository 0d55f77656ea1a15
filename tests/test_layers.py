"""Who may import whom: the arrows of the house style, read from every module with C{ast}."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import rvpfarm

ROOT = Path(rvpfarm.__file__).parent

#: What each package may import of the others.  C{observe.metrics} is open to all but cores.
ARROWS: Mapping[str, frozenset[str]] = {
    "protocol": frozenset(),
    "observe": frozenset({"protocol"}),
    "directory": frozenset({"protocol"}),
    "auth": frozenset({"protocol", "directory"}),
    "web": frozenset({"protocol", "directory"}),
    "link": frozenset({"protocol", "directory", "web"}),
    "discovery": frozenset({"protocol", "directory"}),
    "router": frozenset({"protocol", "directory", "auth", "web", "link"}),
    "home": frozenset({"protocol", "directory", "auth", "web"}),
    "client": frozenset({"protocol", "web", "discovery"}),
    "admin": frozenset({"protocol", "directory", "auth", "discovery", "link", "client"}),
    "tap": frozenset(
        {
            "protocol",
            "observe",
            "directory",
            "auth",
            "web",
            "link",
            "discovery",
            "router",
            "home",
            "admin",
        }
    ),
}

#: The modules that decide and do not act: told what arrived and what time it is, they say what follows.
CORES = frozenset(
    {
        "rvpfarm.admin.checks",
        "rvpfarm.admin.doctor.dnsview",
        "rvpfarm.admin.doctor.evidence",
        "rvpfarm.admin.doctor.figures",
        "rvpfarm.admin.doctor.findings",
        "rvpfarm.admin.doctor.journey",
        "rvpfarm.admin.status",
        "rvpfarm.admin.places",
        "rvpfarm.auth.acl",
        "rvpfarm.auth.basic",
        "rvpfarm.auth.challenge",
        "rvpfarm.auth.connections",
        "rvpfarm.auth.digest",
        "rvpfarm.auth.logins",
        "rvpfarm.auth.lookup",
        "rvpfarm.auth.throttle",
        "rvpfarm.auth.handshakes",
        "rvpfarm.auth.negotiate",
        "rvpfarm.auth.ntlm",
        "rvpfarm.directory.model",
        "rvpfarm.directory.callers",
        "rvpfarm.directory.ldapentries",
        "rvpfarm.directory.ldapsettings",
        "rvpfarm.directory.names",
        "rvpfarm.directory.networks",
        "rvpfarm.directory.ranges",
        "rvpfarm.directory.snapshot",
        "rvpfarm.directory.spans",
        "rvpfarm.directory.referral",
        "rvpfarm.discovery.update",
        "rvpfarm.discovery.zone",
        "rvpfarm.home.fanout",
        "rvpfarm.home.keeper",
        "rvpfarm.home.leases",
        "rvpfarm.home.lists",
        "rvpfarm.home.node",
        "rvpfarm.home.presence",
        "rvpfarm.home.privacy",
        "rvpfarm.home.properties",
        "rvpfarm.directory.reach",
        "rvpfarm.home.records",
        "rvpfarm.home.returning",
        "rvpfarm.home.sessions",
        "rvpfarm.home.subscribing",
        "rvpfarm.protocol.acls",
        "rvpfarm.protocol.address",
        "rvpfarm.protocol.calls",
        "rvpfarm.protocol.control",
        "rvpfarm.protocol.fitness",
        "rvpfarm.protocol.forwarded",
        "rvpfarm.protocol.headers",
        "rvpfarm.protocol.mime",
        "rvpfarm.protocol.notifications",
        "rvpfarm.protocol.properties",
        "rvpfarm.protocol.streams",
        "rvpfarm.protocol.subscriptions",
        "rvpfarm.protocol.xml",
        "rvpfarm.router.health",
        "rvpfarm.router.routing",
        "rvpfarm.web.chunks",
        "rvpfarm.web.edge",
        "rvpfarm.web.fields",
        "rvpfarm.link.arrivals",
        "rvpfarm.link.download",
        "rvpfarm.link.flows",
        "rvpfarm.link.frames",
        "rvpfarm.link.kinds",
        "rvpfarm.link.ledger",
        "rvpfarm.web.preamble",
        "rvpfarm.link.meeting",
        "rvpfarm.link.outlook",
        "rvpfarm.link.parts",
        "rvpfarm.web.reader",
        "rvpfarm.web.responses",
        "rvpfarm.web.writer",
    }
)

#: What a core is handed instead of importing it.
OUTSIDE_WORLD = frozenset(
    {
        "asyncio",
        "datetime",
        "multiprocessing",
        "os",
        "pathlib",
        "prometheus_client",
        "random",
        "secrets",
        "select",
        "selectors",
        "signal",
        "socket",
        "sqlalchemy",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "threading",
        "time",
        "twisted",
        "uuid",
        "uvloop",
    }
)

#: Cores whose seam speaks of answers that come later.
DEFERRED = frozenset(
    {
        "rvpfarm.directory.model",
        "rvpfarm.auth.basic",
        "rvpfarm.auth.challenge",
        "rvpfarm.auth.handshakes",
        "rvpfarm.auth.lookup",
        "rvpfarm.link.ledger",
    }
)

#: Never imported by anything: what they do on import, or on the hot path, is not for us.
BANNED = ("dns.resolver", "dns.query", "dns.asyncresolver", "dns.asyncquery", "prometheus_client.twisted")

#: Ask and wait, for commands only; they load what they ask with when they ask.
WAITING = frozenset({"rvpfarm.admin.srv", "rvpfarm.admin.resolving"})

#: The one daemon that may wait, since it does whatever commands do, in threads.
IN_THREADS = "rvpfarm.tap.admin"

#: Programs that run a reactor of their own.
PROGRAMS = frozenset({"rvpfarm.client.command"})

#: Imports the reactor at module level, and is therefore imported late itself.
LATE = "rvpfarm.tap.children"


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement.

    @ivar target: the dotted name imported; for C{from a import b} both C{a} and C{a.b} are recorded.
    @ivar inside: the innermost function it stands in, or empty at module level.
    @ivar typing_only: it stands under C{if TYPE_CHECKING}.
    """

    module: str
    line: int
    target: str
    inside: str = ""
    typing_only: bool = False

    def __str__(self) -> str:
        """For a failure."""
        return f"{self.module}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    """The dotted name of a file of ours."""
    parts = ("rvpfarm", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


@lru_cache(maxsize=1)
def modules() -> Mapping[str, ast.Module]:
    """Every module of ours, parsed."""
    return {
        module_name(path): ast.parse(path.read_text("utf-8"), str(path))
        for path in sorted(ROOT.rglob("*.py"))
    }


def imports_of(module: str, tree: ast.AST, inside: str = "", typing_only: bool = False) -> Iterator[Import]:
    """Every import below C{tree}."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name, inside, typing_only)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield Import(module, node.lineno, source, inside, typing_only)
            for alias in node.names:
                yield Import(module, node.lineno, f"{source}.{alias.name}", inside, typing_only)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports_of(module, node, node.name, typing_only)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for part in node.body:
                yield from imports_of(module, ast.Module([part], []), inside, True)
            for part in node.orelse:
                yield from imports_of(module, ast.Module([part], []), inside, typing_only)
        else:
            yield from imports_of(module, node, inside, typing_only)


@lru_cache(maxsize=1)
def all_imports() -> tuple[Import, ...]:
    """Every import of every module of ours."""
    return tuple(found for name, tree in modules().items() for found in imports_of(name, tree))


def package_of(module: str) -> str:
    """The package directly below C{rvpfarm}; empty for C{rvpfarm} itself."""
    return module.partition(".")[2].partition(".")[0]


def names(found: Import, *prefixes: str) -> bool:
    """Does it import one of C{prefixes} or something below?"""
    return any(found.target == prefix or found.target.startswith(f"{prefix}.") for prefix in prefixes)


class LayersTests(SynchronousTestCase):
    """Imports point downward, and cores are kept from the outside world."""

    def assert_none(self, wrong: list[Import]) -> None:
        """No import is wrong."""
        self.assertEqual([str(found) for found in wrong], [])

    def test_every_package_has_a_place(self) -> None:
        """A new package must be given its arrows here."""
        packages = {package_of(name) for name in modules()} - {""}
        self.assertEqual(packages, set(ARROWS))

    def test_arrows(self) -> None:
        """No package imports one that it may not."""
        wrong = []
        for found in all_imports():
            here, there = package_of(found.module), package_of(found.target)
            if not names(found, "rvpfarm") or there in ("", here) or there in ARROWS.get(here, frozenset()):
                continue
            if names(found, "rvpfarm.observe.metrics") or found.target == "rvpfarm.observe":
                continue
            wrong.append(found)
        self.assert_none(wrong)

    def test_arrows_make_no_circle(self) -> None:
        """The table itself says what is above what."""
        left = dict(ARROWS)
        while left:
            free = [name for name, below in left.items() if not below & left.keys()]
            self.assertTrue(free, f"in a circle: {sorted(left)}")
            for name in free:
                del left[name]

    def test_no_module_imports_itself_in_a_circle(self) -> None:
        """Nor do the modules, types and late imports apart."""
        known = modules()
        below: dict[str, set[str]] = {name: set() for name in known}
        for found in all_imports():
            is_package = found.module in {name.rpartition(".")[0] for name in known}
            if found.target in known and not (found.inside or found.typing_only or is_package):
                below[found.module].add(found.target)
        packages = {name for name in known if any(other.startswith(f"{name}.") for other in known)}
        left = {name: targets - packages - {name} for name, targets in below.items()}
        while left:
            free = [name for name, targets in left.items() if not targets & left.keys()]
            self.assertTrue(free, f"in a circle: {sorted(left)}")
            for name in free:
                del left[name]

    def test_cores_exist(self) -> None:
        """The list of cores names modules that there are."""
        self.assertEqual(CORES - modules().keys(), frozenset())

    def test_protocol_is_all_core(self) -> None:
        """A new module of C{protocol} is a core."""
        found = {name for name in modules() if name.startswith("rvpfarm.protocol.")}
        self.assertEqual(found - CORES, set())

    def test_cores_are_alone(self) -> None:
        """A core imports neither the outside world nor a shell, not even late."""
        wrong = []
        for found in all_imports():
            if found.module not in CORES or found.typing_only:
                continue
            outside = found.target.split(".")[0] in OUTSIDE_WORLD
            if outside and found.module in DEFERRED and names(found, "twisted.internet.defer"):
                continue
            shell = found.target in modules() and found.target not in CORES
            if (outside and found.target != "twisted.internet") or (shell and package_of(found.target)):
                wrong.append(found)
        self.assert_none([found for found in wrong if found.target not in packages()])

    def test_banned(self) -> None:
        """Nothing imports what blocks the loop or chooses a reactor on import, but commands that wait."""
        wrong = [found for found in all_imports() if names(found, *BANNED)]
        self.assert_none([found for found in wrong if not (found.inside and found.module in WAITING)])

    def test_only_commands_wait(self) -> None:
        """What a daemon may import of C{admin} does not wait for the DNS, but for the one that serves it."""
        above = set(WAITING)
        while more := {one.module for one in all_imports() if one.target in above} - above:
            above |= more
        self.assertEqual({package_of(module) for module in above - {IN_THREADS}}, {"admin"})

    def test_reactor_is_fetched_late(self) -> None:
        """Only C{makeService}, when none was passed, and programs that run it fetch the reactor."""
        wrong = [
            found
            for found in all_imports()
            if names(found, "twisted.internet.reactor")
            and not (found.inside == "makeService" or (found.inside and found.module in PROGRAMS))
        ]
        self.assert_none(wrong)

    def test_what_imports_the_reactor_is_imported_late(self) -> None:
        """C{twisted.runner.procmon} stays in one module, which no other imports at module level."""
        wrong = [
            found
            for found in all_imports()
            if (names(found, "twisted.runner.procmon") and found.module != LATE)
            or (names(found, LATE) and not found.inside and not found.typing_only)
        ]
        self.assert_none(wrong)

    def test_imports_are_absolute(self) -> None:
        """No import begins with a dot."""
        self.assert_none([found for found in all_imports() if found.target.startswith(".")])

    def test_init_modules_are_empty(self) -> None:
        """C{__init__.py} holds a docstring only."""
        for path in ROOT.rglob("__init__.py"):
            body = ast.parse(path.read_text("utf-8")).body
            self.assertEqual(len(body), 1, path)
            self.assertTrue(isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant), path)

    def test_plugins_are_no_package(self) -> None:
        """No C{__init__.py} in C{twisted/}: it would overwrite Twisted's own."""
        for path in (ROOT.parent / "twisted", ROOT.parent / "twisted" / "plugins"):
            self.assertFalse((path / "__init__.py").exists() and (ROOT.parent / "setup.cfg").exists(), path)


def packages() -> frozenset[str]:
    """The packages among our modules."""
    return frozenset(name.rpartition(".")[0] for name in modules() if "." in name)
