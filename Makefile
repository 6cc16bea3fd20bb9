# Runway. `make` alone says what there is.
# Needs Python 3.11, make, git and a C toolchain; everything else comes from requirements.lock into .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help
# One target after the other: they share one environment and one machine.
.NOTPARALLEL:

# A version-switching shim may exist without the version behind it, so each candidate is asked.
SYSTEM_PYTHON := $(shell for p in python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
PYTHON := .venv/bin/python
BIN := .venv/bin

.PHONY: help up down reset test check simulate bench proto lock fmt environment

help:
	@echo "make up       start everything and replay the year of flights; Ctrl-C ends it, again resumes it"
	@echo "              FROM=2013-03-01  DAYS=60  SECONDS_PER_DAY=3  ENGINE=spark (Kafka and Spark join instead of DuckDB)"
	@echo "              PEOPLE=no: nobody approves, hurts a canary or breaks the launcher in your place"
	@echo "make down     stop what a crashed run left behind"
	@echo "make reset    forget all state: the next up starts over"
	@echo "make test     all tests;  ARGS='-k graph -m \"not slow\"' narrows them"
	@echo "make simulate whole histories of a small fleet with every fault there is;  SEEDS=2000  FIRST=0"
	@echo "make check    lint, format, types, import rules, contract"
	@echo "make bench    measure;  ONLY=id measures one"
	@echo "make fmt      format and fix what can be fixed"
	@echo "make proto    write the Python stubs again after a change in proto/"
	@echo "make lock     compile requirements.lock again after a change in pyproject.toml;  UPGRADE=1 takes newer versions"

environment:
ifeq ($(SYSTEM_PYTHON),)
	@echo "Runway needs Python 3.11, and neither python3.11 nor python3 here is one: install it and run make again." >&2
	@exit 1
else
	@$(SYSTEM_PYTHON) tools/environment.py make
endif

up: environment
	@$(PYTHON) -m stack up $(if $(FROM),--from $(FROM)) $(if $(DAYS),--days $(DAYS)) \
		$(if $(SECONDS_PER_DAY),--seconds-per-day $(SECONDS_PER_DAY)) $(if $(ENGINE),--engine $(ENGINE)) $(if $(filter no,$(PEOPLE)),--no-people)

down: environment
	@$(PYTHON) -m stack down

reset: environment
	@$(PYTHON) -m stack reset

test: environment
	$(BIN)/pytest $(ARGS)

check: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTHON) -m tools.contract lint
	$(PYTHON) -m tools.contract breaking
	$(PYTHON) -m tools.contract stale

simulate: environment
	$(PYTHON) -m tests.simulation --seeds $(or $(SEEDS),2000) $(if $(FIRST),--first $(FIRST))

bench: environment
	$(PYTHON) -m bench $(if $(ONLY),--only $(ONLY))

fmt: environment
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

proto: environment
	$(PYTHON) -m tools.contract generate

lock: environment
	$(PYTHON) tools/environment.py lock
