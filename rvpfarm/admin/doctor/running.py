"""The rules about what runs: its status pages and metrics (core).

Figures count from the start of a process; a rule that asks for a share wants enough of them to be one.
"""

from __future__ import annotations

from collections.abc import Iterator

from rvpfarm.admin.checks import enumerate_names
from rvpfarm.admin.doctor.evidence import Evidence
from rvpfarm.admin.doctor.findings import Finding, error, info, warning
from rvpfarm.admin.status import Server

#: From which share of what is allowed on there is an alarm (product D13, D29).
_NEARLY = 0.8
#: So many of something are needed for a share of it to say anything.
_ENOUGH = 20
#: A directory that was last heard of so long ago is away.
_STALE_SECONDS = 120.0
#: Programs that the farm is tested with, as their metric calls them up to the version.
KNOWN_PROGRAMS = ("msmsgs", "rvp", "rvpfarm", "miranda", "net-rvp", "libwww-perl", "librvp", "none")


def not_running(evidence: Evidence) -> Iterator[Finding]:
    """D03: every server runs, says so, and shows its metrics."""
    for server in evidence.servers():
        if server.state in ("ready", "draining"):
            continue
        what = f"{server.role} {server.title}"
        if server.state == "unknown place":
            yield warning(
                "D03",
                f"nobody knows where {what} shows its status",
                f"rvpfarm {server.role} set {server.name} --metrics ADDRESS:PORT",
            )
        elif server.state == "no answer":
            yield error("D03", f"{what} does not answer at {server.place}: {server.reason}", _start(server))
        else:
            yield error(
                "D03", f"{what} runs and is not ready: {server.reason}", f"journalctl -u {_unit(server)}"
            )
    for title in evidence.dumb:
        yield warning(
            "D03", f"{title} shows its status and no metrics", f"rvpfarm status {title}, and see its log"
        )


def answers_500(evidence: Evidence) -> Iterator[Finding]:
    """D06: requests are answered, not failed."""
    for title, figures in evidence.figures.items():
        all_of_them = figures.total("requests_total")
        failed = figures.total("requests_total", code="500")
        if failed >= 5 and failed > all_of_them / 100:
            yield error(
                "D06",
                f"{title} has answered {failed:.0f} of {all_of_them:.0f} requests with 500",
                f"rvpfarm doctor --rule D06 --end-to-end, and look for tracebacks in the log of {title}",
            )


def directory_away(evidence: Evidence) -> Iterator[Finding]:
    """D07: every process can ask the directory."""
    for server in evidence.servers():
        page, figures = server.page, evidence.figures.get(server.title)
        stale = page.staleness_seconds if page is not None else None
        down = figures is not None and figures.known("directory_up") and not figures.total("directory_up")
        if down or (stale is not None and stale > _STALE_SECONDS):
            since = "" if stale is None else f"; what it serves is {stale:.0f} s old"
            yield error(
                "D07",
                f"{server.role} {server.title} cannot ask the directory{since}",
                f"rvpfarm domain list on the machine of {server.title}, and mend the database it names",
            )


def overloaded(evidence: Evidence) -> Iterator[Finding]:
    """D08: work that comes in is not turned away."""
    limit = evidence.farm.number("inbound-queue")
    for title, figures in evidence.figures.items():
        used = figures.total("queue_depth", queue="inbound")
        refused = figures.total("rejected_total", reason="queue")
        if used >= limit * _NEARLY:
            yield warning(
                "D08",
                f"{title} has {used:.0f} requests in work, of {limit} at most",
                f"add a router or a home, or: rvpfarm policy set inbound-queue {limit * 2}",
            )
        if refused:
            yield warning(
                "D08",
                f"{title} has turned {refused:.0f} requests away since it started, for its queue was full",
                "add a router or a home; rvp_queue_depth and rvp_rejected_total say when",
            )


def dead_targets(evidence: Evidence) -> Iterator[Finding]:
    """D09: no partner is out of reach."""
    for title, figures in evidence.figures.items():
        for figure in figures.of("breaker_open"):
            if figure.value:
                target = figure.labels.get("target", "?")
                yield error(
                    "D09",
                    f"{title} cannot reach home {target}, and holds its calls back",
                    f"rvpfarm status {target}, and see that its --link-port is reachable from {title}",
                )
        waiting = figures.total("queue_depth", queue="outbound")
        if waiting >= 1000:
            yield warning(
                "D09",
                f"{title} has {waiting:.0f} notifications waiting for call-backs that are slow",
                f"see rvp_queue_depth and rvp_notifications_total of {title}",
            )


def deaf_sessions(evidence: Evidence) -> Iterator[Finding]:
    """D11: who is signed in can be called back."""
    for title, figures in evidence.figures.items():
        deaf = figures.total("sessions_deaf")
        if deaf:
            yield warning(
                "D11",
                f"{deaf:.0f} call-backs of home {title} cannot be reached: they can send and not receive",
                f'grep "is dead" in the log of {title} names them; their network has to let the home in',
            )


def deaf_networks(evidence: Evidence) -> Iterator[Finding]:
    """D12: no firewall stands between a home and most of its clients."""
    for title, figures in evidence.figures.items():
        deaf, sessions = figures.total("sessions_deaf"), figures.total("sessions")
        if deaf >= 5 and deaf >= sessions / 2:
            yield error(
                "D12",
                f"{deaf:.0f} call-backs of home {title} are out of reach, beside {sessions:.0f} sessions: a "
                "firewall probably keeps the home from calling them",
                f"allow TCP from the address of home {title} to ports from 1024 on of the clients",
            )


def crashed_clients(evidence: Evidence) -> Iterator[Finding]:
    """D14: who looks online is there."""
    for title, figures in evidence.figures.items():
        failing, online = figures.total("call_backs_failing"), figures.total("users_online")
        if failing >= 5 and failing >= online / 10:
            yield warning(
                "D14",
                f"{failing:.0f} call-backs of home {title} missed their last notification; those users look "
                "online until the retries are over",
                f"nothing, if clients crashed; else see the network between home {title} and its clients",
            )


def flickering(evidence: Evidence) -> Iterator[Finding]:
    """D15: presence is renewed before it runs out."""
    for title, figures in evidence.figures.items():
        late, renewed = (
            figures.total("lease_late_total"),
            figures.total("lease_renewed_total", kind="presence"),
        )
        if late >= 5 and late >= (late + renewed) / 20:
            yield warning(
                "D15",
                f"{late:.0f} presences at home {title} ran out and came back within a minute, beside "
                f"{renewed:.0f} renewed in time",
                "set PropertyTimeout of those clients to 1200 or more (HKCU\\Software\\Microsoft\\Exchange\\"
                "Messenger\\Profiles), and see their clocks",
            )


def ntlm_through_proxies(evidence: Evidence) -> Iterator[Finding]:
    """D17: nobody tries NTLM through a web proxy."""
    for title, figures in evidence.figures.items():
        failed = figures.total("auth_failures_total", method="ntlm", cause="proxied")
        if failed:
            yield warning(
                "D17",
                f"{failed:.0f} sign-ins by NTLM or Negotiate at {title} came through a proxy and failed",
                "take the farm out of the clients' proxy settings (docs/proxies.md), or: rvpfarm policy set "
                'schemes "digest-sha-256 digest-md5 ntlm"',
            )


def mixed_farm(evidence: Evidence) -> Iterator[Finding]:
    """D19: all processes run the same version with the same settings."""
    pages = [server for server in evidence.servers() if server.page is not None]
    versions: dict[str, list[str]] = {}
    configs: dict[str, list[str]] = {}
    for server in pages:
        assert server.page is not None
        versions.setdefault(server.page.version, []).append(server.title)
        if server.page.config:
            configs.setdefault(server.page.config, []).append(server.title)
    if len(versions) > 1:
        runs = "; ".join(f"{version} at {enumerate_names(who)}" for version, who in sorted(versions.items()))
        yield warning(
            "D19",
            f"the farm runs {len(versions)} versions: {runs}",
            "finish the upgrade: pip install --upgrade rvpfarm on the others, then restart them one by one",
        )
    if len(configs) > 1:
        few = min(configs.values(), key=len)
        yield warning(
            "D19",
            f"not all processes go by the same settings: {enumerate_names(few)} differ from the rest",
            f"give them a minute; then see that {few[0]} reaches the directory (D07), or restart it",
        )


def insiders_forwarded(evidence: Evidence) -> Iterator[Finding]:
    """D25: callers from private networks count as inside."""
    for server in evidence.servers("router"):
        figures = evidence.figures.get(server.title)
        if figures is None:
            continue
        private, all_of_them = figures.total("connections_private"), figures.total("connections")
        if private >= _ENOUGH and private >= all_of_them / 5:
            yield warning(
                "D25",
                f"{private:.0f} of {all_of_them:.0f} connections of router {server.title} come from private "
                "networks that do not count as inside, so all their traffic goes through the router",
                "rvpfarm network add inside RANGE for each of them; rvpfarm network test ADDRESS explains",
            )


def nearly_full(evidence: Evidence) -> Iterator[Finding]:
    """D29: there is room for more connections."""
    for title, figures in evidence.figures.items():
        used, limit = figures.total("connections"), figures.total("connections_limit")
        if limit and used >= limit * _NEARLY:
            yield warning(
                "D29",
                f"{title} has {used:.0f} connections of {limit:.0f} at most",
                f"rvpfarm policy set max-connections {2 * int(limit)}, with LimitNOFILE; or add a router",
            )
        refused = sum(figures.total("rejected_total", reason=reason) for reason in ("conn", "source"))
        if refused:
            yield warning(
                "D29",
                f"{title} has turned {refused:.0f} connections away since it started",
                "rvpfarm policy set max-connections N, or connections-per-source N if they share an address",
            )


def unknown_programs(evidence: Evidence) -> Iterator[Finding]:
    """D30: the clients are those that the farm is tested with."""
    seen: dict[str, float] = {}
    for figures in evidence.figures.values():
        for figure in figures.of("user_agents_total"):
            agent = figure.labels.get("agent", "?")
            seen[agent] = seen.get(agent, 0.0) + figure.value
    strange = {
        agent: count
        for agent, count in seen.items()
        if count and agent.partition("/")[0] not in KNOWN_PROGRAMS
    }
    if strange:
        most = sorted(strange, key=lambda agent: (-strange[agent], agent))[:10]
        yield info(
            "D30",
            "programs that the farm is not tested with subscribe: "
            + ", ".join(f"{agent} ({strange[agent]:.0f})" for agent in most),
            "set DisableUpdates in the client policy if it replaced your client; else nothing",
        )


def piled_up(evidence: Evidence) -> Iterator[Finding]:
    """D33: subscriptions of crashed clients do not pile up."""
    for title, figures in evidence.figures.items():
        logins, sessions = figures.total("subscriptions", type="login"), figures.total("sessions")
        if logins >= 50 and logins > 3 * sessions:
            yield warning(
                "D33",
                f"home {title} holds {logins:.0f} logins of {sessions:.0f} sessions: clients crash",
                "nothing: they end with their leases, after 4 hours; see why they crash",
            )


def _start(server: Server) -> str:
    return f"systemctl start {_unit(server)}, or see where it is: rvpfarm {server.role} show {server.name}"


def _unit(server: Server) -> str:
    return f"rvp-{server.role}@{server.name}"
