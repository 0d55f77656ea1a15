"""A directory in a database of its own, for one test."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, create_engine
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory import postgresql
from rvpfarm.directory.store import Store

_urls: WeakKeyDictionary[Store, str] = WeakKeyDictionary()


def make_folder(test: SynchronousTestCase) -> Path:
    """A folder that is gone after C{test}."""
    folder = tempfile.TemporaryDirectory(prefix="rvpfarm-test-")
    test.addCleanup(folder.cleanup)
    return Path(folder.name)


def directory_url(test: SynchronousTestCase, folder: Path) -> str:
    """The address of the directory that belongs to C{folder}: a file in it, unless C{test} says otherwise."""
    where = getattr(test, "directory_url", None)
    return f"sqlite:///{folder / 'directory.sqlite'}" if where is None else where(folder)


def open_store(test: SynchronousTestCase, folder: Path) -> Store:
    """The store of C{folder}, with its farm key; it may still have to be initialised."""
    key_file = folder / "farm.key"
    key = FarmKey.load(key_file) if key_file.exists() else FarmKey.create(key_file)
    return store_at(test, directory_url(test, folder), key)


# The options are those of a store.
def store_at(test: SynchronousTestCase, url: str, key: FarmKey | None = None, **options: Any) -> Store:
    """A store that is closed after C{test}."""
    store = Store(url, key, **options)
    _urls[store] = url
    test.addCleanup(store.close)
    return store


def beside(test: SynchronousTestCase, store: Store, key: FarmKey | None = None, **options: Any) -> Store:
    """Another store of the same directory, as another process has it; without the farm key unless given."""
    return store_at(test, _urls[store], key, **options)


def engine_of(test: SynchronousTestCase, store: Store) -> Engine:
    """A way around a store, for what nobody else may do."""
    if store.servers is not None:
        engine = postgresql.make_engine(store.servers)
    else:
        engine = create_engine(f"sqlite:///{store.path}")
    test.addCleanup(engine.dispose)
    return engine


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
