# What a person, pre-commit and CI call. A machine needs python3 (3.11 or newer) and make; the rest goes into .venv.

PYTHON ?= python3
# An index of torch builds, e.g. the CPU one that PyTorch's install page names. Empty: pip's own choice.
TORCH_INDEX_URL ?=
# Options of `medgen3d demo`, e.g. --set training.mask_generator.steps=3000 for better pairs.
DEMO ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
# Unit tests of many parts at once, which `make check` leaves to `make test`.
SLOW_UNITS := $(addprefix tests/unit/,medgen3d/cli/test_config_costs.py medgen3d/evaluation medgen3d/recipes \
  medgen3d/registry medgen3d_stages/test_stepping.py)
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo check test soak clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED)  ## Two pairs at once; then phantoms, training, synthesis and a report page, on this machine
	@$(BIN)/medgen3d demo $(DEMO)

check: $(INSTALLED)  ## The fast loop, some minutes: linters, types, import rules, unit and architecture tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check . || { echo "Run $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest -x -q -n auto $(addprefix --ignore=,$(SLOW_UNITS)) tests/unit tests/architecture

test: check  ## What CI runs: check, then the contract, integration and end-to-end tests
	@$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=10 $(SLOW_UNITS) tests/e2e tests/integration tests/contract

soak: $(INSTALLED)  ## The property tests of tests/unit with thousands of new examples, and the long versions of other tests
	@$(BIN)/pytest -q --hypothesis-profile=soak --timeout=3600 tests/unit
	@$(BIN)/pytest -q --timeout=3600 -m soak tests/contract tests/integration tests/e2e

clean:  ## Remove caches and build output (to install anew, remove .venv as well)
	@rm -rf build dist medgen3d.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find platform stages tests -name __pycache__ -prune -exec rm -rf {} +

# torch goes first, so that TORCH_INDEX_URL decides its build and nothing else.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "medgen3d needs Python 3.11 or newer; name one with make PYTHON=python3.11"; exit 1; }
	@echo "Installing into .venv; torch is large, so this takes a few minutes ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) torch
	@$(PIP) --editable '.[dev]'
	@touch $@
