PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test
demo: .venv/.ready ## set up, then the main job on the embedded default
	$(BIN)/aost demo

test: .venv/.ready ## set up, then every check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
