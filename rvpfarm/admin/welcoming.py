"""Writes welcome sheets to a file that only its owner may read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from rvpfarm.admin.checks import Refused
from rvpfarm.admin.welcome import Sheet, render_html, render_text

#: For commands that make a password.
welcome_option = click.option(
    "--welcome",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a sheet for the user there, with the password; HTML if it ends in .html.",
)


def check_place(path: Path | None) -> None:
    """See that a sheet can be written there, before there is a password to put on it.

    @raise Refused: it cannot.
    """
    if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise Refused(f"cannot write {path}: there is no such folder, or it is not yours; give another path")


def write_sheets(path: Path, sheets: Sequence[Sheet], *, as_html: bool = False) -> None:
    """Write C{sheets}, for nobody else to read.

    @param as_html: as HTML, whatever the file's name ends in.
    @raise Refused: it cannot be done.
    """
    text = render_html(sheets) if as_html or path.suffix.lower() in (".html", ".htm") else render_text(sheets)
    try:
        path.unlink(missing_ok=True)  # or others who may read the old file could read the new one
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as problem:
        raise Refused(f"cannot write {path}: {problem.strerror}; give another path") from problem
