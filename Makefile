# Every target needs only Python >= 3.11 with its venv module: `make PYTHON=python3.12 test` names another one.
PYTHON ?= python3

.PHONY: help setup demo test lint lock readme

help:
	@echo "make setup   .venv with everything, pinned and checked by hash"
	@echo "make demo    the whole way on made-up films: curate, encode, train, sample (leaves ./demo)"
	@echo "make test    the tests"
	@echo "make lint    style, and the rules of the house"
	@echo "make lock    requirements.lock anew, from pyproject.toml"
	@echo "make readme  the outputs that the README shows, anew"

setup:
	@$(PYTHON) .ci/setup.py

demo: setup
	.venv/bin/clipmill demo

test: setup
	.venv/bin/python -m pytest

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python .ci/house_rules.py

# Universal: one file for every Python >= 3.11 and every system; no addresses, no paths of this machine.
lock: setup
	.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --all-extras --group dev \
	  --constraint .ci/lock.constraints pyproject.toml --output-file requirements.lock

readme: setup
	CLIPMILL_TESTED=1 .venv/bin/python .ci/readme.py --write
