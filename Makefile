# make demo    from nothing to a trained classifier and its accuracy, in ./demo
# make demo VIDEOS=folder    a classifier of your own videos (util_scripts.train_videos), in ./demo
#                            [MINUTES=30]
# make test    the tests;  make lint    ruff and mypy;  make test-slow    those that take minutes
# make test-avx2    the numeric tests as a CPU without AVX-512 runs them;  make test-sse41    as the oldest
# make test-floor    the tests with the oldest versions that requirements.txt names, in .venv-floor
# make setup   the environment in .venv;  make clean   delete the generated demo and caches
# make fuzz    20,000 damaged files and hostile command lines (FUZZ_CASES, FUZZ_SEED)
# make bench   speed against the original's way of working, some minutes
# Each sets up its own environment in .venv first (torch is some 5 GB with its GPU libraries).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOOR := .venv-floor
VIDEOS ?=
MINUTES ?= 30
# Processes that run tests, of one thread each: their small models gain nothing from more.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.PHONY: setup demo test test-slow test-avx2 test-sse41 test-floor fuzz lint bench clean

setup: $(VENV)/ready

demo: $(VENV)/ready
	PYTHON=$(BIN)/python MINUTES="$(MINUTES)" sh demo.sh "$(VIDEOS)"

test: $(VENV)/ready-dev
	$(PYTEST)

test-slow: $(VENV)/ready-dev
	$(PYTEST) -m slow

# torch and its oneDNN keep to fewer instructions where these variables say so.
test-avx2: $(VENV)/ready-dev
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) -m "numeric and not slow"

test-sse41: $(VENV)/ready-dev
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(PYTEST) -m "numeric and not slow"

# TESTS names files to run instead of all; PYTHON=python3.10 is the oldest Python.
test-floor: $(FLOOR)/ready
	OMP_NUM_THREADS=1 $(FLOOR)/bin/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

fuzz: $(VENV)/ready-dev
	FUZZ_CASES=$${FUZZ_CASES:-20000} $(PYTEST) --dist load tests/test_fuzz.py

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks --json benchmarks.json

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.check_imports

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -r requirements.txt
	touch $@

$(VENV)/ready-dev: requirements-dev.txt requirements-extra.txt $(VENV)/ready
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	touch $@

$(FLOOR)/ready: requirements.txt requirements-extra.txt requirements-dev.txt
	$(PYTHON) -m venv --clear $(FLOOR)
	sed 's/ *#.*//; s/>=/==/' requirements.txt requirements-extra.txt > $(FLOOR)/floors.txt
	$(FLOOR)/bin/python -m pip install -q -r $(FLOOR)/floors.txt -r requirements-dev.txt
	touch $@

clean:
	rm -rf demo/pretraining demo/finetuning .pytest_cache .mypy_cache .ruff_cache  # not demo/own-*
