"""The sheet that a new user is handed: what to type where, for each client (core).

The original's administrators were told to pass on three things: the form of the IM address, the account, and
how to add the contact list's second service.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rvpfarm.directory.model import Account, Farm

_WIDTH = 78
#: Said where a password is.
_KEEP = "Keep this sheet to yourself: your password is on it, and nobody can look it up again."


@dataclass(frozen=True, slots=True)
class Sheet:
    """What one user needs to know.

    @ivar login: the account as a client with an NTLM window asks for it: C{FABRIK\\petra}, or the bare name.
    @ivar server: C{host:port} where RVP is spoken, the port only if it is not 80.
    @ivar password: only if it was made just now; else empty.
    """

    name: str
    address: str
    login: str
    alias: str
    netbios: str
    domain: str
    url: str
    server: str
    password: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """How to log in with one client.

    @ivar steps: sentences.
    @ivar commands: lines to be typed as they stand.
    """

    title: str
    steps: tuple[str, ...]
    commands: tuple[str, ...] = ()


def sheet_of(farm: Farm, account: Account, password: str = "") -> Sheet:
    """The sheet of C{account}.

    @param password: only if it was made just now.
    """
    domain = farm.domains[account.domain]
    ports = sorted(router.port for router in farm.routers.values() if router.state == "active")
    port = ports[0] if ports and 80 not in ports else 80
    return Sheet(
        name=account.display_name,
        address=account.address,
        login=f"{domain.netbios}\\{account.alias}" if domain.netbios else account.alias,
        alias=account.alias,
        netbios=domain.netbios,
        domain=account.domain,
        url=account.url,
        server=account.domain if port == 80 else f"{account.domain}:{port}",
        password=password,
    )


def facts_of(sheet: Sheet) -> Sequence[tuple[str, str]]:
    """The table at the top, name by value."""
    return (
        ("Your IM address", sheet.address),
        ("Your account", sheet.login),
        ("Your password", sheet.password or "as you were told, or have set yourself"),
    )


def sections_of(sheet: Sheet) -> tuple[Section, ...]:
    """How to log in, client by client."""
    path = sheet.url.removeprefix(f"http://{sheet.domain}")
    account = f"{sheet.login}, and your password" if sheet.netbios else f"{sheet.alias}, and your password"
    domain = f" (domain {sheet.netbios})" if sheet.netbios else ""
    return (
        Section(
            "Windows Messenger, and the Exchange instant messaging client",
            (
                "In Tools, Options, Accounts, say that your contacts include users of Exchange Instant "
                f"Messaging, and give {sheet.address} as your sign-in name.",
                f"When you are asked who you are, give {account}.",
            ),
        ),
        Section(
            "Miranda with the RVP plugin",
            (
                f"In Options, Network, RVP, give {sheet.address} as your sign-in name, {sheet.alias} as the "
                f"user name{domain}, and your password.",
            ),
        ),
        Section(
            "Pidgin with librvp",
            (
                f"Add an account of the protocol RVP: user name {sheet.address}, account name "
                f"{sheet.alias}{domain}, and your password.",
                f"If it does not find the server, give it as {sheet.server} under Advanced.",
            ),
        ),
        Section(
            "rvp, on the command line",
            ("It asks for your password, and shows your messages until you press Ctrl-C.",),
            (f"rvp --as {sheet.address} login",),
        ),
        Section(
            "curl, to see whether your account works",
            ("It asks for your password, and lists who watches you.",),
            (
                f"curl -i --digest -u '{sheet.alias}' -X SUBSCRIPTIONS \\",
                f"  'http://{sheet.server}{path}'",
            ),
        ),
    )


def render_text(sheets: Iterable[Sheet]) -> str:
    """The sheets as text, a form feed between them."""
    return "\f".join(_text(sheet) for sheet in sheets)


def _text(sheet: Sheet) -> str:
    facts = facts_of(sheet)
    width = max(len(name) for name, _ in facts)
    title = f"Instant messaging for {sheet.name}"
    lines = [title, "=" * len(title), ""]
    lines += [f"{name + ':':<{width + 2}}{value}" for name, value in facts]
    for section in sections_of(sheet):
        lines += ["", section.title, "-" * len(section.title)]
        for step in section.steps:
            lines += textwrap.wrap(step, _WIDTH, break_long_words=False, break_on_hyphens=False)
        lines += [f"    {command}" for command in section.commands]
    if sheet.password:
        lines += ["", _KEEP]
    return "\n".join(lines) + "\n"


_STYLE = """
@page { size: A4; margin: 18mm 20mm; }
body { font: 11pt/1.45 "Liberation Sans", Arial, sans-serif; color: #1a1a1a; background: #fff; margin: 0; }
article { max-width: 170mm; margin: 10mm auto; }
article + article { break-before: page; }
h1 { font-size: 19pt; font-weight: 600; margin: 0 0 6mm; padding-bottom: 2mm;
  border-bottom: 2px solid #1f5c8a; }
h2 { font-size: 11.5pt; margin: 6mm 0 1mm; color: #1f5c8a; break-after: avoid; }
section { break-inside: avoid; }
p { margin: 0 0 1.5mm; }
table { border-collapse: collapse; width: 100%; margin-bottom: 4mm; }
th { text-align: left; font-weight: normal; color: #555; padding: 2mm 6mm 2mm 3mm; width: 38mm; }
td { font-weight: 600; padding: 2mm 3mm; overflow-wrap: anywhere; }
tr { border-bottom: 1px solid #d5dde4; background: #f4f8fb; }
td.secret, pre { font-family: "Liberation Mono", "Courier New", monospace; }
pre { background: #f4f4f4; border-left: 3px solid #b9c9d6; padding: 2mm 3mm; margin: 1mm 0; font-size: 9.5pt;
  white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 8mm; padding-top: 2mm; border-top: 1px solid #d5dde4; color: #555; font-size: 9.5pt; }
@media print { article { margin: 0; max-width: none; } tr, pre { print-color-adjust: exact; } }
"""


def render_html(sheets: Iterable[Sheet]) -> str:
    """The sheets as one page of HTML, which prints each on paper of its own."""
    articles = "\n".join(_html(sheet) for sheet in sheets)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Welcome</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{articles}\n</body>\n</html>\n"
    )


def _html(sheet: Sheet) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f"<td{_secret(name, sheet)}>{html.escape(value)}</td></tr>\n"
        for name, value in facts_of(sheet)
    )
    sections = "".join(_section(section) for section in sections_of(sheet))
    footer = f"<footer>{_KEEP}</footer>\n" if sheet.password else ""
    return (
        f"<article>\n<h1>Instant messaging for {html.escape(sheet.name)}</h1>\n<table>\n{rows}</table>\n"
        f"{sections}{footer}</article>"
    )


def _secret(name: str, sheet: Sheet) -> str:
    return ' class="secret"' if sheet.password and name == "Your password" else ""


def _section(section: Section) -> str:
    steps = "".join(f"<p>{html.escape(step)}</p>\n" for step in section.steps)
    commands = html.escape("\n".join(section.commands))
    typed = f"<pre>{commands}</pre>\n" if commands else ""
    return f"<section>\n<h2>{html.escape(section.title)}</h2>\n{steps}{typed}</section>\n"
