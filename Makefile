# Everything a newcomer types. `make test` builds its own environment in .venv and passes on a clean machine.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help test serve laws lint format types lock clients clean simulate pins nemesis bench-ring bench-device bench-crash bench-parts bench-healing bench-compare bench-stages bench-stalls

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
BIN := .venv/bin
READY := .venv/.ready
CLIENTS_READY := .venv-clients/.ready
SOURCES := swiftlike ring proxy storage_node tools tests benchmarks

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "swiftlike needs Python 3.11 or newer and $(PYTHON) is not: set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make environments: run 'apt install python3-venv' and try again" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

$(CLIENTS_READY): tests/compat/requirements.lock
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/compat/requirements.lock
	@touch $(CLIENTS_READY)

serve: $(READY) ## a whole cluster on this machine, in ./swiftlike-data, on port 8080 (SERVE="--port 9000 --devices 4")
	@$(BIN)/swiftlike serve $(SERVE)

test: $(READY) ## run the test suite (builds .venv first)
	$(BIN)/pytest -n 3 --dist worksteal

laws: $(READY) ## the ring's laws over thousands of random clusters (LAWS_EXAMPLES=5000)
	HYPOTHESIS_PROFILE=thorough $(BIN)/pytest -n 2 --dist worksteal --timeout 3600 tests/unit/ring/test_builder_laws.py

lint: $(READY) ## ruff: lint and format check
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(READY) ## ruff: rewrite what it can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: $(READY) ## mypy --strict
	$(BIN)/mypy

LOCKED := --quiet --strip-extras --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-find-links \
	--no-emit-trusted-host --no-annotate --no-header

clients: $(CLIENTS_READY) ## the Python clients of tests/compat, in .venv-clients (430 MB): AWS CLI, MinIO's, s3fs, pyarrow

lock: $(READY) ## refresh requirements.lock from pyproject.toml, and that of the clients
	$(BIN)/pip-compile $(LOCKED) --extra dev --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile $(LOCKED) --output-file tests/compat/requirements.lock tests/compat/requirements.in

SEEDS ?= 1000
FIRST ?= 0
simulate: $(READY) ## whole clusters in virtual time, each from one seed, with everything that may go wrong (SEEDS=10000 FIRST=0)
	$(BIN)/python -m tests.simulation.campaign --seeds $(SEEDS) --first $(FIRST)

pins: $(READY) ## look for each of the simulator's deliberate bugs again, where a change has moved the seed that finds it
	$(BIN)/python -m tests.simulation.pins

RUNS ?= 10
SEED ?= 0
nemesis: $(READY) ## real processes on three hosts under everything that may go wrong, one seed a run (RUNS=10 SEED=0)
	$(BIN)/python -m tests.cluster.nemesis --runs $(RUNS) --first $(SEED)

bench-ring: $(READY) ## the ring builder beside OpenStack Swift's (CPU seconds, moves, memory)
	$(BIN)/python -m benchmarks.ring

bench-device: $(READY) ## one device beside the machine's raw rates: its engine alone, then its process over the RPC
	$(BIN)/python -m benchmarks.device_engine
	$(BIN)/python -m benchmarks.device

bench-compare: $(READY) ## our cluster beside OpenStack Swift's under the same load (needs wrk and memcached), in about 5 minutes
	$(BIN)/python -m benchmarks.compare

bench-stages: $(READY) ## where the CPU of a PUT, a GET, a DELETE and a page goes, by process and by call (needs wrk)
	$(BIN)/python -m benchmarks.stages

bench-stalls: $(READY) ## 400 uploads to one worker that stall: its memory, and the disk once they vanish (takes 20 GB for a moment)
	$(BIN)/python -m benchmarks.stalled_uploads

OBJECTS ?= 1000000
bench-healing: $(READY) ## a pass over devices that agree beside OpenStack Swift's, missing copies, an emptied device (OBJECTS=100000; needs wrk)
	$(BIN)/python -m benchmarks.healing --objects $(OBJECTS)

CRASH_STATES ?= 600
KILLS ?= 300
bench-crash: $(READY) ## many more crash states (of each of 3 runs) and kills than `make test` tries, in about 10 minutes
	CRASH_STATES=$(CRASH_STATES) KILLS=$(KILLS) $(BIN)/pytest -n 2 --dist worksteal --timeout 0 --durations 0 \
		tests/engine/test_crash_states.py tests/engine/test_kill.py

bench-parts: $(READY) ## an object of 10,000 parts, all of which go with it (`make test` tries 2,500), in two minutes
	PARTS=10000 $(BIN)/pytest --timeout 0 tests/simulation/test_multipart.py -k thousands_of_parts

clean: ## remove the environment and caches
	rm -rf .venv .venv-clients .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
