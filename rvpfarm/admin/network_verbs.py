"""C{rvpfarm network}: from where calls are referred, whose word counts, and what may be called back."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rvpfarm.admin import handlers, routes
from rvpfarm.admin.networks import consequence, header_text, range_text, warnings_about
from rvpfarm.admin.routes import Decision, Edge, Explanation
from rvpfarm.admin.tables import show_facts, show_json, show_table
from rvpfarm.admin.verbs import Farm, Noun, dry_run_option, json_option, pass_farm, yes_option
from rvpfarm.directory.model import Farm as Settings
from rvpfarm.directory.model import Network

_KIND = click.Choice(handlers.NETWORK_KINDS)

#: Why something may not be called back, by the rule that forbids it.
_BARRED = {
    "farm": "a server of this farm listens there",
    "special": "it is a loopback, link-local or multicast address",
    "network": "no call-back range contains it",
    "name": "it is a name",
    "unknown": "nobody knows where the caller is",
}


@click.group(cls=Noun)
def network() -> None:
    """Ranges of addresses that count as inside, as trusted proxies, or as allowed for call-backs.

    KIND is one of these.  inside: callers there are referred to their homes when they can follow; without a
    range, everybody is inside.  trusted-proxy: what it says about who calls is believed.  call-back: whoever
    may subscribe others can have notifications sent there.
    """


@network.command("add")
@click.argument("kind", type=_KIND)
@click.argument("addresses")
@pass_farm
def network_add(farm: Farm, kind: str, addresses: str) -> None:
    """Let the ADDRESSES, such as 192.0.2.0/24 or 192.0.2.1-192.0.2.9, count as KIND."""
    made = handlers.add_network(farm.store, kind, addresses)
    click.echo(f"Addresses from {made.first} to {made.last} count as {made.kind} now.")
    _warn(handlers.farm_of(farm.store))


@network.command("remove")
@click.argument("kind", type=_KIND)
@click.argument("addresses")
@yes_option
@dry_run_option
@pass_farm
def network_remove(farm: Farm, kind: str, addresses: str, yes: bool, dry_run: bool) -> None:
    """Let the ADDRESSES count as KIND no longer."""
    planned = handlers.remove_network(farm.store.limited(rehearsing=True), kind, addresses)
    meant = f"Addresses from {planned.first} to {planned.last}"
    if dry_run:
        click.echo(f"{meant} would count as {planned.kind} no longer; nothing was changed.")
        return
    if not yes:
        click.confirm(f"{meant} shall count as {planned.kind} no longer?", abort=True)
    handlers.remove_network(farm.store, kind, addresses)
    click.echo(f"{meant} count as {planned.kind} no longer.")


@network.command("set")
@click.argument("kind", type=_KIND)
@click.argument("ranges", nargs=-1)
@click.option("--none", "empty", is_flag=True, help="No range at all, instead of RANGES.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@pass_farm
def network_set(farm: Farm, kind: str, ranges: tuple[str, ...], empty: bool, dry_run: bool) -> None:
    """Let exactly the RANGES count as KIND; others of that kind count no longer.

    A range is such as 192.0.2.0/24, 192.0.2.1-192.0.2.9, 192.0.2.1 or 2001:db8::/32.
    """
    if bool(ranges) == empty:
        raise click.UsageError("give either RANGES or --none.")
    done = handlers.set_networks(farm.store, kind, ranges, dry_run=dry_run)
    for note in done.notes:
        click.echo(f"Note: {note}")
    _list_change(f"{'Would add' if dry_run else 'Added'} to {kind}:", done.added)
    _list_change(f"{'Would remove' if dry_run else 'Removed'} from {kind}:", done.removed)
    if not (done.added or done.removed):
        click.echo(f"The ranges of {kind} are these already; nothing was changed.")
    elif dry_run:
        click.echo("Nothing was changed; it would mean:")
    for sentence in consequence(done.farm, kind):
        click.echo(sentence)
    _warn(done.farm)


@network.command("list")
@json_option
@pass_farm
def network_list(farm: Farm, as_json: bool) -> None:
    """List the ranges of addresses, by kind.

    With --json: an array of objects with kind, first and last.
    """
    networks = handlers.farm_of(farm.store).networks
    if as_json:
        show_json([{"kind": one.kind, "first": one.first, "last": one.last} for one in networks])
        return
    rows = [(one.kind, one.first, one.last) for one in networks]
    show_table(("kind", "from", "to"), rows, "No range counts as anything yet.")


@network.command("test")
@click.argument("address", required=False)
@click.option(
    "--edges", "at_edges", is_flag=True, help="Instead of ADDRESS: every edge of the inside ranges."
)
@click.option("--user", metavar="WHO", help="Whom the call is for.  [default: anybody, on each home]")
@click.option("--domain", metavar="NAME", help="The IM domain.  [default: the only one there is]")
@click.option(
    "--user-agent",
    metavar="TEXT",
    default=routes.FOLLOWER,
    show_default=True,
    help="What the client calls itself; those that follow a referral begin with msmsgs/.",
)
@click.option("--host", metavar="HOST", help="The host that the client asks.  [default: the IM domain]")
@click.option("--forwarded", metavar="VALUE", help="What the proxy's header says, if ADDRESS is a proxy.")
@json_option
@pass_farm
def network_test(
    farm: Farm,
    address: str | None,
    at_edges: bool,
    user: str | None,
    domain: str | None,
    user_agent: str,
    host: str | None,
    forwarded: str | None,
    as_json: bool,
) -> None:
    """Explain what a router does with a call from ADDRESS, and why.  Nothing is sent to anybody.

    With --json: an object with address, trusted_proxy (true or false), header (which one is believed, or
    none), believed, malformed (the header cannot be read: 400), caller (the address that counts, or null),
    inside, ranges (array: the inside ranges with the caller in them), domain, host, served (whether the host
    means an IM domain here), referral (the policy), follows, decisions (array of objects with home, decision,
    which is refer or forward, url, which is null unless referred, and leads_back), call_back and
    call_back_by_others (null when the caller itself, or others, may name a call-back at its address, else
    farm, special, network or unknown).  With --edges --json: an array of objects with address, inside and
    decisions.
    """
    if (address is None) != at_edges:
        raise click.UsageError("give either an ADDRESS or --edges.")
    call = routes.think_of(
        farm.store,
        "127.0.0.1" if address is None else address,
        user=user,
        domain=domain,
        user_agent=user_agent,
        host=host,
        forwarded=forwarded,
    )
    if at_edges:
        _show_edges(routes.edges(call), as_json)
    elif as_json:
        show_json(_record(routes.explain(call)))
    else:
        _show(routes.explain(call))
    if not as_json:
        _warn(call.farm)


def _show(found: Explanation) -> None:
    """The explanation, for people."""
    call, caller = found.call, found.caller
    facts = {"Connection from": call.peer, "Trusted proxy": _proxy_words(found)}
    if caller.malformed:
        show_facts({**facts, "Decision": "answer 400, as nobody can tell who calls"})
        return
    show_facts(
        {
            **facts,
            "Caller": caller.address or "unknown",
            "Inside": _inside_words(found),
            "Asked": f"{call.asked}, for the domain {call.domain}"
            if found.served
            else f"{call.asked}, which is no host of this farm: the router answers 404",
            "Referral": f"{found.referral} (policy of {call.domain})",
            "Follows": f"{'yes' if found.follows else 'no'}: the client is {call.user_agent or 'nameless'}",
            **(_decision_facts(found) if found.served else {}),
            "Call-back": _call_back_words(found.call_back, "the caller itself", own=True),
            "By others": _call_back_words(found.call_back_by_others, "whoever may subscribe others"),
        }
    )


def _proxy_words(found: Explanation) -> str:
    """Whether the connection's other end is believed, and about what."""
    call, caller, header = found.call, found.caller, header_text(found.call.farm)
    if not caller.proxy:
        return f"no{'' if call.forwarded is None else '; what it says about others is not believed'}"
    if not header:
        return "yes, but the policy forwarded-header is none: no header is believed"
    if call.forwarded is None:
        return f"yes, but there is no {header} (--forwarded): who calls is unknown"
    if caller.malformed:
        return f"yes, but its {header} cannot be read"
    if not caller.believed:
        return f"yes, but its {header} names no address: who calls is unknown"
    return f"yes: its {header} is believed"


def _inside_words(found: Explanation) -> str:
    """Whether the caller counts as inside, and by which range."""
    if found.ranges:
        return f"yes: in {', '.join(found.ranges)}"
    if found.inside:
        return "yes: there is no inside range, so everybody is"
    return "no: no inside range contains it" if found.caller.address else "no: an unknown caller never is"


def _decision_facts(found: Explanation) -> dict[str, str]:
    """What becomes of the call, for each home that it may be for."""
    return {f"For {one.home.name}": _decision_words(one) for one in found.decisions}


def _decision_words(decision: Decision) -> str:
    """What becomes of the call on one home."""
    if decision.url:
        return f"refer the caller to {decision.url}"
    back = "; its URL would lead back to a router" if decision.back else ""
    return f"forward the call to {decision.home.name}{back}"


def _call_back_words(rule: str | None, who: str, *, own: bool = False) -> str:
    """Whether notifications can be sent to the caller's address."""
    if rule is None:
        why = "its own address" if own else "a call-back range contains it"
        return f"{who} may name one at that address: {why}"
    return f"{who} may name none at that address: {_BARRED[rule]}"


def _show_edges(edges: Sequence[Edge], as_json: bool) -> None:
    """The decision at each edge."""
    if as_json:
        show_json(
            [
                {
                    "address": edge.address,
                    "inside": edge.inside,
                    "decisions": [_decision_record(one) for one in edge.decisions],
                }
                for edge in edges
            ]
        )
        return
    rows = [
        (edge.address, "inside" if edge.inside else "outside", routes.summarize(edge.decisions))
        for edge in edges
    ]
    show_table(("call from", "counts as", "decision"), rows, "No inside range: everybody is inside.")


def _record(found: Explanation) -> dict[str, object]:
    """The explanation, for C{--json}."""
    call, caller = found.call, found.caller
    return {
        "address": call.peer,
        "trusted_proxy": caller.proxy,
        "header": header_text(call.farm) or "none",
        "believed": caller.believed,
        "malformed": caller.malformed,
        "caller": caller.address or None,
        "inside": found.inside,
        "ranges": list(found.ranges),
        "domain": call.domain,
        "host": call.asked,
        "served": found.served,
        "referral": found.referral,
        "follows": found.follows,
        "decisions": [_decision_record(one) for one in found.decisions],
        "call_back": found.call_back,
        "call_back_by_others": found.call_back_by_others,
    }


def _decision_record(decision: Decision) -> dict[str, object]:
    """What becomes of a call, for C{--json}."""
    return {
        "home": decision.home.name,
        "decision": decision.word,
        "url": decision.url or None,
        "leads_back": decision.back,
    }


def _list_change(title: str, networks: Sequence[Network]) -> None:
    """Which ranges come or go."""
    if networks:
        click.echo(f"{title} {', '.join(range_text(one) for one in networks)}")


def _warn(farm: Settings) -> None:
    """Say on standard error what is probably a mistake."""
    for sentence in warnings_about(farm):
        click.echo(f"rvpfarm: warning: {sentence}", err=True)
