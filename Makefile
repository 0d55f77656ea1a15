# Two commands matter: `make farm` runs a whole demo farm, `make test` runs every test.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
# The LDAP client is compiled: tests with it are left out where OpenLDAP's headers (libldap-dev) are missing.
LDAP = $(if $(wildcard /usr/include/ldap.h),$(comma)ldap)
comma = ,

.PHONY: farm test test-slow bench bench-plots chaos simulation fuzz fuzz-short lint types docs clean

farm: $(INSTALLED)
	@exec $(BIN)/twistd --nodaemon --pidfile= --logger rvpfarm.observe.logs.quiet rvp-farm $(FARM)

test: $(INSTALLED)
	$(BIN)/python -m pytest $(TESTS)

# What takes long, and Kerberos with a KDC of its own, which is left out where Debian's krb5-kdc,
# krb5-admin-server, krb5-user and libkrb5-dev are not installed.
test-slow: $(if $(shell command -v krb5-config),$(VENV)/.kerberos,$(INSTALLED))
	$(BIN)/python -m pytest -m slow $(TESTS)

# Ten rounds of kill -9 under load; `make test` runs two.
chaos: $(INSTALLED)
	RVPFARM_CHAOS_ROUNDS=10 $(BIN)/python -m pytest -s tests/farm/test_chaos.py

# 400 runs of a farm in one process in which everything goes wrong that can (docs/simulation.md).
# SIMULATION='--seed 7' replays one run.
simulation: $(INSTALLED)
	$(BIN)/python -m tests.simulation $(or $(SIMULATION),--runs 400)

# Beside Debian's nginx, haproxy, prosody and ejabberd, with its wrk and gcc; what is missing is named
# (docs/performance.md).  BENCH='--row 1 --rounds 5 --seconds 20' asks for something else.
bench: $(INSTALLED)
	$(BIN)/python -m tests.bench --json build/bench.json $(BENCH)

# Draws docs/performance-*.svg from what `make bench` wrote and, if it is there, what tests/bench/scale.py wrote.
bench-plots: $(INSTALLED)
	$(BIN)/python -m tests.bench.plots build/bench.json --scale build/scale.json

# A million inputs for every reader of what strangers send, two readers at a time; with atheris where there
# is one for this Python.  FUZZ='--target reader --seed 7' asks for something else.
fuzz: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz --runs 1000000 --jobs 2 $(FUZZ)

# The same for some twenty seconds in all, with the engine of our own.
fuzz-short: $(INSTALLED)
	$(BIN)/python -m tests.fuzz --engine random --total-seconds 16 --jobs 2 $(FUZZ)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/pydoctor

# An editable install: twistd finds the plugins of this checkout.
$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev$(LDAP)]'
	@touch $@

$(VENV)/.kerberos: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,kerberos]'
	@touch $@

$(VENV)/.fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
