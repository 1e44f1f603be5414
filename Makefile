# make demo   set up .venv, colorize and enlarge a sample photo
# make test   set up what the tests need, run all of them
# make lint   format, lint, types, import rules

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(BIN)/python -m scsnet colorize samples/Colorado1941.png --reference samples/Alps.jpg --scale 2 -o demo/Colorado1941.png --force
	@echo "Compare: samples/Colorado1941.png (1941, gray), samples/Alps.jpg (its reference)."
	@echo "The result: demo/Colorado1941.png"

test: $(VENV)/installed-dev
	$(BIN)/pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# torch first: asked for by another package it could come in another version.
$(VENV)/torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/torch pyproject.toml
	$(INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) demo
