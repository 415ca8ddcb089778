# Every target needs only Python >= 3.11 with its venv module: `make PYTHON=python3.12 test` names another one.
PYTHON ?= python3
# Tests run on all cores, up to eight; those of one file go to one worker.
WORKERS = -n auto --maxprocesses 8 --dist loadfile

.PHONY: help setup browser demo test test-fast lint lock docs

help:
	@echo "make setup      build .venv with everything, pinned and checked by hash"
	@echo "make demo       curate, encode, train and sample drawn films, from start to end (leaves ./demo)"
	@echo "make test       run all tests, on all cores"
	@echo "make test-fast  run the tests that are not marked slow"
	@echo "make lint       check style, the rules of the house, the tables of the docs, and types"
	@echo "make lock       renew requirements.lock from pyproject.toml"
	@echo "make docs       renew the tables of the docs, and the outputs that the README shows"

setup:
	@$(PYTHON) .ci/setup.py

# Debian's chromium, for the tests that drive a browser.
browser:
	@$(PYTHON) .ci/browser.py

demo: setup
	.venv/bin/clipmill demo

test: setup browser
	.venv/bin/python -m pytest $(WORKERS)

test-fast: setup browser
	.venv/bin/python -m pytest $(WORKERS) -m "not slow"

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python .ci/house_rules.py
	.venv/bin/python .ci/docs_tables.py --check
	.venv/bin/mypy

# Universal: one file for every Python >= 3.11 and every system; no addresses, no paths of this machine.
lock: setup
	.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --all-extras --group dev \
	  --constraint .ci/lock.constraints pyproject.toml --output-file requirements.lock

docs: setup
	.venv/bin/python .ci/docs_tables.py
	CLIPMILL_TESTED=1 .venv/bin/python .ci/docs_blocks.py --write README.md
