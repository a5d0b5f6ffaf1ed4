# make demo: set up and watch a detector learn. make test: set up, check and test. make docs: set up and build the site.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILDER ?= zensical
# Versions in constraints.txt are the tested ones.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test check format docs clean

demo: $(VENV)/installed
	rm -rf demo
	$(BIN)/cdetr demo --out demo

test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 15

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports
	$(BIN)/pyright

format: $(VENV)/installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Any warning, such as a broken link, is an error. Nothing is fetched but the packages of the extra [docs].
docs: $(VENV)/installed-docs
	$(BIN)/python scripts/docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/$(BUILDER) build --strict --clean

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[dev]'
	touch $@ $(VENV)/installed $(VENV)/installed-docs

$(VENV)/installed-docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[docs]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) demo site
