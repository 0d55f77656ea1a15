"""Whatever the OpenAPI document of the admin API allows, and what it does not, sent to a real server."""

from __future__ import annotations

import shutil
from unittest import TestCase

import pytest

from rvpfarm.admin import handlers
from rvpfarm.admin.administrators import add_administrator, create_token
from tests.support.adminserver import AdminServer
from tests.support.processes import BIN, free_ports, run
from tests.support.store import make_farm_store, make_folder

#: A program that makes requests of an OpenAPI document, most of them odd, and judges the answers.
PROGRAM = BIN / "schemathesis"

#: Requests of its own devising for each operation, besides those at every edge of the document.
EXAMPLES = 8

#: A document cannot say which names the directory has, nor how large a body of many texts becomes.
SETTINGS = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "422"]
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415", "422"]
"""

#: It learns names from answers, and would take its own rights away.
LOCKING_OUT = ("admin.remove", "admin.token.revoke")


@pytest.mark.farm
class SchemaTests(TestCase):
    """The server does as its document says, whoever asks for whatever."""

    def test_everything_else(self) -> None:
        """No request makes it fail, and each answer is one that the document has."""
        self.check(*(word for name in LOCKING_OUT for word in ("--exclude-operation-id", name)))

    def test_what_locks_out(self) -> None:
        """Nor does what takes administrators away."""
        self.check(*(word for name in LOCKING_OUT for word in ("--include-operation-id", name)))

    def check(self, *options: str) -> None:
        """Have a part of the document tried out."""
        if shutil.which(PROGRAM) is None:
            self.skipTest('there is no schemathesis; "pip install -e .[dev]" brings it')
        folder = make_folder(self)  # type: ignore[arg-type]  # any test case has addCleanup
        (folder / "settings.toml").write_text(SETTINGS)
        store = make_farm_store(self, folder)  # type: ignore[arg-type]
        handlers.set_policy(store, "address-form", "mail")  # or the machine's own DNS would be asked
        handlers.enable_user(store, "petra@fabrik.example", password="Blue-Kite-41")
        add_administrator(store, "tester", "farm")
        token = create_token(store, "tester").text
        (port,) = free_ports(1)
        server = AdminServer(self, folder, "--listen", f"127.0.0.1:{port}", "--plain")
        command = ["--config-file", str(folder / "settings.toml"), "run"]
        command += [f"http://127.0.0.1:{port}/v1/openapi.json", "--header", f"Authorization: Bearer {token}"]
        command += ["--phases", "coverage,fuzzing", "--mode", "all", "--max-examples", str(EXAMPLES)]
        command += ["--seed", "1", "--generation-deterministic", "--no-color", *options]
        done = run("env", "-C", folder, PROGRAM, *command, seconds=300)  # it leaves a cache where it runs
        self.assertEqual(done.status, 0, done.out + done.err)
        self.assertNotIn("Traceback", server.said())
        self.assertIsNone(handlers.check_audit(store))
