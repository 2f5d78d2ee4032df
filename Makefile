# Everything runs in an environment of its own, made by the first command that needs it.
#   make demo    the whole pipeline on toy tissue
#   make test    the test suite
#   make test-numerics    the numerical tests as on a processor without AVX-512
#   make docs    the documentation
#   make bench   time and memory, into docs/performance_speed.md
# Variables: VENV (the environment), PYTHON (the interpreter it is made from),
# CONSTRAINTS (exact tested versions; empty = the newest that fit), PYTEST_ARGS, TEST_PROCESSES, DEMO_ARGS,
# BENCH_ARGS, DOCS_OUT.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= $(firstword $(shell command -v python3.11) python3)
CONSTRAINTS ?= constraints.txt
PYTEST_ARGS ?=
# Tests run in as many processes as this, a file at a time
TEST_PROCESSES ?= 2
DEMO_ARGS ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -qq $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
# Tests whose outcome could depend on the processor's vector instructions
NUMERICS := tests/nn tests/training/test_lightning.py tests/training/test_closed_form.py tests/test_golden.py::test_closed_form_of_a_fit
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
DRAWINGS := $(wildcard docs/drawings/[a-z]*.py)
DOCS_OUT ?= docs/_build/html

SMOKE := "import sthggep; slide = sthggep.datasets.toy(size_um=(1200.0, 1200.0), mpp=2.0, n_genes=4); sthggep.tl.predict(slide, 'her2st'); print(slide)"

export OMP_NUM_THREADS ?= 2
# Threads that wait must not spin: on a busy machine that costs more than the work
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test test-numerics bench lint format typecheck notebooks drawings docs build smoke clean distclean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 23

demo: $(VENV)/.installed  ## fit, predict and draw on toy tissue; results in demo-output/
	$(BIN)/sthggep demo --out demo-output $(DEMO_ARGS)

test: $(VENV)/.installed-test  ## run the tests (PYTEST_ARGS="-k io" for some of them)
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --junitxml=test-results.xml $(PYTEST_ARGS)

test-numerics: $(VENV)/.installed-test  ## run the numerical tests as on a processor without AVX-512 (oneDNN, torch, MKL)
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(AVX2) $(BIN)/python -m pytest $(NUMERICS)

bench: $(VENV)/.installed  ## time and memory into docs/performance_speed.md: minutes on a quiet machine (BENCH_ARGS=--large)
	$(BIN)/python benchmarks/speed.py --write $(BENCH_ARGS)

lint: $(VENV)/.installed-dev typecheck  ## ruff, mypy, deptry and zizmor, changing nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/deptry src
	$(BIN)/zizmor --offline --quiet .github

format: $(VENV)/.installed-dev  ## let ruff fix and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

typecheck: $(VENV)/.installed-dev  ## mypy, strict, on src
	$(BIN)/mypy

notebooks: $(VENV)/.installed-doc  ## execute the notebooks in place, and record the version that did
	@for notebook in $(NOTEBOOKS); do echo "$$notebook"; env -u MPLBACKEND $(BIN)/jupyter nbconvert --to notebook --execute --inplace "$$notebook" && $(BIN)/python docs/stamp_notebooks.py "$$notebook" || exit 1; done

drawings: $(VENV)/.installed-doc  ## draw the figures of the documentation anew, into docs/_static/drawings
	@for drawing in $(DRAWINGS); do echo "$$drawing"; $(BIN)/python "$$drawing" || exit 1; done

docs: $(VENV)/.installed-doc  ## the documentation, in docs/_build/html; warnings are errors
	PYTHONWARNINGS=ignore::DeprecationWarning $(BIN)/python -m sphinx -W --keep-going -n -q -b html docs $(DOCS_OUT)
	@echo "$(DOCS_OUT)/index.html"

build: $(VENV)/.installed-dev  ## sdist and wheel in dist/, checked
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

smoke: build  ## install the built wheel into a clean environment, build/clean, and predict there
	rm -rf build/clean
	$(BIN)/python -m venv build/clean
	build/clean/bin/python -m pip --disable-pip-version-check install -qq $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) torch
	build/clean/bin/python -m pip --disable-pip-version-check install -qq $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) dist/*.whl
	build/clean/bin/python -m pip check
	cd build/clean && bin/sthggep --help
	cd build/clean && bin/python -c $(SMOKE)

clean:  ## remove what the commands wrote
	rm -rf build dist demo-output docs/_build docs/api/generated docs/_thumbnails htmlcov test-results.xml .coverage .mypy_cache .pytest_cache .ruff_cache

distclean: clean  ## remove the environment too
	rm -rf $(VENV)

$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sthggep needs Python 3.11 or newer: make ... PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# The tested torch goes in first and alone, so that nothing else can ask for another one.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	@echo "Installing sthggep into $(VENV): minutes the first time (torch is large), nothing later."
	$(INSTALL) --upgrade "pip>=25.1"
	$(INSTALL) torch
	$(INSTALL) --editable ".[spatial-io,wsi]"
	@touch $@

# pip (>= 25.1) reads the dependency groups of pyproject.toml.
$(VENV)/.installed-%: $(VENV)/.installed
	$(INSTALL) --group $*
	@touch $@
