"""Which ranges of addresses count as inside, as trusted proxies, or as allowed for call-backs (F23, F28)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, summarize_address_range

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Missing, Refused, Taken, enumerate_names, parse_range
from rvpfarm.admin.users import Rehearsed
from rvpfarm.directory.model import Farm, Network
from rvpfarm.directory.networks import ranges_of
from rvpfarm.directory.ranges import ALL_V4, Ranges, Span, span_of
from rvpfarm.directory.store import Store

#: What a range of addresses may count as.
NETWORK_KINDS = ("inside", "trusted-proxy", "call-back")

#: Of so many addresses a range, or all together, is nearly the whole Internet: half of IPv4, a 16th of IPv6.
_NEARLY_ALL_V4, _NEARLY_ALL_V6 = 1 << 31, 1 << 124


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """What giving all ranges of one kind anew did, or would do.

    @ivar farm: as it is afterwards.
    @ivar ranges: all that count now, in order.
    @ivar added: those that did not count before.
    @ivar removed: those that count no longer.
    @ivar notes: what was odd about the ranges as they were given.
    """

    kind: str
    farm: Farm
    ranges: tuple[Network, ...]
    added: tuple[Network, ...]
    removed: tuple[Network, ...]
    notes: tuple[str, ...]


def add_network(store: Store, kind: str, addresses: str, *, actor: str | None = None) -> Network:
    """A range of addresses counts as C{kind} from now on.

    @param kind: one of L{NETWORK_KINDS}.
    @param addresses: such as C{192.0.2.0/24}.
    @raise Refused: it is no range, or it counts already.
    """
    network = _parse_network(kind, addresses)
    with store.change(actor or default_actor(), "network add", addresses) as writing:
        if network in writing.farm().networks:
            raise Taken(f'"{addresses}" counts as {kind} already; "rvpfarm network list" shows the ranges')
        writing.add_network(network)
    return network


def remove_network(store: Store, kind: str, addresses: str, *, actor: str | None = None) -> Network:
    """A range of addresses counts as C{kind} no longer.

    @raise Refused: it did not.
    """
    network = _parse_network(kind, addresses)
    with store.change(actor or default_actor(), "network remove", addresses) as writing:
        if network not in writing.farm().networks:
            raise Missing(
                f'"{addresses}" does not count as {kind}; "rvpfarm network list" shows the ranges', addresses
            )
        writing.remove_network(network)
    return network


def set_networks(
    store: Store, kind: str, ranges: Iterable[str], *, actor: str | None = None, dry_run: bool = False
) -> NetworkChange:
    """Exactly these ranges of addresses count as C{kind} from now on.

    @param kind: one of L{NETWORK_KINDS}.
    @param ranges: such as C{192.0.2.0/24}; none for an empty list.
    @param dry_run: only find out what it would come to.
    @raise Refused: one of them is no range.
    """
    given = [_parse_network(kind, one) for one in ranges]
    networks = tuple(dict.fromkeys(sorted(given, key=_place)))
    notes = _oddities(networks, len(given) - len(networks))
    with suppress(Rehearsed), store.change(actor or default_actor(), "network set", kind) as writing:
        before = {network for network in writing.farm().networks if network.kind == kind}
        writing.set_networks(kind, networks)
        farm = writing.farm()
        change = NetworkChange(
            kind,
            farm,
            networks,
            tuple(network for network in networks if network not in before),
            tuple(sorted(before - set(networks), key=_place)),
            notes,
        )
        if dry_run:
            raise Rehearsed
    return change


def range_text(network: Network) -> str:
    """A range as people write it: as a prefix where it is one, else from and to."""
    if network.first == network.last:
        return network.first
    first, last = ip_address(network.first), ip_address(network.last)
    if first.version == last.version:
        prefixes = list(summarize_address_range(first, last))
        if len(prefixes) == 1:
            return str(prefixes[0])
    return f"{network.first}-{network.last}"


def consequence(farm: Farm, kind: str) -> tuple[str, ...]:
    """What the ranges of C{kind} mean, in sentences for an administrator."""
    networks = [network for network in farm.networks if network.kind == kind]
    shown = enumerate_ranges(networks)
    if kind == "trusted-proxy":
        if not networks:
            return ("No trusted proxy: a call comes from the address that its connection comes from.",)
        return (f"A call from {shown} comes from the address that the proxy's header names.",)
    if kind == "call-back":
        if not networks:
            return ("No call-back range: a home calls back only the address that asked.",)
        return (
            f"Whoever holds the subscribe-others right may name a call-back at {shown}, "
            "and servers of other organisations may be at private addresses there.",
        )
    if not networks:
        return ("No inside range: everybody is inside, and is referred when the client can follow.",)
    return (
        f"This network is protected by a firewall: callers from {shown} are referred when they can follow, "
        "everybody else is forwarded.",
        *_exceptions(farm),
    )


def warnings_about(farm: Farm) -> tuple[str, ...]:
    """What is probably a mistake about the ranges of C{farm} (product D24)."""
    found: list[str] = []
    for kind in NETWORK_KINDS:
        found.extend(_too_wide(farm, kind))
    inside = ranges_of(farm, "inside")
    header = header_text(farm)
    for proxy in farm.networks:
        span = span_of(proxy)
        if proxy.kind != "trusted-proxy" or span is None or not _meets(inside, span):
            continue
        if not header:
            why = "the policy forwarded-header is none, so all that comes through it counts as inside"
        else:
            why = f"see that it writes {header} itself, since that decides who is inside"
        found.append(f"the trusted proxy {range_text(proxy)} lies in an inside range: {why} (D24)")
    return tuple(found)


def header_text(farm: Farm) -> str:
    """The header by which a trusted proxy names the caller, as it is written; empty when none is believed."""
    header = farm.policy("forwarded-header")
    return {"x-forwarded-for": "X-Forwarded-For", "forwarded": "Forwarded"}.get(header, "")


def enumerate_ranges(networks: Sequence[Network]) -> str:
    """The ranges for a sentence, not too many of them, in the order of their addresses."""
    shown = [range_text(network) for network in sorted(networks, key=_place)]
    if len(shown) > 12:
        return f"{', '.join(shown[:12])} and {len(shown) - 12} more"
    return ", ".join(shown)


def _exceptions(farm: Farm) -> tuple[str, ...]:
    """Where the policy C{referral} says otherwise than the ranges."""
    by_value: dict[str, list[str]] = {}
    for name in farm.domains:
        by_value.setdefault(farm.policy("referral", name), []).append(name)
    said = {
        "never": "nobody is referred, wherever the call comes from",
        "always": "everybody is referred, wherever the call comes from",
    }
    return tuple(
        f"But the policy referral is {value} for {enumerate_names(by_value[value])}: {meaning}."
        for value, meaning in said.items()
        if value in by_value
    )


def _too_wide(farm: Farm, kind: str) -> Iterable[str]:
    """The ranges of C{kind} that leave hardly anybody out."""
    consequences = {
        "inside": "outsiders would be referred to homes that they cannot reach",
        "trusted-proxy": "any caller could claim any address",
        "call-back": "the homes could be made to call anybody",
    }
    spans = ranges_of(farm, kind).spans
    v4 = sum(max(0, min(span.last, ALL_V4.last) - max(span.first, ALL_V4.first) + 1) for span in spans)
    v6 = sum(span.last - span.first + 1 for span in spans) - v4
    for count, limit, name in ((v4, _NEARLY_ALL_V4, "IPv4"), (v6, _NEARLY_ALL_V6, "IPv6")):
        if count >= limit:
            yield f"nearly every {name} address counts as {kind}: {consequences[kind]} (D24)"


def _meets(ranges: Ranges, span: Span) -> bool:
    """Has C{span} an address in common with C{ranges}?"""
    return any(one.first <= span.last and span.first <= one.last for one in ranges.spans)


def _oddities(networks: Sequence[Network], repeated: int) -> tuple[str, ...]:
    """What an administrator may not have meant: ranges given twice, overlapping, or one after the other."""
    notes = [f"{repeated} of the ranges were given more than once."] if repeated else []
    widest: tuple[Span, Network] | None = None
    for network in networks:
        span = span_of(network)
        if span is None:
            continue
        if widest is not None and span.first <= widest[0].last + 1:
            how = "overlap" if span.first <= widest[0].last else "adjoin each other"
            notes.append(f"{range_text(widest[1])} and {range_text(network)} {how}; both are kept.")
        if widest is None or span.last > widest[0].last:
            widest = (span, network)
    return tuple(notes)


def _place(network: Network) -> tuple[int, int]:
    """For sorting: by address, the wider one of two that begin alike first."""
    span = span_of(network)
    return (-1, 0) if span is None else (span.first, -span.last)


def _parse_network(kind: str, text: str) -> Network:
    """The range that C{text} means.

    @raise Refused: it means none, or nothing counts as C{kind}.
    """
    if kind not in NETWORK_KINDS:
        raise Refused(f'no range counts as "{kind}"; give one of {", ".join(NETWORK_KINDS)}')
    return Network(kind, *parse_range(text))
