.PHONY: setup demo test test-all test-qgis check

PY ?= python3
BIN := .venv/bin

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PY) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train]" --group dev
	touch .venv/ready

demo: setup
	$(BIN)/geosam demo --output demo

test: setup
	$(BIN)/python -m pytest
	tests_qgis/run

test-all: setup
	$(BIN)/python -m pytest -m ""
	tests_qgis/run

test-qgis:
	tests_qgis/run

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
