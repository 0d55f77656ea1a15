"""Tests: each mirrors a module of rvpfarm.

They run on the reactor that the daemons run on, unless the test runner has chosen one before.
"""

from rvpfarm.tap.reactor import install

install()
