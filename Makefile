# `make run` and `make test` need no other command first; every target does its own setting-up.
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run test lint types format unit integration acceptance bench faults fuzz docs lock clean tools

PY := .venv/bin/python
PYTEST := $(PY) -m pytest

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv with what the hub needs to run, and nothing else
	@sh scripts/venv base

setup-dev: ## Make .venv with what tests, checks and benchmarks need as well
	@sh scripts/venv dev

run: setup ## Serve on 127.0.0.1:8000 (more options: make run ARGS="--port 9000 --config hub.toml")
	@exec $(PY) -m hub serve $(ARGS)

test: setup-dev tools ## Lint, check types and run all tests (some of them: make test ARGS="-k history")
	@$(MAKE) --no-print-directory lint types
	$(PYTEST) tests/unit tests/integration tests/acceptance $(ARGS)

unit: setup-dev ## Run the unit tests
	$(PYTEST) tests/unit $(ARGS)

integration: setup-dev ## Run the integration tests
	$(PYTEST) tests/integration $(ARGS)

acceptance: setup-dev tools ## Run the acceptance tests: processes, official SDKs, faults, fuzzing
	$(PYTEST) tests/acceptance $(ARGS)

lint: setup-dev ## Check style and likely mistakes
	$(PY) -m ruff check --output-format concise .
	$(PY) -m ruff format --check .

types: setup-dev ## Check types
	$(PY) -m mypy

format: setup-dev ## Put imports and layout in order
	$(PY) -m ruff check --fix --select I .
	$(PY) -m ruff format .

bench: setup-dev ## Measure fan-out, connects and memory against a C program, and print the figures
	@sh scripts/tools cc
	$(PY) -m benchmarks $(ARGS)

faults: setup-dev ## Kill the hub again and again under load, and count what was lost (ARGS="--rounds 10 --seed 1")
	$(PY) -m tests.faults.kill_restart $(ARGS)

fuzz: setup-dev ## Feed the running hub 100,000 malformed inputs (ARGS="--inputs 100000 --seed 1")
	$(PY) -m tests.faults.fuzz $(ARGS)

docs: setup-dev ## Write docs/settings.md from the settings' own descriptions
	$(PY) -m hub.settings_docs > docs/settings.md

lock: setup ## Pin requirements/*.in into *.txt with hashes (to newer versions: make lock ARGS=--upgrade)
	@sh scripts/lock $(ARGS)

tools: # Programs and packages that acceptance tests drive
	@sh scripts/tools node npm
	@sh scripts/npm

clean: ## Remove everything that make made
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov benchmarks/.build tests/acceptance/js/node_modules
	find . -name __pycache__ -type d -not -path './.git/*' -exec rm -rf {} +
