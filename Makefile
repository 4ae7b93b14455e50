# `make repro` runs the pipeline, `make test` the tests; both set up .venv first.

# TensorFlow has no build for Python 3.14 yet.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
READY := $(VENV)/.ready
# Stages run as `python -m pipeline.stages.NAME`: that python has to be this one.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro test lint lock clean

repro: $(READY)
	dvc repro
	@echo
	@dvc metrics show
	@echo
	@echo "report: artifacts/evaluation/report.html"

test: $(READY) lint
	pytest

lint: $(READY)
	ruff format --check
	ruff check
	mypy
	lint-imports

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "installing the pinned requirements into $(VENV), one to three minutes"
	@python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

# After a change of the dependencies in pyproject.toml; needs `pip install uv`.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev \
		--no-header --no-annotate --output-file requirements.lock pyproject.toml

# Leaves .cache, where every vector ever computed is.
clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
