# Every target installs what it needs into .venv on first use, and is quick afterwards. Its progress goes to stderr, so
# that the output of a command can be piped: make run ARGS=--json | …
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
LOCK := shared/deployment/requirements.lock
STACK := tests/emulator
PEERS := tests/benchmarks/peers
# what marks that a group of packages is installed: of the function and the local stack, of tests and checks, of peers
PYTHON_STACK := $(VENV)/.stack
NODE_STACK := $(STACK)/node_modules/.stack
PYTHON_TOOLS := $(VENV)/.tools
NODE_TOOLS := $(STACK)/node_modules/.tools
NODE_PEERS := $(PEERS)/node_modules/.installed
# where the system has certificates, those: a proxy's own is among them
UV_CERTS := $(if $(wildcard /etc/ssl/certs/ca-certificates.crt),--system-certs)
UV_INSTALL = $(UV) pip install --quiet --compile-bytecode $(UV_CERTS) --python $(BIN)/python
NPM_INSTALL = npm install --no-save --loglevel=error --no-audit --no-fund
MENTORS ?=
ARGS ?=
AUDIT ?=
WORKERS ?= auto
MINUTES ?= 10
PORT ?= 8080

.PHONY: help install run up serve test soak lint lock bench clean

help: ## show this
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(NODE_TOOLS) $(PYTHON_TOOLS) ## create .venv and install all dependencies

run: $(NODE_STACK) $(PYTHON_STACK) ## one scheduled run on a local stack, from boot to summary (MENTORS=500)
	@$(BIN)/python -m tests.emulator run $(addprefix --mentors ,$(MENTORS)) $(ARGS)

up: $(NODE_STACK) $(PYTHON_STACK) ## the local stack, until Ctrl-C (MENTORS=500, ARGS='--no-tick …')
	@$(BIN)/python -m tests.emulator up $(addprefix --mentors ,$(MENTORS)) $(ARGS)

serve: $(PYTHON_STACK) ## the function alone, with settings from the environment (PORT=8080)
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

lock: install ## pin the deployed packages anew, and write shared/deployment/licences.md
	@$(UV) pip compile requirements.txt --output-file $(LOCK) --upgrade --quiet \
	  --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock'
	@$(UV_INSTALL) -r $(LOCK)
	@$(BIN)/python -m tests.licences

bench: install $(NODE_PEERS) ## measure this function beside its alternatives (ARGS='fan-out tail --rounds 5', ARGS=--quick)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

clean: ## remove what was installed and cached
	rm -rf $(VENV) $(STACK)/node_modules $(PEERS)/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, found {sys.version.split()[0]}: make PYTHON=python3.12 …")'
	@echo 'installing: $(VENV), with uv' >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv~=[0-9.]+' requirements-dev.txt)"

# the deployed versions, in every group, so that tests run on them
$(PYTHON_STACK): $(LOCK) $(STACK)/requirements.txt | $(UV)
	@echo 'installing: Python packages of the function and the local stack' >&2
	@$(UV_INSTALL) -r $(LOCK) -r $(STACK)/requirements.txt
	@touch $@

$(NODE_STACK): $(STACK)/package.json $(STACK)/package-lock.json
	@command -v npm >/dev/null || { echo 'npm is needed for the binaries of PostgREST and of the Supabase CLI: install Node.js 18 or newer' >&2; exit 1; }
	@echo 'installing: PostgREST' >&2
	@# not `npm ci`: it wants the lock to hold the binaries of every platform, npm puts in only this one's
	@$(NPM_INSTALL) --prefix $(STACK) --omit=dev >/dev/null
	@touch $@

$(PYTHON_TOOLS): $(PYTHON_STACK) requirements.txt requirements-dev.txt
	@echo 'installing: Python packages of tests and checks' >&2
	@$(UV_INSTALL) -r $(LOCK) -r requirements-dev.txt
	@touch $@

$(NODE_TOOLS): $(NODE_STACK)
	@echo 'installing: the Supabase CLI' >&2
	@$(NPM_INSTALL) --prefix $(STACK) >/dev/null
	@touch $@

$(NODE_PEERS): $(PYTHON_TOOLS) $(PEERS)/package.json $(PEERS)/package-lock.json tests/benchmarks/requirements.txt
	@command -v wrk >/dev/null || { echo "wrk is needed for the benchmark: install Debian's package wrk" >&2; exit 1; }
	@echo 'installing: packages of the benchmark' >&2
	@$(UV_INSTALL) -r $(LOCK) -r tests/benchmarks/requirements.txt
	@$(NPM_INSTALL) --prefix $(PEERS) >/dev/null
	@touch $@
