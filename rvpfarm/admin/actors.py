"""Who makes a change, when nobody says so."""

from __future__ import annotations

import getpass
import os


def default_actor() -> str:
    """The name of the OS user, or its number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"
