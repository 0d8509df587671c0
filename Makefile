PYTHON ?= python3
BIN := .venv/bin
# Two workers; what starts Ray or kills processes stays with one of them and begins first (tests/conftest.py).
PYTEST := $(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: demo test types tests test-all bench-smoke
demo: .venv/.ready ## set up, then the main job on the embedded default
	$(BIN)/aost demo

test: .venv/.ready ## set up, then every check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory --jobs=2 types tests

types: .venv/.ready # both cores are not always at work in the tests
	$(BIN)/mypy

tests: .venv/.ready
	$(PYTEST)

test-all: test ## the slow tests too: some 40 minutes more
	$(PYTEST) -m slow

bench-smoke: .venv/.ready ## every benchmark at its smallest size; writes nothing under results/
	$(BIN)/python tests/benchmarks/smoke.py

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
