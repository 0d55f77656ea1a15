"""A provider's machine: one home process for several organisations, behind one router, as real processes."""

from __future__ import annotations

import atexit
import re
from contextlib import ExitStack
from unittest import TestCase

from rvpfarm.admin import handlers
from rvpfarm.directory.store import Store
from tests.support.farmhouse import Member
from tests.support.homes import leased, message
from tests.support.processes import BIN, CallBack, Ran, free_ports, run, scratch, wait_for

FABRIK, MILL, ORCHARD = "im.fabrik.example", "im.mill.example", "im.orchard.example"
#: The domain and the home of each user, and the mail domain that he is addressed by.
USERS = {
    "petra": (FABRIK, "hs1", "fabrik.example"),
    "tomasz": (FABRIK, "hs1", "weberei.example"),
    "marta": (MILL, "hs2", "mill.example"),
    "ingrid": (ORCHARD, "hs2", "orchard.example"),
}
PASSWORD = "Blue-Kite-41"
HOME, ROUTER = "127.0.0.31", "127.0.0.32"
DIGEST, NTLM = "--digest", "--ntlm"


def url_of(user: str) -> str:
    """The logical URL of a user."""
    return f"http://{USERS[user][0]}/instmsg/aliases/{user}"


class Provider:
    """The farm of the provider: three IM domains on two homes of one process.

    @ivar home: that process; C{router} stands before it.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.state = self._stack.enter_context(scratch())
        (self.port,) = free_ports(1, HOME)
        self._links = free_ports(2, HOME)
        store, _ = handlers.prepare(f"sqlite:///{self.state / 'directory.sqlite'}", self.state / "farm.key")
        try:
            self._build(store)
        finally:
            store.close()
        self.start_home()
        (port,) = free_ports(1, ROUTER)
        self.router = Member("r1", "rvp-router", ROUTER, port, self.state)
        self._stack.callback(self.router.stop)
        self.router.await_ready()

    def start_home(self) -> None:
        """Start the two homes."""
        state = str(self.state / "homes")
        self.home = Member(
            "hs1", "rvp-home", HOME, self.port, self.state, "--name", "hs2", "--state-dir", state
        )
        self.home.await_ready()

    def close(self) -> None:
        """Stop everything."""
        self._stack.close()
        self.home.stop()

    def _build(self, store: Store) -> None:
        """Fill the directory."""
        handlers.init(store)
        handlers.add_domain(store, FABRIK, ["fabrik.example", "weberei.example"], ["omnent"], "FABRIK")
        handlers.add_domain(store, MILL, ["mill.example"], ["messenger.mill.example"])
        handlers.add_domain(store, ORCHARD, ["orchard.example"])
        handlers.set_policy(store, "referral", "never", MILL)
        handlers.set_policy(store, "referral", "always", ORCHARD)
        for (name, host), link in zip((("hs1", FABRIK), ("hs2", MILL)), self._links, strict=True):
            full = host.replace("im.", f"{name}.", 1)
            handlers.create_home(store, name, full, self.port, link, HOME)
        handlers.create_router(store, "r1", "r1.isp.example", 80, ROUTER)
        for user, (domain, home, mail) in USERS.items():
            handlers.enable_user(
                store, f"{user}@{mail}", home, domain, display_name=user.capitalize(), password=PASSWORD
            )


_until_exit = ExitStack()
atexit.register(_until_exit.close)
_providers: list[Provider] = []


class ProviderTestCase(TestCase):
    """Tests against a provider's farm, which is started once for all of them."""

    farm: Provider

    def setUp(self) -> None:
        """See that the farm runs."""
        if not _providers:
            _providers.append(Provider())
            _until_exit.callback(_providers[0].close)
        self.farm = _providers[0]

    def curl(
        self,
        method: str,
        url: str,
        *headers: str,
        body: str = "",
        user: str = "",
        scheme: str = DIGEST,
        at: Member | None = None,
        options: tuple[str, ...] = (),
    ) -> Ran:
        """One request by curl.

        @param user: who signs in; nobody if empty.
        @param at: the router if not given.
        """
        door = at or self.farm.router
        host, _, path = url.removeprefix("http://").partition("/")
        command = ["curl", "-s", "-i", "-X", method, "--resolve", f"{host}:{door.port}:{door.host}", *options]
        if user:
            command += [scheme, "-u", f"{user}@{USERS[user][2]}:{PASSWORD}"]
            command += ["-H", f"RVP-From-Principal: {url_of(user)}"]
        for header in headers:
            command += ["-H", header]
        if body:
            command += ["-H", "Content-Type: text/xml", "--data-binary", body]
        return run(*command, f"http://{host}:{door.port}/{path}")

    def status(self, ran: Ran) -> int:
        """The status of the last answer that curl shows."""
        self.assertEqual(ran.status, 0, ran.err)
        return int(re.findall(r"^HTTP/1\.1 (\d+)", ran.out, re.MULTILINE)[-1])

    def call_back(self) -> CallBack:
        """A listener for the length of the test."""
        listener = CallBack()
        self.addCleanup(listener.close)
        return listener

    def subscribe(self, url: str, user: str, scheme: str, kind: str, call_back: str) -> str:
        """Subscribe, and return the id."""
        ran = self.curl(
            "SUBSCRIBE",
            url,
            f"Notification-Type: {kind}",
            "Subscription-Lifetime: 14400",
            f"Call-Back: {call_back}",
            user=user,
            scheme=scheme,
        )
        self.assertIn(self.status(ran), (200, 207), ran.out)
        return str(re.findall(r"^Subscription-Id: (\d+)", ran.out, re.MULTILINE)[-1])

    def login(self, user: str, scheme: str, listener: CallBack) -> str:
        """Log in."""
        return self.subscribe(url_of(user), user, scheme, "pragma/notify", listener.url)

    def renew(self, url: str, user: str, number: str) -> int:
        """The status of renewing a subscription."""
        lines = (f"Subscription-Id: {number}", "Subscription-Lifetime: 14400")
        return self.status(self.curl("SUBSCRIBE", url, *lines, user=user))

    def send(self, sender: str, recipient: str, text: str, scheme: str, at: Member | None = None) -> int:
        """The status of sending a message."""
        body = message(url_of(sender), url_of(recipient), text)
        url = url_of(recipient)
        ack = "RVP-Ack-Type: DeepOr"
        return self.status(self.curl("NOTIFY", url, ack, body=body, user=sender, scheme=scheme, at=at))

    def metric(self, member: Member, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels."""
        total = 0.0
        for line in member.page("/metrics").decode().splitlines():
            found = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
            if found and all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
                total += float(found[2])
        return total


class VirtualServerTests(ProviderTestCase):
    """Two homes in one process on one address and port, each for organisations of its own."""

    def test_a_day(self) -> None:
        """Users of both sign in by both schemes, see each other and write; a restart keeps what both had."""
        ears = {user: self.call_back() for user in ("petra", "marta")}
        logins = {
            "petra": self.login("petra", NTLM, ears["petra"]),
            "marta": self.login("marta", DIGEST, ears["marta"]),
        }
        watches = {
            ("petra", "marta"): self.subscribe(
                url_of("marta"), "petra", DIGEST, "update/propchange", url_of("petra")
            ),
            ("marta", "petra"): self.subscribe(
                url_of("petra"), "marta", NTLM, "update/propchange", url_of("marta")
            ),
        }
        for user, watcher, scheme in (("petra", "marta", NTLM), ("marta", "petra", DIGEST)):
            ran = self.curl("PROPPATCH", url_of(user), body=leased("busy"), user=user, scheme=scheme)
            self.assertEqual(self.status(ran), 207, ran.out)
            ears[watcher].wait(containing="<r:state><r:busy/>")
        for door in (self.farm.router, self.farm.home):
            for sender, recipient in (("petra", "marta"), ("marta", "petra"), ("tomasz", "marta")):
                for scheme in (NTLM, DIGEST):
                    text = f"{sender} to {recipient} by {scheme} at {door.name}"
                    self.assertEqual(self.send(sender, recipient, text, scheme, door), 200)
                    ears[recipient].wait(containing=text)
        self.assertEqual(self.metric(self.farm.home, "rvp_outbound_connections", peer="server"), 0)
        self.assertEqual(self.metric(self.farm.router, "rvp_outbound_connections", peer="server"), 2)
        self.assertEqual(
            sorted(
                file.relative_to(self.farm.state).as_posix()
                for file in self.farm.state.glob("homes/**/*.sqlite")
            ),
            ["homes/hs1/home.sqlite", "homes/hs2/home.sqlite"],
        )
        self.farm.home.stop()
        self.farm.start_home()
        for name in ("hs1", "hs2"):
            for kind in ("login", "property"):
                held = self.metric(self.farm.home, "rvp_subscriptions", node=name, type=kind)
                self.assertEqual(held, 1, (name, kind))
        for user, number in logins.items():
            self.assertEqual(self.renew(url_of(user), user, number), 200)
        for (watcher, whom), number in watches.items():
            self.assertEqual(self.renew(url_of(whom), watcher, number), 200)
        self.assertEqual(self.send("petra", "marta", "still there?", NTLM), 200)
        ears["marta"].wait(containing="still there?")
        ran = self.curl("PROPPATCH", url_of("marta"), body=leased("away"), user="marta")
        self.assertEqual(self.status(ran), 207, ran.out)
        ears["petra"].wait(containing="<r:state><r:away/>")

    def test_hosts(self) -> None:
        """At the common place the host says whom an unknown name is asked of, and each counts its own."""
        place = self.farm.home
        for name, host in (("hs1", "hs1.fabrik.example"), ("hs2", "hs2.mill.example")):
            before = self.metric(place, "rvp_requests_total", node=name, code="404")
            ran = self.curl("ACL", f"http://{host}/instmsg/aliases/nobody", user="petra", at=place)
            self.assertEqual(self.status(ran), 404, ran.out)
            self.assertEqual(self.metric(place, "rvp_requests_total", node=name, code="404"), before + 1)
        self.assertEqual(self.metric(place, "rvp_info"), 2)

    def test_refused(self) -> None:
        """What cannot run is refused in one sentence before anything listens."""
        directory = f"sqlite:///{self.farm.state / 'directory.sqlite'}"

        def refusal(*options: str) -> str:
            ran = run(BIN / "twistd", "-n", "--pidfile=", "rvp-home", "--directory", directory, *options)
            self.assertEqual((ran.status, "Traceback" in ran.err + ran.out), (1, False), ran.err)
            return (ran.out + ran.err).strip().splitlines()[-1]

        state = ("--state-dir", str(self.farm.state / "homes"))
        self.assertIn('the directory has no home "hs7" (it has hs1, hs2)', refusal("-n", "hs1,hs7", *state))
        self.assertIn("to run hs1 alone", refusal("-n", "hs1", *state))
        self.assertIn("--link: each of several", refusal("-n", "hs1,hs2", "--link", "fast:tcp:1", *state))


class DomainsTests(ProviderTestCase):
    """The router serves three domains, each by its own names and its own rules."""

    def ask(self, url: str, agent: str = "libwww-perl/6", *, target: str = "") -> Ran:
        """Ask the router for an access list; who is not asked to prove himself is referred."""
        options = ("--request-target", target) if target else ()
        return self.curl("ACL", url, f"User-Agent: {agent}", options=options)

    def test_names(self) -> None:
        """A domain's own names lead to its users, by either of its mail domains; others are 404."""
        for user in USERS:
            if USERS[user][0] != ORCHARD:
                ran = self.curl("ACL", url_of(user), user=user)
                self.assertEqual(self.status(ran), 200, ran.out)
        for host, status in (
            ("omnent", 401),
            ("OMNENT", 401),
            ("fabrik.example", 404),
            ("im.elsewhere.example", 404),
            ("r1.isp.example", 401),
        ):
            ran = self.ask(f"http://{host}/instmsg/aliases/petra")
            self.assertEqual(self.status(ran), status, host)
            if status == 401:
                self.assertIn(f'realm="{FABRIK}"', ran.out)

    def test_targets(self) -> None:
        """A target in the absolute form, or a physical path, names the domain before the host does."""
        for target, domain in (
            (url_of("marta"), MILL),
            (f"http://messenger.mill.example:{self.farm.router.port}/instmsg/aliases/marta", MILL),
            (f"/instmsg/local/{MILL}/instmsg/aliases/marta", MILL),
            (f"http://{ORCHARD}/instmsg/local/{FABRIK}/instmsg/aliases/petra", FABRIK),
        ):
            ran = self.ask(url_of("ingrid"), target=target)
            self.assertEqual(self.status(ran), 401, ran.out)
            self.assertIn(f'realm="{domain}"', ran.out)
        self.assertEqual(
            self.status(
                self.ask(url_of("petra"), target="http://im.elsewhere.example/instmsg/aliases/petra")
            ),
            404,
        )

    def test_referral(self) -> None:
        """One domain refers whoever can follow, one everybody and one nobody; whoever follows arrives."""
        follower = "msmsgs/5.1.0.639"
        statuses = {
            user: [self.status(self.ask(url_of(user), agent)) for agent in (follower, "libwww-perl/6")]
            for user in ("petra", "ingrid", "marta")
        }
        self.assertEqual(statuses, {"petra": [302, 401], "ingrid": [302, 302], "marta": [401, 401]})
        ran = self.ask(url_of("ingrid"))
        local = f"http://hs2.mill.example:{self.farm.port}/instmsg/local/{ORCHARD}/instmsg/aliases/ingrid"
        self.assertEqual(re.findall(r"^Location: (\S+)", ran.out, re.MULTILINE), [local])
        place = local.replace(f":{self.farm.port}", "")
        for scheme in (NTLM, DIGEST):
            ran = self.curl("ACL", place, user="ingrid", scheme=scheme, at=self.farm.home)
            self.assertEqual(self.status(ran), 200, ran.out)

    def test_policy_changes(self) -> None:
        """What is set for one domain comes to count there, and nowhere else."""
        directory = ("--directory", f"sqlite:///{self.farm.state / 'directory.sqlite'}")
        change = ("policy", "set", "referral", "--domain", ORCHARD)
        self.assertEqual(run(BIN / "rvpfarm", *directory, *change, "never").status, 0)
        wait_for("the policy", lambda: self.status(self.ask(url_of("ingrid"))) == 401)
        self.assertEqual(self.status(self.ask(url_of("petra"), "msmsgs/5.1")), 302)
        self.assertEqual(run(BIN / "rvpfarm", *directory, *change, "always").status, 0)
        wait_for("the policy", lambda: self.status(self.ask(url_of("ingrid"))) == 302)
