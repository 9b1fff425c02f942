# Everything a developer does. `make` alone lists it. Needs Python 3.11 or newer with venv, nothing else.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
PY := .venv/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check
# Half of what tests do is wait for processes and the database: two at once a core, and no more than the database bears.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 6 ? 2 * n : 12)))
SECONDS ?= 300
FUZZ_SECONDS := $(if $(filter command\ line environment,$(origin SECONDS)),$(SECONDS),60)
RUNS ?= 5000
SEED ?=

.PHONY: help demo up test test-poll live chaos fuzz bench check format lint types imports requirements openapi lint-openapi clean

help: ## Show this list
	@echo "Runledger: submit an action over HTTP, watch its run to the end. One PostgreSQL holds everything."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.local ## See three runs end: starts everything, shows them live, stops everything
	@$(PY) scripts/demo.py

up: .venv/.local ## Start the database, the API and a worker, and print the URL (Ctrl-C stops them)
	@$(PY) -m app.cli up

test: .venv/.dev ## Run the tests, on a real PostgreSQL that comes along
	@$(PY) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-poll: .venv/.dev ## Run the tests that a worker takes part in with NOTIFY off: everything happens by polling
	@NOTIFY=off $(PY) -m pytest -n $(WORKERS) --dist worksteal tests/engine tests/runs tests/routers tests/acceptance $(ARGS)

chaos: .venv/.dev ## Faults at random over 5,000 runs (SECONDS=300, RUNS=5000, SEED=…)
	@PYTHONPATH=.:api SECONDS=$(SECONDS) RUNS=$(RUNS) SEED=$(SEED) $(PY) -m tests.faults.chaos

check: lint types imports test test-poll ## Everything that must be green: format, lint, types, architecture, tests

lint: .venv/.dev
	@$(PY) -m ruff format --check --quiet . && $(PY) -m ruff check --quiet . && echo "lint: ok"

types: .venv/.dev
	@$(PY) -m basedpyright

imports: .venv/.dev
	@.venv/bin/lint-imports >.venv/imports.log && echo "imports: ok" || { cat .venv/imports.log; exit 1; }

format: .venv/.dev ## Format the code and mend what can be mended
	@$(PY) -m ruff format --quiet . && $(PY) -m ruff check --fix --quiet .

bench: .venv/.bench ## Measure API and worker beside their peers (a quarter of an hour); ARGS="--only drain --rounds 1"
	@$(PY) bench/run.py $(ARGS)

openapi: .venv/.local ## Write docs/reference/openapi.json and actions.md from the code, and add what is new to promises.txt
	@$(PY) -m app.openapi > docs/reference/openapi.json && $(PY) -m app.openapi docs/reference/promises.txt
	@$(PY) -m app.catalogue > docs/reference/actions.md

lint-openapi: ## Lint docs/reference/openapi.json with Redocly's strictest rules (needs npx)
	@REDOCLY_TELEMETRY=off npx --yes @redocly/cli@2.77.0 lint --extends=recommended-strict docs/reference/openapi.json

live: .venv/.dev ## Call other people's services, each once, where .env or the environment has a key (ARGS="-k deepl")
	@LIVE=on $(PY) -m pytest tests/live $(ARGS)

fuzz: .venv/.dev ## Made-up requests against the API, by its OpenAPI document (SECONDS=60, SEED=…)
	@PYTHONPATH=.:api SECONDS=$(FUZZ_SECONDS) SEED=$(SEED) $(PY) -m tests.fuzz

requirements: .venv/.local ## Pin the newest versions that pyproject.toml allows, with hashes
	@for group in "" local dev bench; do \
		$(PY) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
			--no-annotate pyproject.toml $${group:+--group $$group} -o requirements/$${group:-runtime}.txt; done

clean: ## Remove what was set up: .venv and the embedded database
	@rm -rf .venv .data .pytest_cache .ruff_cache .hypothesis

.venv/.local: requirements/local.txt pyproject.toml
	@$(call install,local)

.venv/.bench: requirements/bench.txt pyproject.toml
	@$(call install,bench)

.venv/.dev: requirements/dev.txt pyproject.toml
	@$(call install,dev)

# Not compiled: Python does that for what is imported, and most of it is not, in the first minutes.
define install
	test -n "$(PYTHON)" || { echo "Runledger needs Python 3.11 or newer with venv; set PYTHON=/path/to/python3."; exit 1; }; \
	echo "Setting up .venv from requirements/$(1).txt (once; about a minute) …"; \
	test -x $(PY) || "$(PYTHON)" -m venv .venv; \
	{ $(PIP) --no-compile --require-hashes -r requirements/$(1).txt 2>.venv/pip.log || touch .venv/failed; } \
		| awk '/^(Collecting|Requirement already)/ { printf "\r  %d packages", ++n; fflush() } \
			/^Installing/ { printf ", installing" } END { print "" }'; \
	if test -e .venv/failed; then rm .venv/failed; cat .venv/pip.log; exit 1; fi; \
	$(PIP) --quiet --no-deps --no-build-isolation -e . && touch .venv/.$(1) && echo "Ready."
endef
