"""Directories that go when their test is over, whichever runner runs it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase


def folder(case: SynchronousTestCase) -> Path:
    """An empty directory for C{case}."""
    made = TemporaryDirectory(prefix="rvpfarm-test-")
    case.addCleanup(made.cleanup)
    return Path(made.name)
