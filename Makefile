# SkinCLIP-VL: `make run` starts the page, `make test` checks everything. Research use only - not a medical device.
PYTHON ?= python3
PRESET ?= mini
HOST ?= 127.0.0.1
PORT ?= 7860
STUDY ?=
BIN := .venv/bin

.PHONY: run test lint clean

run: .venv/.runtime
	$(BIN)/python app.py --preset $(PRESET) --host $(HOST) --port $(PORT) $(if $(STUDY),--study $(STUDY))

test: .venv/.dev
	.ci/chromium
	.ci/postgres
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

lint: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; point to it with: make run PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.runtime: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/.dev: requirements.txt requirements-dev.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@# alone: it asks for opencv-python, which would lie over the headless build of the same module
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps quantus==0.6.0
	@touch .venv/.runtime $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
