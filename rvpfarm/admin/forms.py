"""How commands find out which form an IM address has: by option, by policy, or by asking the DNS."""

from __future__ import annotations

import click

from rvpfarm.admin import srv
from rvpfarm.admin.addresses import RULES, Decision, Offer, Question, decide


class _Server(click.ParamType[tuple[str, int]]):
    """A DNS server: C{ADDRESS:PORT}."""

    name = "address"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Its address and port."""
        try:
            return srv.parse_server(str(value))
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


#: For options that name a DNS server.
DNS_SERVER = _Server()

#: Which rule goes before the policy when a user is enabled.
form_option = click.option(
    "--address-form",
    "rule",
    type=click.Choice(RULES),
    help="The mail address (mail) or NAME@IM-DOMAIN (im) as IM address, or the mail address if the DNS has "
    "its SRV record (srv).  [default: the policy address-form]",
)

#: Which DNS server is asked.
dns_option = click.option(
    "--dns",
    "server",
    envvar="RVPFARM_DNS",
    show_envvar=True,
    type=DNS_SERVER,
    metavar="ADDRESS:PORT",
    help="The DNS server to ask for SRV records.  [default: as this machine is set up]",
)


class Asker:
    """Decides forms, and asks the DNS once at most for each record."""

    def __init__(self, server: tuple[str, int] | None) -> None:
        """
        @param server: the DNS server to ask; C{None} asks those of this machine.
        """
        self._server = server
        self._known: dict[str, tuple[Offer, ...]] = {}

    def decide(self, question: Question) -> Decision:
        """The form.

        @raise Refused: the DNS has to be asked and cannot be.
        """
        if not question.needs_dns:
            return decide(question)
        record = question.record
        if record not in self._known:
            self._known[record] = srv.ask(record, self._server)
        return decide(question, self._known[record])


def warn(decision: Decision) -> None:
    """Say on standard error what is probably wrong with the DNS."""
    if decision.warning:
        click.echo(f"rvpfarm: warning: {decision.warning}", err=True)
