"""What every verb of the C{rvpfarm} command has in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rvpfarm.admin import handlers
from rvpfarm.admin.checks import Refused
from rvpfarm.directory.model import DirectoryUnavailable
from rvpfarm.directory.store import Store, database_path

#: Reads print JSON with this option; the keys are named in each command's help.
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text.")

#: Changes only show what they would do with this option.
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")

#: What takes something away asks first, but not with this option.
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


class Failed(click.ClickException):
    """The command did not do it; exit status 1."""

    exit_code = 1

    def __init__(self, command_path: str, sentence: str) -> None:
        """
        @param command_path: such as C{rvpfarm home create}.
        """
        super().__init__(sentence)
        program, _, verb = command_path.partition(" ")
        self._prefix = f"{program}: {verb}: " if verb else f"{program}: "

    def show(self, file: Any = None) -> None:
        """Print the one line; never a traceback."""
        click.echo(self._prefix + self.message, file=file, err=file is None)


class Verb(click.Command):
    """A command whose expected failures are one sentence each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        try:
            return super().invoke(ctx)
        except (Refused, DirectoryUnavailable) as problem:
            raise Failed(ctx.command_path, str(problem)) from problem


class Noun(click.Group):
    """What verbs are done to."""

    command_class = Verb


class Farm:
    """What the options before the noun say: which directory, and which key."""

    def __init__(
        self,
        directory: str | None,
        key_file: Path | None,
        *,
        api: str | None = None,
        token: str | None = None,
        authority: str | None = None,
    ) -> None:
        """
        @param directory: the URL, or C{None} when nobody said.
        @param key_file: where the farm key is, or C{None} for its usual place.
        @param api: the admin API to go through, or C{None} for the directory itself.
        @param token: proves who asks there; C{authority} is the file of certificates to trust.
        """
        self.api, self.token, self.authority = api, token, authority
        self._directory = directory
        self._key_file = key_file
        self._store: Store | None = None

    @property
    def url(self) -> str:
        """The directory's URL.

        @raise click.UsageError: nobody said.
        """
        if self.api is not None:
            raise click.UsageError(
                'through --api only "rvpfarm api OPERATION" works; "rvpfarm api" lists what there is.'
            )
        if not self._directory:
            raise click.UsageError(
                "which directory? Give --directory sqlite:////var/lib/rvpfarm/directory.sqlite before the "
                "noun, or set RVPFARM_DIRECTORY."
            )
        return self._directory

    @property
    def key_file(self) -> Path | None:
        """Where the farm key is: as said, or beside the SQLite file."""
        if self._key_file is not None:
            return self._key_file
        database = database_path(self.url)
        return None if database is None else database.parent / "farm.key"

    @property
    def store(self) -> Store:
        """The directory, open until the command ends."""
        if self._store is None:
            self._store = handlers.open_store(self.url, self.key_file)
        return self._store

    def close(self) -> None:
        """The command ended."""
        if self._store is not None:
            self._store.close()


pass_farm = click.make_pass_decorator(Farm)
