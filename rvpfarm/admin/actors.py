"""Who makes a change, when nobody says so."""

from __future__ import annotations

import os
import pwd


def default_actor() -> str:
    """The name of the OS user, or its number where it has no name.

    The environment is not asked, where anybody may say anything.
    """
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
