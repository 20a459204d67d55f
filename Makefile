# Everything lives in .venv in the checkout; a fresh machine needs only Python 3.11 or later and make.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Without a GPU these versions of torch are asked for. Where pip knows an index with CPU builds (PIP_EXTRA_INDEX_URL, see
# PyTorch's page on installing) it takes those, which are ten times smaller; else, on Linux, CUDA builds of several GB.
CONSTRAINTS := -c .ci/constraints.txt $(shell nvidia-smi -L >/dev/null 2>&1 || echo -c .ci/constraints-cpu.txt)
PINS := pyproject.toml .ci/constraints.txt .ci/constraints-cpu.txt

.PHONY: help env demo test test-long peers chromium lint format bench clean

help:
	@sed -n 's/^## //p' Makefile

## make env        .venv with every extra (a no-op when up to date)
env: .venv/env.stamp

## make demo       set up what the demo needs (no torch) and run it
demo: .venv/base.stamp
	$(BIN)/aesampler demo

## make test       set up everything, run the tests
test: env
	$(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile

## make test-long  chaos, soak, cluster, browser and training tests
test-long: env chromium
	@$(MAKE) --no-print-directory peers || test -z "$$CI" || exit 2
	$(BIN)/python -m pytest -m long --timeout 1200

## make peers      .venv-peers with the clients whose pins clash with ours; where it fails, their tests say so
peers: .venv-peers/peers.stamp

## make chromium   a browser for the browser tests, where this is root and has apt-get
chromium:
	@command -v chromium >/dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && timeout 600 apt-get update -qq >/dev/null 2>&1 && \
		DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1; \
	} || echo "no chromium, and it could not be installed here: the browser tests will be skipped"

## make lint       ruff, ruff format, mypy --strict
lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## make format     let ruff put right what it can
format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## make bench      speed and memory beside peers, as ratios
bench: env
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .venv-peers build dist *.egg-info

# A virtual environment that lacks pip was interrupted in the making; it is made again.
.venv/venv.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "aesampler needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1); make PYTHON=/path/to/python3.11"; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@touch $@

.venv/base.stamp: $(PINS) | .venv/venv.stamp
	$(PIP) install --quiet $(CONSTRAINTS) --editable .
	@touch $@

.venv/env.stamp: $(PINS) | .venv/venv.stamp
	$(PIP) install --quiet $(CONSTRAINTS) --editable '.[dev]'
	@touch .venv/base.stamp $@

# A build that failed or was interrupted leaves no stamp, and is made again from nothing.
.venv-peers/peers.stamp: benchmarks/requirements-peers.txt .ci/constraints-cpu.txt
	@$(PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip --disable-pip-version-check install --quiet -c .ci/constraints-cpu.txt -r benchmarks/requirements-peers.txt
	@touch $@
