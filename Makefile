# Everything here runs in .venv, which is made at first use from the locks. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
# Whether a name on PATH is a working Python is found out by running it: a version manager's shim exists and fails.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 \
	&& { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# -qq: warnings about this machine's own pip settings are not news; errors are still shown.
STAMP := $(VENV)/installed
TEST_FLAGS ?= -q -n auto --dist loadfile

# Sets `lock` to this machine's lock; empty where none was made for it.
FIND_LOCK = lock=locks/workstation-$$(uname -m)-py$$($(BIN)/python -c 'import sys; print("%d%d" % sys.version_info[:2])').txt; \
	[ "$$(uname -s)" = Linux ] && [ -f $$lock ] || lock=

.PHONY: help demo test test-long check format format-check lint types locks clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: $(STAMP) ## the whole story on this machine, on drawn photos; DATA=DIR takes your labelled photos
	@$(BIN)/fieldmark demo $(if $(DATA),--data "$(DATA)")

test: $(STAMP) ## the tests, in a few minutes
	@$(BIN)/python -m pytest $(TEST_FLAGS)

test-long: $(STAMP) ## the same tests with the counts of a night run
	@FIELDMARK_TIER=long $(BIN)/python -m pytest $(TEST_FLAGS)

check: format-check lint types test ## what CI runs: format, lint, types, tests

format: $(STAMP) ## rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --exit-zero --quiet .

format-check: $(STAMP)
	@$(BIN)/ruff format --check .

lint: $(STAMP)
	@$(BIN)/ruff check .

types: $(STAMP)
	@$(BIN)/mypy

locks: $(STAMP) ## take the newest versions that pyproject.toml admits into locks/
	@$(BIN)/python locks/compile.py

clean: ## remove .venv and what the tools left
	@rm -rf $(VENV) dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Order-only: a folder's own time changes with every file in it.
$(STAMP): pyproject.toml $(wildcard locks/*.txt) | $(BIN)/python
	@$(FIND_LOCK); \
	if [ -n "$$lock" ]; then \
		echo "Installing the versions of $$lock into $(VENV) (a minute or more, 3 GB on disk)."; \
		$(PIP) install -qq --only-binary :all: --require-hashes --requirement $$lock; \
		$(PIP) install -qq --no-deps --no-build-isolation --editable .; \
	else \
		echo "No lock was made for $$(uname -sm) and this Python: installing the newest versions that fit into $(VENV)."; \
		$(PIP) install -qq --editable '.[trainer,mqtt,dev]'; \
	fi
	@touch $@

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Fieldmark needs Python 3.11, 3.12 or 3.13 with venv (Debian: apt-get install python3-venv)." >&2; exit 1; fi
	@echo "Making $(VENV) with $$($(PYTHON) --version)."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		echo "Only Python 3.11 has both TFLite runtimes; this one has LiteRT alone, so the gate cannot try the other."
	@$(PYTHON) -m venv $(VENV)
