# Every target works in a fresh clone: it first makes its own environment, in .venv.
#
#   make quickstart   generate scenes, train the bundled tiny models, evaluate, segment an image
#   make test         everything that must pass before a commit: format, lint, types, tests
#   make lint         format and lint, checked only
#   make types        mypy
#   make format       rewrite the code as `make test` wants it
#   make clean        remove caches and the quickstart's output; .venv stays
#
# Another Python:            make PYTHON=python3.12 test
# Another build of PyTorch:  make TORCH="torch==2.13.0 --index-url ..." test

PYTHON ?= python3
TORCH ?= torch==2.13.0
QUICKSTART ?= quickstart

BIN := .venv/bin
INSTALLED := .venv/.installed

# Two test processes on two cores, one thread each; nothing here asks the network for models. A file's tests run in one of them, so
# that what they share is made once; in the order of the folders, so that the long ones come first.
QUIET := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.PHONY: help quickstart test lint types format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

quickstart: $(INSTALLED)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/quickstart.sh "$(QUICKSTART)"

test: lint types
	$(QUIET) $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not gpu"

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@if [ -e "$(QUICKSTART)/.quickstart" ]; then rm -rf "$(QUICKSTART)"; fi
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# PyTorch first and alone: asked for together with the rest, pip may pick gigabytes of CUDA packages.
# No torchvision: transformers works without it, and a build that does not match PyTorch's breaks both.
$(INSTALLED): pyproject.toml
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "There is no '$(PYTHON)' here. Name a Python of 3.11 or newer: make PYTHON=/path/to/python3"; \
	  exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "modified-lisa needs Python 3.11 or newer; %s is %s. Name another one: make PYTHON=python3.12" % (sys.executable, sys.version.split()[0]))'
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@
