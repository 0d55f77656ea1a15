"""The C{rvp} command: log in, send, watch and ask for the state, from a terminal or a script."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure

from rvpfarm.client import jobs
from rvpfarm.client.errors import NotDone
from rvpfarm.client.names import parse_address
from rvpfarm.client.output import Output, harmless
from rvpfarm.client.session import PRESENCE_SECONDS, Session
from rvpfarm.discovery.lookup import DEFAULT_PORT, NotLocated, split_host_port
from rvpfarm.protocol.calls import Unreachable
from rvpfarm.protocol.headers import Ack
from rvpfarm.protocol.properties import STATES

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Work = Callable[[Any], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Settings:
    """Who asks, and by which way; C{None} for what was not said."""

    address: str | None = None
    password: str | None = None
    dns: str | None = None
    server: str | None = None
    as_json: bool = False

    def over(self, other: Settings) -> Settings:
        """These settings, and those of C{other} where these are silent."""
        return Settings(
            self.address or other.address,
            self.password if self.password is not None else other.password,
            self.dns or other.dns,
            self.server or other.server,
            self.as_json or other.as_json,
        )


def _common(environment: bool) -> Callable[[_Function], _Function]:
    """The options that may stand before or after the name of a command.

    @param environment: also read them from the environment.
    """

    def variable(name: str) -> str | None:
        return name if environment else None

    def add(function: _Function) -> _Function:
        options: tuple[Callable[[_Function], _Function], ...] = (
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line."),
            click.option(
                "--server",
                metavar="HOST:PORT",
                envvar=variable("RVP_SERVER"),
                help="The server of your domain, instead of looking it up [RVP_SERVER].",
            ),
            click.option(
                "--dns",
                metavar="IP:PORT",
                envvar=variable("RVP_DNS"),
                help="The DNS server to ask, instead of the system's [RVP_DNS].",
            ),
            click.option(
                "--password",
                envvar=variable("RVP_PASSWORD"),
                help="Your password [RVP_PASSWORD]; asked for when missing.",
            ),
            click.option(
                "--as",
                "address",
                metavar="ADDRESS",
                envvar=variable("RVP_ADDRESS"),
                help="Who you are: name@domain [RVP_ADDRESS].",
            ),
        )
        for option in options:
            function = option(function)
        return function

    return add


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@_common(environment=True)
@click.pass_context
def rvp(context: click.Context, /, **options: Any) -> None:
    """Presence and instant messages over RVP."""
    context.obj = Settings(**options)


@rvp.command()
@_common(environment=False)
@click.option("--state", type=click.Choice(sorted(STATES)), default="online", show_default=True)
@click.option("--count", type=click.IntRange(min=1), help="Log out after so many messages.")
@click.pass_obj
def login(before: Settings, /, state: str, count: int | None, **options: Any) -> None:
    """Be present and print messages until Ctrl-C."""
    settings, out = _begin(before, options)
    ears = jobs.Ears(out, messages=count or 0)
    _run(settings, ears, lambda session: jobs.log_in(session, out, ears, state))


@rvp.command()
@_common(environment=False)
@click.option(
    "--ack",
    type=click.Choice([ack.value for ack in Ack], case_sensitive=False),
    default=Ack.DEEP_OR.value,
    show_default=True,
    help="Who must have it: the home server, one client, all clients.",
)
@click.argument("recipient", metavar="ADDRESS")
@click.argument("text")
@click.pass_obj
def send(before: Settings, /, recipient: str, text: str, ack: str, **options: Any) -> None:
    """Send TEXT to ADDRESS, and say whether it arrived.  A TEXT of - is read from the standard input."""
    _check_address(recipient)
    if text == "-":
        text = sys.stdin.read().removesuffix("\n")
    if not text:
        raise click.UsageError("there is nothing to send")
    settings, out = _begin(before, options)
    _run(settings, None, lambda session: jobs.send(session, out, recipient, text, ack))


@rvp.command()
@_common(environment=False)
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many changes.")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.pass_obj
def watch(before: Settings, /, addresses: tuple[str, ...], count: int | None, **options: Any) -> None:
    """Print the state of each ADDRESS, and every change of it until Ctrl-C."""
    for address in addresses:
        _check_address(address)
    settings, out = _begin(before, options)
    ears = jobs.Ears(out, changes=count or 0)
    _run(settings, ears, lambda session: jobs.watch(session, out, ears, addresses))


@rvp.command()
@_common(environment=False)
@click.option(
    "--seconds",
    type=click.IntRange(60, 14400),
    default=PRESENCE_SECONDS,
    show_default=True,
    help="How long a state that you set lasts.",
)
@click.argument("what", metavar="[STATE|ADDRESS]", default="")
@click.pass_obj
def status(before: Settings, /, what: str, seconds: int, **options: Any) -> None:
    """Print your own state or that of ADDRESS, or show STATE for a while."""
    if what and what not in STATES:
        if "@" not in what and "://" not in what:
            raise click.UsageError(f"{what!r} is neither an address nor one of {', '.join(sorted(STATES))}")
        _check_address(what)
    settings, out = _begin(before, options)
    _run(settings, None, lambda session: jobs.status(session, out, what, seconds))


def _check_address(text: str) -> None:
    """Refuse what is no address before anybody is asked for a password.

    @raise click.UsageError: it is none.
    """
    try:
        parse_address(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _begin(before: Settings, options: dict[str, Any]) -> tuple[Settings, Output]:
    """The settings of one command, complete, and where it prints.

    @raise click.UsageError: something is missing or nonsense.
    """
    settings = Settings(**options).over(before)
    if not settings.address:
        raise click.UsageError("who are you? --as name@domain, or RVP_ADDRESS")
    _check_address(settings.address)
    for name, value in (("--dns", settings.dns), ("--server", settings.server)):
        try:
            split_host_port(value or "x", DEFAULT_PORT)
        except ValueError as error:
            raise click.UsageError(f"{name}: {error}") from None
    if settings.password is None:
        try:
            password = click.prompt(f"Password of {settings.address}", hide_input=True, err=True)
        except click.Abort:
            raise click.UsageError("there is no password: --password, or RVP_PASSWORD") from None
        settings = replace(settings, password=password)
    return settings, Output(_line, as_json=settings.as_json)


def _line(text: str) -> None:
    """Print one line at once, whoever reads it."""
    click.echo(text)
    sys.stdout.flush()


def _run(
    settings: Settings, ears: jobs.Ears | None, job: Callable[[Session], Coroutine[Any, Any, None]]
) -> None:
    """Do C{job} with a session on a reactor of its own."""

    async def work(reactor: Any) -> None:
        session = await Session.open(
            settings.address or "",
            settings.password or "",
            reactor=reactor,
            dns=settings.dns,
            server=settings.server,
            on_trouble=_complain,
            **(ears.options() if ears is not None else {}),
        )
        await job(session)

    problem = run_in_reactor(work)
    if problem is not None:
        _fail(problem)


def run_in_reactor(work: _Work) -> BaseException | None:
    """Run the reactor while C{work} lasts; Ctrl-C cancels it, and it may still tidy up.

    @param work: is given the reactor; no single interface says all that it needs of it.
    @return: how it failed; C{None} when it did not.
    """
    from twisted.internet import reactor as chosen

    reactor: Any = chosen
    debugging = bool(os.environ.get("RVP_DEBUG"))
    observers = [textFileLogObserver(sys.stderr)] if debugging else []
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)
    problems: list[BaseException] = []
    over: Deferred[None] = Deferred()

    def stop() -> Deferred[None]:
        if not over.called:
            job.cancel()
        return over

    def ended(outcome: object) -> None:
        if isinstance(outcome, Failure) and outcome.value is not None:
            problems.append(outcome.value)
        over.callback(None)
        if not shutdown_began:
            reactor.stop()

    shutdown_began: list[bool] = []
    reactor.addSystemEventTrigger("before", "shutdown", shutdown_began.append, True)
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    job: Deferred[None] = Deferred()

    def begin() -> None:
        nonlocal job
        job = Deferred.fromCoroutine(work(reactor))
        job.addBoth(ended)

    reactor.callWhenRunning(begin)
    reactor.run()
    return problems[0] if problems else None


def _complain(sentence: str) -> None:
    """Say that something does not work for the moment."""
    click.echo(f"rvp: {harmless(sentence)}; trying again", err=True)


def _fail(problem: BaseException) -> NoReturn:
    """End with one line that says what went wrong and what to try."""
    if isinstance(problem, NotLocated):
        sentence = f"{problem}; --server host:port names the server, --dns ip:port another DNS server"
    elif isinstance(problem, Unreachable):
        sentence = f"{problem}; is the server running? --server host:port names another one"
    elif isinstance(problem, (NotDone, ValueError)):
        sentence = str(problem)
    elif isinstance(problem, CancelledError):
        sentence = "interrupted"
    else:
        if os.environ.get("RVP_DEBUG"):
            traceback.print_exception(problem)
        sentence = f"this should not happen: {type(problem).__name__}: {problem} (RVP_DEBUG=1 shows more)"
    click.echo(f"rvp: {harmless(sentence)}", err=True)
    sys.exit(1)


def main() -> None:
    """What the console script calls."""
    rvp(prog_name="rvp")
