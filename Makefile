# Everything happens in a virtual environment of the project's own; nothing needs root.
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help book test bench results lint serve accept clean

# The first target, so that a bare make makes the book.
book: $(READY)  ## execute what is out of date and build the site
	$(BIN)/python -m kempe_nb run --jobs 2
	$(BIN)/python -m kempe_nb site

# Two workers with a thread each; tests/conftest.py says who gets what.
test: export OMP_NUM_THREADS = 1
test: lint book  ## everything that CI checks
	$(BIN)/python -m pytest -n 2

bench: $(READY)  ## measure the kernels beside their peers
	$(BIN)/python -m benchmarks

results: $(READY)  ## confirm the stored runs by a row, or make them again
	$(BIN)/python -m kempe_nb results

lint: $(READY)  ## format and lint
	$(BIN)/pre-commit run --all-files --show-diff-on-failure

serve: book  ## show the site at localhost:8000
	$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

accept: $(READY)  ## keep the claim texts of the last run
	$(BIN)/python -m kempe_nb accept

help:  ## say this
	@grep -hE '^[a-z]+:.*  ## ' $(MAKEFILE_LIST) | sort | sed 's/:.*  ## /\t/' | expand -t 10

clean:  ## remove what can be made again
	rm -rf _build $(VENV) *.egg-info .pytest_cache .ruff_cache .hypothesis

# torch first and alone: with it in place no other package can pull in a second build of it.
$(READY): requirements.txt tests/oracles.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11, 5) or sys.exit("Python 3.11.5 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_ARGS) $$(grep '^torch==' requirements.txt)
	$(BIN)/pip install --quiet $(PIP_ARGS) -r requirements.txt
	$(BIN)/pip install --quiet $(PIP_ARGS) --no-deps -r tests/oracles.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
