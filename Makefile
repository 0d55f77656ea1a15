# Two commands matter: `make farm` runs a whole demo farm, `make test` runs every test.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.PHONY: farm test chaos lint types docs clean

farm: $(INSTALLED)
	@exec $(BIN)/twistd --nodaemon --pidfile= --logger rvpfarm.observe.logs.quiet rvp-farm $(FARM)

test: $(INSTALLED)
	$(BIN)/python -m pytest $(TESTS)

# Ten rounds of kill -9 under load; `make test` runs two.
chaos: $(INSTALLED)
	RVPFARM_CHAOS_ROUNDS=10 $(BIN)/python -m pytest -s tests/farm/test_chaos.py

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
