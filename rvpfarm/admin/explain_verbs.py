"""C{rvpfarm explain}: protocol logs in words."""

from __future__ import annotations

import sys

import click

from rvpfarm.admin.explaining import Explanation, LogReader, explain, parse_words, reason_of
from rvpfarm.admin.tables import show_json
from rvpfarm.admin.verbs import Verb, json_option


@click.command("explain", cls=Verb)
@click.argument("what", nargs=-1)
@json_option
def explain_verb(what: tuple[str, ...], as_json: bool) -> None:
    """Say in words what WHAT means, and what to do about it.

    WHAT is a status (412), a method and a status (NOTIFY 412), or a whole line of a protocol log: JSON, W3C
    extended, or of another server.  Without WHAT, lines are read from standard input.

    With --json: an array of objects with method, status (0 without one), reason, when, peer, node, purpose
    (of the method), meaning and remedy (empty without a status).
    """
    if what:
        found = [explain(seen) for seen in parse_words(what)]
    else:
        reader = LogReader()
        found = [explain(seen) for line in sys.stdin if (seen := reader.read(line)) is not None]
    if as_json:
        show_json([_record(one) for one in found])
        return
    if not found:
        click.echo("There is no method and no status in it.")
    for number, one in enumerate(found):
        if number:
            click.echo()
        _show(one)


def _show(one: Explanation) -> None:
    """For people."""
    seen = one.seen
    title = " ".join(word for word in (seen.method, str(seen.status or ""), reason_of(seen.status)) if word)
    where = [f"{name} {value}" for name, value in (("at", seen.when), ("from", seen.peer)) if value]
    click.echo(" ".join((title, *(f"({part})" for part in where))))
    if one.purpose:
        click.echo(f"  {seen.method} {one.purpose}.")
    if one.meaning is not None:
        click.echo(f"  Here: {one.meaning.text}." if one.purpose else f"  It says: {one.meaning.text}.")
        click.echo(f"  To do: {one.meaning.remedy}.")


def _record(one: Explanation) -> dict[str, object]:
    """For programs."""
    seen = one.seen
    return {
        "method": seen.method,
        "status": seen.status,
        "reason": reason_of(seen.status),
        "when": seen.when,
        "peer": seen.peer,
        "node": seen.node,
        "purpose": one.purpose,
        "meaning": "" if one.meaning is None else one.meaning.text,
        "remedy": "" if one.meaning is None else one.meaning.remedy,
    }
