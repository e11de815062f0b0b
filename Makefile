# make demo    from nothing to a trained classifier and its accuracy, in ./demo
# make demo VIDEOS=folder    the same with a folder of class folders
# make test    the tests;  make lint    ruff and mypy;  make test-slow    those that take minutes
# make bench   speed against the original's way of working, some minutes
# Each sets up its own environment in .venv first (torch is some 5 GB with its GPU libraries).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VIDEOS ?=

.PHONY: demo test test-slow lint bench clean

demo: $(VENV)/ready
	PYTHON=$(BIN)/python sh demo.sh "$(VIDEOS)"

test: $(VENV)/ready-dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/ready-dev
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks --json benchmarks.json

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -r requirements.txt
	touch $@

$(VENV)/ready-dev: requirements-dev.txt requirements-extra.txt $(VENV)/ready
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	touch $@

clean:
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache
