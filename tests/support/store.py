"""A directory in a database of its own, for one test."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.store import Store


def make_folder(test: SynchronousTestCase) -> Path:
    """A folder that is gone after C{test}."""
    folder = tempfile.TemporaryDirectory(prefix="rvpfarm-test-")
    test.addCleanup(folder.cleanup)
    return Path(folder.name)


def open_store(test: SynchronousTestCase, folder: Path) -> Store:
    """The store in C{folder}, with its farm key; it may still have to be initialised."""
    key_file = folder / "farm.key"
    key = FarmKey.load(key_file) if key_file.exists() else FarmKey.create(key_file)
    store = Store(f"sqlite:///{folder / 'directory.sqlite'}", key)
    test.addCleanup(store.close)
    return store


def make_store(test: SynchronousTestCase, folder: Path | None = None) -> Store:
    """An empty directory."""
    store = open_store(test, folder or make_folder(test))
    handlers.init(store, actor="test")
    return store


def make_farm_store(test: SynchronousTestCase, folder: Path | None = None) -> Store:
    """A directory with one domain, C{im.fabrik.example}, and the homes C{hs1} and C{hs2}."""
    store = make_store(test, folder)
    handlers.add_domain(store, "im.fabrik.example", ["fabrik.example"], ["omnent"], "FABRIK", actor="test")
    for name in ("hs1", "hs2"):
        handlers.create_home(store, name, f"{name}.fabrik.example", actor="test")
    return store
