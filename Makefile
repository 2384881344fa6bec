# Two commands do everything: `make study` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: study test pytest cluster lint gpu torture notebooks docs clean

study: $(STAMP)
	$(BIN)/python -m study demo --out studies/demo

# The linter keeps one core busy for a minute, the tests none the whole time: side by side. Either failing fails it.
test: $(STAMP)
	$(MAKE) --no-print-directory -j 2 lint pytest

pytest: $(STAMP)
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

# The tests that take about a minute each: lost nodes, longer trainings, notebooks. CI runs them after `make test`.
cluster: $(STAMP)
	$(BIN)/python -m pytest -m cluster -n 2 --dist loadfile

# Takes longer than the tests: jobs, studies that lose nodes, buckets and allocations, and one that is killed more than
# fifty times and resumed, its tally at the end.
torture: $(STAMP)
	$(BIN)/python -m pytest -m torture
	rm -rf studies/torture
	$(BIN)/python tests/torture.py --kills 54 --seed 0 --out studies/torture

# Captured, compiled and eager steps against each other, and energy; skipped with a reason where there is no CUDA device.
gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu -rs

# The notebooks are kept as py:percent sources; this makes what Jupyter opens. JupyterLab: pip install -e '.[notebooks]'.
notebooks: $(STAMP)
	$(BIN)/jupytext --quiet --to ipynb analysis/notebooks/*.py

# The manual as a site, without a network: site/index.html.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) studies site
