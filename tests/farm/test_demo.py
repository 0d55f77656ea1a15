"""The demo farm: what C{make farm} starts must work as its banner says, and survive what happens to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from unittest import TestCase

from tests.support.homes import leased, message
from tests.support.processes import (
    BIN,
    CallBack,
    DemoFarm,
    Ran,
    processes,
    run,
    scratch,
    shared_farm,
    wait_for,
)

IM = "im.farm.localhost"


def url_of(user: str) -> str:
    """The logical URL of a demo user."""
    return f"http://{IM}/instmsg/aliases/{user}"


class FarmTestCase(TestCase):
    """Tests against a farm that is started once for each class of them."""

    farm: DemoFarm

    def setUp(self) -> None:
        """See that the farm runs."""
        type(self).farm = shared_farm(type(self).__name__)

    def call_back(self, status: int = 200) -> CallBack:
        """A listener for the length of the test."""
        listener = CallBack(status)
        self.addCleanup(listener.close)
        return listener

    def curl(
        self,
        method: str,
        node: str,
        body: str = "",
        *headers: str,
        user: str = "",
        at: str = "",
        options: tuple[str, ...] = (),
    ) -> Ran:
        """One request by curl.

        @param node: alias of the user whose node it is.
        @param user: who signs in, by Digest; nobody if empty.
        @param at: C{ADDRESS:PORT} of the server; the first router's if empty.
        """
        address, _, port = (at or self.farm.routers[0]).partition("/")[0].rpartition(":")
        command = ["curl", "-s", "-i", "-X", method, "--resolve", f"{IM}:{port}:{address}", *options]
        if user:
            command += ["--digest", "-u", f"{user}:{self.farm.password}"]
        for header in headers:
            command += ["-H", header]
        if body:
            command += ["-H", "Content-Type: text/xml", "--data-binary", body]
        return run(*command, f"http://{IM}:{port}/instmsg/aliases/{node}")

    def status(self, ran: Ran) -> int:
        """The status of the last answer that curl shows."""
        self.assertEqual(ran.status, 0, ran.err)
        return int(re.findall(r"^HTTP/1\.1 (\d+)", ran.out, re.MULTILINE)[-1])

    def login(self, user: str, listener: CallBack, at: str = "") -> str:
        """Log in by curl; the subscription's id."""
        ran = self.curl(
            "SUBSCRIBE",
            user,
            "",
            "Notification-Type: pragma/notify",
            "Subscription-Lifetime: 14400",
            f"Call-Back: {listener.url}",
            user=user,
            at=at,
        )
        self.assertEqual(self.status(ran), 200, ran.out)
        return re.findall(r"^Subscription-Id: (\d+)", ran.out, re.MULTILINE)[-1]

    def watch(self, whom: str, user: str, at: str = "") -> Ran:
        """Subscribe to somebody's presence by curl."""
        return self.curl(
            "SUBSCRIBE",
            whom,
            "",
            "Notification-Type: update/propchange",
            "Subscription-Lifetime: 14400",
            f"Call-Back: {url_of(user)}",
            user=user,
            at=at,
        )

    def send(self, sender: str, recipient: str, text: str, at: str = "") -> Ran:
        """Send a message by curl."""
        body = message(url_of(sender), url_of(recipient), text)
        return self.curl("NOTIFY", recipient, body, "RVP-Ack-Type: DeepOr", user=sender, at=at)

    def renew(self, user: str, number: str) -> int:
        """The status of renewing a subscription on one's own node."""
        return self.status(
            self.curl(
                "SUBSCRIBE", user, "", f"Subscription-Id: {number}", "Subscription-Lifetime: 14400", user=user
            )
        )


class JourneyTests(FarmTestCase):
    """A day in the life of the demo farm, through every door."""

    def test_the_printed_lines(self) -> None:
        """The four lines of the banner work when they are pasted as they stand."""
        lines = [line.strip() for line in self.farm.out.splitlines()]
        login, watch, send, metrics = [
            next(line for line in lines if re.search(pattern, line))
            for pattern in (r"^curl --digest", r"rvp .* watch ", r"rvp .* send ", r"^curl -s .*metrics")
        ]
        self.assertIn("Subscription-Id:", run("bash", "-c", login).out)
        with subprocess.Popen(
            ["bash", "-c", f"exec env {watch}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as watching:
            assert watching.stdout is not None
            self.addCleanup(lambda: watching.poll() is None and watching.kill())
            first = watching.stdout.readline()
            self.assertIn("alice", first)
            sent = run("bash", "-c", send)
            self.assertEqual(sent.status, 0, sent.err + sent.out)
            self.assertIn("Hello from alice", watching.stdout.readline())
            watching.send_signal(signal.SIGINT)
            self.assertEqual(watching.wait(30), 0)
        self.assertIn("rvp_", run("bash", "-c", metrics).out)

    def test_messages_through_every_door(self) -> None:
        """A message arrives between users of one home and of two, by either router or straight at a home."""
        homes = [home.partition("/")[0] for home in self.farm.homes]
        for sender, recipient in (("alice", "bob"), ("alice", "carol"), ("dave", "carol")):
            for door in (*self.farm.routers, *homes):
                with self.subTest(sender=sender, recipient=recipient, door=door):
                    listener = self.call_back()
                    self.login(recipient, listener, at=door)
                    text = f"from {sender} by {door}"
                    self.assertEqual(self.status(self.send(sender, recipient, text, at=door)), 200)
                    (heard,) = listener.wait(containing=text)
                    self.assertEqual(heard.line, "NOTIFY / HTTP/1.1")
                    listener.close()

    def test_presence_reaches_both_homes(self) -> None:
        """Watchers of one's own home and of another hear of a change, and one's own leaving too."""
        listeners = {user: self.call_back() for user in ("bob", "carol")}
        for user, listener in listeners.items():
            self.login(user, listener)
            self.assertEqual(self.status(self.watch("alice", user)), 207)
        for state in ("busy", "offline"):
            ran = self.curl("PROPPATCH", "alice", leased(state), user="alice")
            self.assertEqual(self.status(ran), 207)
            for listener in listeners.values():
                listener.wait(containing=f"<r:state><r:{state}/>")

    def test_properties_and_privacy(self) -> None:
        """PROPFIND, SUBSCRIPTIONS, ACL, UNSUBSCRIBE through a router."""
        listener = self.call_back()
        number = self.login("dave", listener)
        find = "<d:propfind xmlns:d='DAV:'><d:prop><d:displayname/></d:prop></d:propfind>"
        found = self.curl("PROPFIND", "dave", find, "Depth: 0", user="alice")
        self.assertIn("<d:displayname>Dave</d:displayname>", found.out)
        listed = self.curl("SUBSCRIPTIONS", "dave", "", "Notification-Type: pragma/notify", user="dave")
        self.assertIn(f"<r:subscription-id>{number}<", listed.out)
        self.assertIn("<a:rvpacl", self.curl("ACL", "dave", user="dave").out)
        self.assertEqual(self.status(self.curl("ACL", "dave", user="alice")), 403)
        ended = self.curl("UNSUBSCRIBE", "dave", "", f"Subscription-Id: {number}", user="dave")
        self.assertEqual(self.status(ended), 200)

    def test_refusals(self) -> None:
        """Nobody, nowhere, not proved, wrong password, dead call-back: the codes of the notes, at once."""
        self.assertEqual(self.status(self.curl("PROPFIND", "nobody")), 401)
        body = "<d:propfind xmlns:d='DAV:'><d:allprop/></d:propfind>"
        self.assertEqual(self.status(self.curl("PROPFIND", "nobody", body, "Depth: 0", user="alice")), 404)
        self.assertEqual(self.status(self.curl("PROPFIND", "bob", "", "Host: im.elsewhere.example")), 404)
        wrong = self.curl("ACL", "alice", options=("--digest", "-u", "alice:wrong"))
        self.assertEqual(self.status(wrong), 401)
        for scheme in ('Digest qop="auth"', "SHA-256"):
            self.assertIn(scheme, wrong.out)
        listener = self.call_back()
        number = self.login("bob", listener)
        listener.close()
        self.assertEqual(self.status(self.send("alice", "bob", "anybody there?")), 412)
        self.curl("UNSUBSCRIBE", "bob", "", f"Subscription-Id: {number}", user="bob")

    def test_sha256(self) -> None:
        """Curl that is offered nothing but SHA-256 signs in with it."""
        from tests.support.digest import sha256_authorization

        first = self.curl("ACL", "alice")
        header = sha256_authorization(first.out, "ACL", "/instmsg/aliases/alice", "alice", self.farm.password)
        self.assertEqual(self.status(self.curl("ACL", "alice", "", header)), 200)
        self.assertEqual(self.status(self.curl("ACL", "alice", "", header)), 401)

    def test_names(self) -> None:
        """DNS says where the farm is: one SRV record, both routers in rotating order, each home."""
        import dns.message
        import dns.query
        import dns.rdatatype

        host, _, port = self.farm.dns.rpartition(":")

        def ask(name: str, kind: str, tcp: bool = False) -> list[str]:
            query = dns.message.make_query(name, kind)
            send = dns.query.tcp if tcp else dns.query.udp
            answer = send(query, host, timeout=10, port=int(port))
            return [str(record) for rrset in answer.answer for record in rrset]

        router_port = self.farm.routers[0].rpartition(":")[2]
        for tcp in (False, True):
            self.assertEqual(ask("_rvp._tcp.farm.localhost", "SRV", tcp), [f"0 0 {router_port} {IM}."])
        first = {ask(IM, "A")[0] for _ in range(4)}
        self.assertEqual(first, {"127.0.0.1", "127.0.0.2"})
        self.assertEqual(ask("home2.farm.localhost", "A"), ["127.0.0.12"])

    def test_metrics(self) -> None:
        """Each process shows its own figures: requests, routes, deliveries, fan-out, directory, lag."""
        listener = self.call_back()
        self.login("bob", listener)
        self.watch("carol", "bob")
        self.send("alice", "bob", "count me")
        self.curl("PROPPATCH", "carol", leased("on-phone"), user="carol")
        listener.wait(containing="on-phone")
        farm = self.farm
        self.assertGreater(farm.metric(0, "rvp_route_total"), 0)
        self.assertGreater(farm.metric(3, "rvp_messages_total"), 0)
        self.assertGreater(farm.metric(3, "rvp_subscriptions"), 0)
        wait_for("the fan-out's end", lambda: farm.metric(2, "rvp_fanout_seconds_count") > 0)
        for process in range(4):
            self.assertGreater(farm.metric(process, "rvp_requests_total"), -1)
            self.assertGreater(farm.metric(process, "rvp_reactor_lag_seconds_count"), 0)
            self.assertGreater(farm.metric(process, "rvp_directory_reads_total"), -1)

    def test_administration_takes_effect(self) -> None:
        """A user enabled, disabled or given a password on the command line is so at once, farm-wide."""
        directory = f"sqlite:///{self.farm.state / 'directory.sqlite'}"
        admin = (BIN / "rvpfarm", "--directory", directory)
        made = run(*admin, "user", "enable", "erin@farm.localhost", "--password-stdin", stdin="tr0ub4dor&3\n")
        self.assertEqual(made.status, 0, made.err)
        for shown in ("erin@farm.localhost", url_of("erin"), "/instmsg/local/im.farm.localhost"):
            self.assertIn(shown, made.out)

        def may(password: str) -> int:
            return self.status(self.curl("ACL", "erin", options=("--digest", "-u", f"erin:{password}")))

        wait_for("erin's enabling", lambda: may("tr0ub4dor&3") == 200)
        run(*admin, "user", "passwd", "erin@farm.localhost", "--password-stdin", stdin="new p4ssphrase\n")
        wait_for("erin's new password", lambda: may("new p4ssphrase") == 200)
        self.assertEqual(may("tr0ub4dor&3"), 401)
        run(*admin, "user", "disable", "erin@farm.localhost", "--yes")
        wait_for("erin's disabling", lambda: may("new p4ssphrase") == 401)


class ReferralTests(FarmTestCase):
    """Routers refer callers when the policy says so."""

    def test_referred(self) -> None:
        """Policy C{always}: 302 with the physical URL, which the home serves; another home refers likewise."""
        directory = f"sqlite:///{self.farm.state / 'directory.sqlite'}"
        done = run(BIN / "rvpfarm", "--directory", directory, "policy", "set", "referral", "always")
        self.assertEqual(done.status, 0, done.err)
        physical = r"^Location: (http://home2\.farm\.localhost:\d+)(/instmsg/local/im\.farm\.localhost/instmsg/aliases/bob)"
        homes = [home.partition("/")[0] for home in self.farm.homes]
        wait_for("the policy", lambda: self.status(self.curl("ACL", "bob")) == 302)
        wait_for("the policy", lambda: self.status(self.curl("ACL", "bob", at=homes[0])) == 302)
        found = re.search(physical, self.curl("ACL", "bob").out, re.MULTILINE)
        assert found is not None
        server, path = found.groups()
        port = server.rpartition(":")[2]
        done = run(
            *("curl", "-s", "-i", "-X", "ACL", "--digest", "-u", f"bob:{self.farm.password}"),
            *("--resolve", f"home2.farm.localhost:{port}:127.0.0.12", server + path),
        )
        self.assertEqual(self.status(done), 200)


class DisasterTests(FarmTestCase):
    """What was acknowledged survives; what is away is said to be away; nothing is left behind."""

    def test_killed_home(self) -> None:
        """A home killed with C{kill -9} while people log in forgets no acknowledged subscription."""
        listener = self.call_back()
        numbers = [self.login("bob", listener) for _ in range(3)]
        os.kill(self.farm.member("home2"), signal.SIGKILL)
        numbers += [number for number in self._try_logins(listener, 6) if number]
        wait_for("home2's return", lambda: self.status(self.send("alice", "bob", "still there?")) == 200)
        self.assertEqual(
            {number: self.renew("bob", number) for number in numbers}, dict.fromkeys(numbers, 200)
        )

    def _try_logins(self, listener: CallBack, count: int) -> list[str | None]:
        """Try to log in again and again; the id of each attempt that was answered 200."""
        found = []
        for _ in range(count):
            ran = self.curl(
                "SUBSCRIBE",
                "bob",
                "",
                "Notification-Type: pragma/notify",
                "Subscription-Lifetime: 14400",
                f"Call-Back: {listener.url}",
                user="bob",
            )
            self.assertIn(self.status(ran), (200, 503, 504))
            ids = re.findall(r"^Subscription-Id: (\d+)", ran.out, re.MULTILINE)
            found.append(ids[-1] if ids else None)
        return found

    def test_dead_home(self) -> None:
        """While a home is away its users are 503 with C{Retry-After}, at once; the other home serves on."""
        os.kill(self.farm.member("home1"), signal.SIGKILL)
        ran = self.curl("ACL", "alice")
        if self.status(ran) != 401:  # unless it was back already
            self.assertEqual(self.status(ran), 503)
            self.assertIn("Retry-After:", ran.out)
        self.assertEqual(self.status(self.curl("ACL", "bob", user="bob")), 200)
        wait_for("home1's return", lambda: self.status(self.curl("ACL", "alice", user="alice")) == 200)


class LifeTests(TestCase):
    """Starting, stopping and starting again."""

    def test_stopped_and_started_again(self) -> None:
        """Ctrl-C leaves no process; the next start has the same users and subscriptions."""
        with scratch() as where:
            farm = DemoFarm(where / "demo")
            farm.start()
            try:
                tests = JourneyTests()
                tests.farm = farm
                listener = CallBack()
                number = tests.login("bob", listener)
                started = farm.children()
                self.assertEqual(len(started), 5)
                self.assertIn(farm.stop(), (0, -signal.SIGINT))  # twistd ends by the signal it was sent
                self.assertEqual({pid for pid, _, _ in processes()} & set(started), set())
                farm.start()
                self.assertEqual(tests.renew("bob", number), 200)
                self.assertEqual(tests.status(tests.send("alice", "bob", "welcome back")), 200)
                listener.wait(containing="welcome back")
                listener.close()
            finally:
                if farm.running:
                    farm.stop()

    def test_children_do_not_outlive_a_killed_farm(self) -> None:
        """Even C{kill -9} of the farm leaves nothing running."""
        with scratch() as where:
            farm = DemoFarm(where / "demo")
            farm.start()
            children = set(farm.children())
            os.kill(farm.pid, signal.SIGKILL)
            wait_for("the children's end", lambda: not children & {pid for pid, _, _ in processes()})
            farm.stop()

    def test_busy_port(self) -> None:
        """A busy port is one sentence that names it and the option, and nothing is started."""
        listener = CallBack()
        self.addCleanup(listener.close)
        with scratch() as where:
            ran = run(
                *(BIN / "twistd", "--nodaemon", "--pidfile=", "rvp-farm", "--state-dir", where / "demo"),
                *("--router", f"127.0.0.1:{listener.port}"),
            )
        self.assertEqual(ran.status, 1)
        (line,) = (ran.err + ran.out).strip().splitlines()
        self.assertIn(f"127.0.0.1:{listener.port}", line)
        self.assertIn("--router", line)

    def test_installed_wheel_brings_the_plugins(self) -> None:
        """C{twistd --help} lists the daemons."""
        ran = run(BIN / "twistd", "--help")
        for name in ("rvp-router", "rvp-home", "rvp-farm", "rvp-dns"):
            self.assertIn(name, ran.out)
