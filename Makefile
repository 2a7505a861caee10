PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install test lint quickstart docs bench clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## virtual environment with jetscale, every extra and the tools for developers

# What runs, trains and fits: the quickstart needs no more. pip obeys its own variables (docs/install.md).
$(VENV)/.runs: pyproject.toml
	$(call pip_install,[launchers])
	touch $@

$(VENV)/.installed: pyproject.toml
	$(call pip_install,[dev$(comma)launchers$(comma)ray$(comma)notebooks$(comma)docs])
	touch $(VENV)/.runs $@

# The pip that came with Python 3.11 takes 20 seconds longer to choose versions. pip would compile on one core;
# some packages hold templates that do not compile, nobody runs their tests, and some large ones are rarely imported.
define pip_install
$(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --quiet --upgrade pip
$(BIN)/python -m pip install --quiet --no-compile --editable '.$(1)'
$(BIN)/python -m compileall -q -j 0 -x 'site-packages/(.*/tests?|$(RARE))/' $(VENV)/lib jetscale tests || true
endef
RARE := ray|sqlalchemy|debugpy|networkx|torch/testing|fontTools|mypyc?|blosc2|onnxruntime|setuptools
comma := ,

# Two test processes more than cores, up to four, since tests often wait for others; each computes on one thread,
# since threads of several processes wait for each other. Lint runs beside them; what it prints follows theirs
# where it fails.
WORKERS = $(shell $(PYTHON) -c "import os; print(min(len(os.sched_getaffinity(0)) + 2, 4))")
test: install  ## style, types, import rules, and every test
	@log=$$(mktemp); $(MAKE) --no-print-directory lint > $$log 2>&1 & lint=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist=loadgroup; tests=$$?; \
	wait $$lint; lint=$$?; [ $$lint = 0 ] || cat $$log; rm $$log; \
	echo "lint: exit status $$lint, tests: exit status $$tests"; [ $$lint = 0 ] && [ $$tests = 0 ]

lint: install  ## ruff, mypy --strict, import-linter, whitespace and YAML
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files '*.yaml' '*.yml' | xargs $(BIN)/check-yaml
	$(BIN)/python -m pip check

quickstart: $(VENV)/.runs  ## simulate, sweep and fit in minutes; ends with multirun/quickstart/analysis/report.html
	$(BIN)/python -m jetscale.simulate dataset=jetclass n_jets=20000 n_val=0 n_test=2000 out=data/quickstart
	$(BIN)/python -m jetscale.simulate dataset=jetclass2 n_jets=15000 n_val=0 n_test=0 \
		buckets.QCD=15 buckets.Res2P=20 buckets.Res34P=65 out=data/quickstart
	$(BIN)/python -m jetscale.prepare dir=data/quickstart
	$(BIN)/python -m jetscale.train -m +sweep=quickstart data.dir=data/quickstart \
		hydra/launcher=joblib hydra.launcher.n_jobs=2
	$(BIN)/python -m jetscale.analysis source=local path=multirun/quickstart
	@echo "open multirun/quickstart/analysis/report.html"

docs: install  ## the documentation site, notebooks executed, into docs/_build/html/index.html
	$(BIN)/python -m sphinx -n -W --keep-going -q -c docs . docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: install  ## every speed ratio, into benchmarks/results.json
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.report

clean:  ## remove the environment and caches, not data or runs
	rm -rf $(VENV) docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
