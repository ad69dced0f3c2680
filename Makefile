# `make demo` and `make test` need nothing but Python 3.11 or later, and make.
PYTHON ?= python3
VENV := .venv
MINUTES := 10
# Each is a command, python -m benchmarks.NAME, and leaves docs/benchmarks/NAME.json.
SCENARIOS := latency outage sweep collector decay soak
INPUTS := 1000000
BIN := $(VENV)/bin
# pyenv keeps the other Pythons beside its shims, where tox would not find them.
SHIMS := $(filter %/shims,$(subst :, ,$(PATH)))
PYTHONS := $(wildcard $(addsuffix /../versions/3.1[1-9]*/bin,$(SHIMS)))
EMPTY :=
export PATH := $(subst $(EMPTY) $(EMPTY),:,$(PATH) $(PYTHONS))

# The same lock for every Python that flashsale runs on, and for every index.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast torture fuzz bench bench-full lint lock dist pin servers install clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

install: $(VENV)/.installed  ## Make the virtual environment, with flashsale in it

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flashsale needs Python 3.11 or later: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,report]' 'tox>=4.20'
	@touch $@

demo: install  ## Run the main job on SQLite and in memory: 20,000 purchase events
	@$(BIN)/flashsale demo

servers:  ## Install PostgreSQL and RabbitMQ where they are missing; needs root
	@tools/install-servers.sh

# Without the servers the tests that need them are skipped by name; in CI that is a failure.
test: install  ## Run everything: tests on each Python, lint, types, imports
	@tools/install-servers.sh || test -z "$$CI"
	$(BIN)/tox run

test-fast: install  ## Run the unit tests on one Python
	$(BIN)/python -m pytest tests/unit -q --numprocesses 3 --dist worksteal

torture: install  ## Break everything around the worker for ten minutes, and count
	@tools/install-servers.sh
	$(BIN)/python -m tests.torture --minutes $(MINUTES)

bench: install  ## Measure flashsale against its peers and against C, in five minutes
	@tools/install-servers.sh
	@tools/install-c-libraries.sh || true  # then all but the program in C are measured
	$(BIN)/python -m benchmarks --events 60000 --seconds 3 --output build/benchmarks/drain.json

bench-full: install  ## Measure everything that docs/performance.md tells; takes hours
	@tools/install-servers.sh
	@tools/install-c-libraries.sh || true  # then all but the program in C are measured
	$(BIN)/python -m benchmarks --rounds 5
	@failed=; for each in $(SCENARIOS); do \
	  $(BIN)/python -m benchmarks.$$each || failed="$$failed $$each"; done; \
	for page in scaling performance; do \
	  $(BIN)/python -m benchmarks.$$page || failed="$$failed $$page"; done; \
	test -z "$$failed" || { echo "failed, each to be run again by itself:$$failed" >&2; exit 1; }

fuzz: install  ## Read a million hostile events, and count
	@$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS)

lint: install  ## Run ruff, mypy, import-linter, vulture, deptry and bandit
	$(BIN)/tox run -e lint,types,imports,tidy,bandit

lock: install  ## Renew requirements/: the newest versions that setup.cfg allows, with hashes
	$(BIN)/python -m pip install --quiet 'uv>=0.9'
	$(LOCK) setup.cfg --output-file requirements/worker.txt
	$(LOCK) setup.cfg --extra test --extra report --constraint requirements/worker.txt --output-file requirements/test.txt
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
		| $(LOCK) - --output-file requirements/build.txt

dist: install  ## Build the sdist, and the wheel from it, into dist/
	$(BIN)/python -m pip install --quiet 'build>=1.2'
	$(BIN)/python -m build

pin:  ## Pin the image's base to what its tag is now; needs Docker and the registry
	tools/pin-image.sh

clean:  ## Remove what make has made
	rm -rf $(VENV) .tox build dist *.egg-info benchmarks/.venvs
