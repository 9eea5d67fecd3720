# Needs Python 3.11 or newer and make; everything else is fetched, pinned by hash.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
LOCK   := requirements.lock
STORM  := tests/crash/test_storm.py
PIN     = $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
          --no-annotate --no-emit-index-url --custom-compile-command "make lock"
# What the image can run: every extra but those for local servers and development.
IMAGE  := postgres mariadb mysql duckdb files s3 cel ddl

.DEFAULT_GOAL := help
.PHONY: env compile demo test lint bench bench-smoke bench-verify readme storm storm-mariadb soak mutants size differential interchange mysql lock clean help

help: ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(STAMP) ## build .venv from the lock

compile: $(STAMP) ## build the compiled executor in place, with the system's C compiler or ours
	@CDC_COMPILE=require $(BIN)/python setup.py --quiet build_ext --inplace

demo: $(STAMP) ## run the demo; ARGS=--once for the bounded, checked one
	@$(BIN)/cdc demo $(ARGS)

test: lint compile ## lint, types, structure, unit, property, integration and crash tests
	@$(BIN)/cdc doctor --require compiled > /dev/null
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore $(STORM)
	$(BIN)/python -m pytest $(STORM)
endif

lint: $(STAMP) ## ruff, cython-lint and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint --max-line-length 100 schemas sinks
	$(BIN)/mypy

bench: compile ## measure ours, Debezium and the servers' limit side by side (25 min); ARGS="--paths targets"
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/bench/run.py $(ARGS)

bench-smoke: compile ## see that the bench runs: few rows, no peers
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/bench/run.py --smoke

bench-verify: compile ## time cdc verify over ten million equal rows (5 GB of disk); ARGS="--rows 1000000"
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/bench/verify.py $(ARGS)

readme: $(STAMP) ## keep what was measured, and write the README's sections that are made of it
	@test ! -e build/bench.json || PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/bench/section.py build/bench.json
	@test ! -e build/soak.json || PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/crash/section.py build/soak.json
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/readme.py

storm: $(STAMP) ## kill workers at random under load and check what survived
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/crash/storm.py $(ARGS)

storm-mariadb: $(STAMP) ## the same between two MariaDB servers; ARGS="--rounds 12 --spread"
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/crash/maria/storm.py $(ARGS)

soak: $(STAMP) ## 1,000 kills over 10 million events, or SLICE=N slices of it; sums in build/soak.json
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/crash/soak.py $(if $(SLICE),--slices $(SLICE)) $(ARGS)

mutants: $(STAMP) ## put eighteen bugs into copies of the code and see the checker name each
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/crash/mutants/run.py $(ARGS)

size: $(STAMP) ## one transaction of 1 GiB, 2 GiB of foreign log, 10,000 tables: each with its bar
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/size/run.py $(ARGS)

differential: $(STAMP) ## 100,000 operations captured by us and by a live Debezium, event for event
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/differential/run.py $(ARGS)

interchange: $(STAMP) ## sinks of a live Debezium, in four forms, equal to the source; its slot taken over; INTERCHANGE_RECORD=1 keeps the topics
	@$(BIN)/python -m pytest tests/interchange/live.py tests/interchange/handover.py $(ARGS)

mysql: $(STAMP) ## real MySQL servers, fetched by apt into build/, and an old one: captured, written into, killed and compared
	@$(BIN)/python -m pytest $(wildcard tests/cdc/mysql/live*.py tests/sinks/targets/mysql/live*.py) $(ARGS)
	@MYSQL=8.0 $(BIN)/python -m pytest $(wildcard tests/cdc/mysql/live*.py) $(ARGS)

# A new lock needs uv, which is itself in the lock: the environment of the old lock will do.
lock: ## pin the dependencies again: all of them, and those of the image and of its build
	@test -x $(BIN)/uv || $(MAKE) env
	@cd . && $(PIN) --upgrade --all-extras pyproject.toml --output-file $(LOCK)
	@$(PIN) --constraints $(LOCK) $(IMAGE:%=--extra %) pyproject.toml \
	    --output-file docker/runtime.lock
	@$(PIN) --constraints $(LOCK) --group build --output-file docker/build.lock

clean: ## remove .venv and everything generated here (not the cache of the local stack)
	rm -f schemas/*.so sinks/*.so
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

# An environment is finished when its stamp is newer than what it was built from. Each half-built
# one is built again from nothing: pip keeps what an older lock had installed.
$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3"; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
