"""Tab completion for the C{rvpfarm} command: of its own words, and of names that the directory has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import click
from click.shell_completion import CompletionItem, get_completion_class

from rvpfarm.admin.verbs import Farm, Verb
from rvpfarm.directory.administrators import administrators
from rvpfarm.directory.model import POLICIES
from rvpfarm.directory.reading import Reading

#: So many names are offered at most, and so long is the directory waited for.
NAMES_LIMIT, WAIT_SECONDS = 50, 2.0

SHELLS = ("bash", "zsh", "fish")

# whoever types an address means one word
_BASH = "COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}\n"

_Names = Callable[[Reading, str], list[str]]

#: Where names of each kind come from.
_KINDS: Mapping[str, _Names] = {
    "domain": lambda reading, _: list(reading.farm().domains),
    "home": lambda reading, _: [one.name for one in reading.farm().homes.values()],
    "router": lambda reading, _: [one.name for one in reading.farm().routers.values()],
    "server": lambda reading, _: [
        one.name for found in (reading.farm().homes, reading.farm().routers) for one in found.values()
    ],
    "user": lambda reading, begun: reading.addresses(begun, NAMES_LIMIT),
    "admin": lambda reading, _: [one.name for one in administrators(reading)],
    "policy": lambda reading, _: list(POLICIES),
}

#: What parameters mean, wherever they stand.
_ANYWHERE = {
    "domain": "domain",
    "domains": "domain",
    "home": "home",
    "owner": "user",
    "user": "user",
    "who": "user",
}

#: What parameters mean below a noun.
_BELOW = {
    ("admin", "name"): "admin",
    ("domain", "name"): "domain",
    ("home", "name"): "home",
    ("policy", "name"): "policy",
    ("router", "name"): "router",
    ("status", "names"): "server",
    ("user", "address"): "user",
}

#: Verbs whose name is to be a new one.
_MAKING = ("add", "create")


class Name(click.ParamType[str]):
    """A name that the directory may have; any text is taken."""

    name = "text"

    def __init__(self, kind: str) -> None:
        """
        @param kind: one of those in L{_KINDS}.
        """
        self._names = _KINDS[kind]

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so, silently none when the directory is away."""
        given = ctx.find_root().params
        directory, key_file = given.get("directory"), given.get("key_file")
        if not directory:
            return []
        found = names_beginning(str(directory), key_file, self._names, incomplete)
        return [CompletionItem(one) for one in found]


def names_beginning(directory: str, key_file: Path | None, names: _Names, begun: str) -> list[str]:
    """The names of one kind that begin with C{begun}, at most L{NAMES_LIMIT} and soon, or none at all.

    @param directory: its URL.
    """
    answer: SimpleQueue[list[str]] = SimpleQueue()

    def look() -> None:
        """Ask the directory."""
        farm = Farm(directory, key_file)
        try:
            with farm.store.read() as reading:
                answer.put(names(reading, begun))
        except Exception:
            # whatever it is, the shell is no place to say so, and the command itself will
            answer.put([])
        finally:
            farm.close()

    # a daemon thread: one that hangs must not keep the shell waiting
    Thread(target=look, daemon=True).start()
    try:
        found = answer.get(timeout=WAIT_SECONDS)
    except Empty:
        return []
    wanted = begun.lower()
    return [one for one in found if one.lower().startswith(wanted)][:NAMES_LIMIT]


def complete_names(top: click.Group) -> None:
    """Have every parameter below C{top} that is a name complete to those in the directory."""
    for noun, verb in _verbs(top):
        making = verb in _made_by(top.commands[noun])
        for parameter in verb.params:
            name = parameter.name or ""
            kind = _ANYWHERE.get(name) or _BELOW.get((noun, name))
            new = making and name == "name"
            if kind is not None and not new and isinstance(parameter.type, type(click.STRING)):
                parameter.type = Name(kind)


def _made_by(noun: click.Command) -> list[click.Command]:
    """The verbs of C{noun} itself that make something of a new name."""
    verbs = noun.commands if isinstance(noun, click.Group) else {}
    return [verbs[name] for name in _MAKING if name in verbs]


def _verbs(top: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Every verb, with the noun that it belongs to."""
    for noun, one in top.commands.items():
        waiting = [one]
        while waiting:
            command = waiting.pop()
            if isinstance(command, click.Group):
                waiting.extend(command.commands.values())
            else:
                yield noun, command


@click.command(cls=Verb)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete nouns, verbs, options and names with the Tab key.

    For bash: put eval "$(rvpfarm completion bash)" into ~/.bashrc; for zsh likewise into ~/.zshrc; for fish:
    rvpfarm completion fish > ~/.config/fish/completions/rvpfarm.fish.  Names come from the directory in
    RVPFARM_DIRECTORY.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell} is none of {', '.join(SHELLS)}.")
    script = kind(context.find_root().command, {}, "rvpfarm", "_RVPFARM_COMPLETE").source()
    click.echo(script.strip() + "\n" + (_BASH if shell == "bash" else ""), nl=False)
