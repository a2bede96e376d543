# Every target installs what it needs into .venv; `make test` and `make demo` work on a fresh machine.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
export OMP_NUM_THREADS ?= 2

.PHONY: install lint test test-all demo bench bench-peer chaos docs clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Two processes of one thread each: two of two would get in each other's way.
test test-all: export OMP_NUM_THREADS = 1

test: install
	$(BIN)/python -m pytest -n 2

test-all: install
	$(BIN)/python -m pytest -m '' -n 2

demo: install
	$(BIN)/plait demo -o demo-out

bench: install $(VENV)/mergekit/.installed
	$(BIN)/python benchmarks/merge.py --peer $(VENV)/mergekit/bin/mergekit-yaml

bench-peer: install $(VENV)/mergekit/.installed
	$(BIN)/python benchmarks/peer.py --peer $(VENV)/mergekit/bin

# Every moment at which a run can be killed, thousands of damaged files, and how soon Ctrl-C ends each command.
chaos: install
	PLAIT_CHAOS=1 $(BIN)/python -m pytest -n 2 -m '' tests/engine/test_crash.py tests/engine/test_hostile.py
	$(BIN)/python benchmarks/interrupt.py

# The peer has requirements of its own, so it gets an environment of its own.
$(VENV)/mergekit/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)/mergekit
	$(VENV)/mergekit/bin/python -m pip install -q -c constraints.txt torch
	$(VENV)/mergekit/bin/python -m pip install -q -c constraints.txt 'mergekit==0.1.5' 'pydantic<2.13'
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python docs/pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build site demo-out bench-out
