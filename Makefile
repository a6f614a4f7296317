.PHONY: setup demo test test-all test-qgis faults check plugin

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

# Files of tests side by side, each in one thread.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile
	tests_qgis/run

test-all: setup
	$(BIN)/python -m pytest -m ""
	tests_qgis/run

faults: setup
	$(BIN)/python -m pytest -m "" tests/faults

test-qgis:
	tests_qgis/run

plugin:
	$(PY) qgis_plugin/pack.py

# Of PyQt6 only its stubs are read, so the Qt libraries that it asks for are left out.
.venv-gate/ready: qgis_plugin/gate.txt
	$(PY) -m venv .venv-gate
	.venv-gate/bin/python -m pip install --quiet --requirement qgis_plugin/gate.txt
	.venv-gate/bin/python -m pip install --quiet --no-deps PyQt6==6.11.0
	touch .venv-gate/ready

check: setup .venv-gate/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	qgis_plugin/gate .venv-gate/bin
