# `make repro` runs the pipeline, `make test` the tests; each sets up .venv first.

# TensorFlow has no build for Python 3.14 yet.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.dev-ready
INSTALL := python -m pip install --quiet --disable-pip-version-check
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate pyproject.toml
# Stages run as `python -m pipeline.stages.NAME`: that python has to be this one.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro test lint bench lock clean

repro: $(READY)
	dvc repro
	@echo
	@dvc metrics show
	@echo
	@echo "report: artifacts/evaluation/report.html"

test: $(DEV_READY) lint
	pytest --numprocesses auto --dist loadfile

lint: $(DEV_READY)
	ruff format --check
	ruff check
	mypy
	lint-imports

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "installing the pinned requirements into $(VENV), one to three minutes"
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_READY): $(READY) requirements-dev.lock
	@echo "installing what the tests need"
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

# After a change of the dependencies in pyproject.toml; needs `pip install uv`. The second
# lock holds the first and adds to it.
lock:
	$(LOCK) --extra openvino --output-file requirements.lock
	$(LOCK) --extra openvino --extra ray --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock

# Takes about half an hour; wants the artefacts of `make repro` and a quiet machine.
bench: $(READY)
	python -m benchmarks

# Leaves .cache, where every vector ever computed is.
clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
