# SkinCLIP-VL: `make run` starts the page, `make test` checks everything. Research use only - not a medical device.
#
#   make run PRESET=qwen-3b HOST=0.0.0.0 PORT=8000   another model, address or port
#   make run STUDY=studies/trust-study               a reader study
#   make run TORCH_INDEX=URL                         torch from an index of CPU builds: 1 GB, where CUDA's come to 5.8 GB
#   make run LOCKED=yes                             every package by its hash, from docs/deploy/requirements.lock
#   make audit                                      known vulnerabilities of these packages (asks a database on the web)
PYTHON ?= python3
TORCH_INDEX ?= $(shell cat .venv/.torch-index 2>/dev/null)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# An option of the page where its variable is given to make. Never from the environment, where HOST or PORT may be
# somebody else's word (conda sets HOST to the name of a compiler); the page's own variables there are SKINCLIP_*.
option = $(if $(filter command,$(origin $(1))),--$(2) '$($(1))')

.PHONY: run test lint audit clean

run: .venv/.runtime
	$(BIN)/python app.py $(call option,PRESET,preset) $(call option,HOST,host) $(call option,PORT,port) \
	  $(call option,STUDY,study)

test: .venv/.dev
	.ci/chromium
	.ci/postgres
	.ci/r
	.ci/proxies
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

# From an index of CPU builds come torch and torchvision alone, before everything else; whatever they need comes from
# where all packages come from. The index is kept in mind; an environment made without it, or of another, gets them anew.
ifneq ($(TORCH_INDEX),)
ifneq ($(TORCH_INDEX),$(shell cat .venv/.torch-index 2>/dev/null))
.PHONY: .venv/.torch
endif
endif

.venv/.torch: requirements.txt | .venv/bin/python
	$(if $(TORCH_INDEX),$(INSTALL) --force-reinstall --no-deps --index-url '$(TORCH_INDEX)' \
	  $(shell sed -nE 's/^(torch(vision)?==[^ ]+).*/\1/p' requirements.txt))
	@printf '%s' '$(TORCH_INDEX)' >.venv/.torch-index
	@touch $@

# A torch of an index of CPU builds is there already, without CUDA's libraries: they are left out of the lock as well.
LOCK := docs/deploy/requirements.lock
.venv/.runtime: requirements.txt $(LOCK) .venv/.torch
ifeq ($(LOCKED),yes)
	awk '/^[a-zA-Z]/ { skip = /^(torch|torchvision)==/ && "$(TORCH_INDEX)" || /^(nvidia|cuda|triton)/ && "$(TORCH_INDEX)" } \
	  !skip' $(LOCK) >.venv/requirements.lock
	$(INSTALL) --require-hashes --no-deps -r .venv/requirements.lock
else
	$(INSTALL) -r requirements.txt
endif
	@touch $@

# The tool has an environment of its own; exceptions stand in .ci/audit_exceptions, each with its reason.
audit:
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	.venv/audit/bin/pip-audit --require-hashes --disable-pip -r $(LOCK) \
	  $(shell sed -nE 's/^([A-Z]+-[A-Za-z0-9-]+) .*/--ignore-vuln \1/p' .ci/audit_exceptions)

.venv/.dev: requirements.txt requirements-dev.txt .venv/.torch
	$(INSTALL) -r requirements-dev.txt
	@# alone: it asks for opencv-python, which would lie over the headless build of the same module
	$(INSTALL) --no-deps quantus==0.6.0
	@touch .venv/.runtime $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
