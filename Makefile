# `make repro` runs the pipeline, `make test` the tests; both set up .venv first.

PYTHON ?= python3
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
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

# After a change of the dependencies in pyproject.toml; needs `pip install uv`.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev \
		--no-header --no-annotate --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
