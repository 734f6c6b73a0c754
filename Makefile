# Two commands for a newcomer: `make book` and `make test`. `make help` lists the rest.
# The environment lies in .venv; it is made once and refreshed when its two lists change.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
LISTS := pyproject.toml constraints.txt
READY := $(VENV)/.ready
READY_TEST := $(VENV)/.ready-test
READY_LABS := $(VENV)/.ready-labs
READY_PAGES := $(VENV)/.ready-pages
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

export OMP_NUM_THREADS ?= 1

.PHONY: help book test lab bench compare clean environment style pages

help:
	@echo "make book     set up .venv, build the executed book, show it (SERVE=0: only build)"
	@echo "make test     set up .venv, run the unit tests and every notebook"
	@echo "make lab      JupyterLab on the chapters and labs (installs the engine's packages)"
	@echo "make bench    time the simulator: hybrid-serving bench simulator"
	@echo "make compare  routers side by side: make compare ROUTERS='round_robin prefix_exact'"
	@echo "make style    ruff and codespell over the sources"
	@echo "make pages    open every page of the built book in Chromium and check it"
	@echo "make clean    remove the built book and the caches; .venv stays"

environment: $(READY)

$(PY):
	@echo "--- making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(READY): $(LISTS) | $(PY)
	@echo "--- installing the book's packages into $(VENV) (a minute or two, once)"
	@$(INSTALL) --editable '.[book,style]'
	@touch $@

$(READY_TEST): $(READY)
	@echo "--- installing the tests' and the engine's packages into $(VENV) (a few minutes, once)"
	@$(INSTALL) --editable '.[book,test]'
	@touch $@

$(READY_LABS): $(READY_TEST)
	@echo "--- installing JupyterLab and the engine's packages into $(VENV)"
	@$(INSTALL) --editable '.[book,labs,test]'
	@touch $@

$(READY_PAGES): package.json $(READY_TEST)
	@echo "--- installing the page tests' packages, JupyterLab among them"
	@$(INSTALL) --editable '.[book,labs,test,browser]'
	@npm install --no-save --no-package-lock --ignore-scripts --no-audit --no-fund >/dev/null || echo "no npm: accessibility is not checked"
	@touch $@

book: $(READY)
	@echo "--- building the book: every notebook runs, any warning fails the build"
	@$(VENV)/bin/jupyter-book build . -W -n --keep-going
	@$(PY) _ext/preview.py --check --serve

test: $(READY_TEST)
	@echo "--- unit tests and notebooks"
	$(PY) -m pytest -n 2 --dist loadscope --nbval-lax --nbval-current-env --nbval-cell-timeout=120 tests chapters labs

pages: $(READY_PAGES)
	@test -f _build/html/index.html || { echo "build the book first: make book" >&2; exit 1; }
	@echo "--- links, console, outside requests, figures and accessibility of every built page; explorers in it and in JupyterLab"
	BOOK_HTML=_build/html $(PY) -m pytest tests/browser

style: $(READY)
	@echo "--- ruff, codespell, notebooks without outputs"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/codespell
	@find chapters labs -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*' -print0 | xargs -0 -r $(VENV)/bin/nbstripout --verify --keep-id

lab: $(READY_LABS)
	@echo "--- JupyterLab on 127.0.0.1; start with chapters/intro.ipynb (Ctrl-C twice ends)"
	@$(VENV)/bin/jupyter lab --ServerApp.root_dir=. --ServerApp.ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root)

bench: $(READY)
	@echo "--- timing the simulator on this machine"
	@$(VENV)/bin/hybrid-serving bench simulator

ROUTERS ?= round_robin power_of_two prefix_exact
TRACE ?= conversation
WORKERS ?= 4
SEEDS ?= 1
compare: $(READY)
	@echo "--- $(ROUTERS) on $(TRACE), $(WORKERS) workers"
	@$(VENV)/bin/hybrid-serving simulate --trace $(TRACE) --workers $(WORKERS) $(ROUTERS:%=--router %) --seeds $(SEEDS)

clean:
	@echo "--- removing the built book and caches"
	@rm -rf _build .pytest_cache .hypothesis .ruff_cache
	@find chapters labs helpers tests -name __pycache__ -type d -prune -exec rm -rf {} +
