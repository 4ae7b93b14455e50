# `make repro` runs the pipeline, `make test` the tests; each sets up .venv first.

# TensorFlow has no build for Python 3.14 yet.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.dev-ready
# The locks are complete, and most of what they install is never imported.
INSTALL := python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate pyproject.toml

define NEW_VENV
test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' || \
	{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	$(PYTHON) -m venv --clear $(VENV)
endef

# Stages run as `python -m pipeline.stages.NAME`: that python has to be this one.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Installed without bytecode: each process would compile TensorFlow anew, 19 s instead of 5.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: repro test lint docs bench lock clean

# The first run is kept as the DVC experiment `first`, to compare later runs with: no commit needed.
repro: $(READY)
	dvc repro
	@if git for-each-ref --format='%(refname)' 'refs/exps/*/*/*/first' | grep -q .; then :; \
	elif git config user.email >/dev/null; then \
		dvc exp save --quiet --name first --include-untracked artifacts/evaluation/metrics.json \
			2>/dev/null && echo 'kept as the experiment "first"'; \
	else \
		echo 'not kept as the experiment "first": git has no name and e-mail for you yet' \
			'(git config --global user.name "Your Name"; git config --global user.email you@example.org);' \
			'then run `make repro` again'; \
	fi
	@echo "report: artifacts/evaluation/report.html"

test: $(DEV_READY) lint
	pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(DEV_READY)
	ruff format --check
	ruff check
	mypy
	lint-imports

$(READY): requirements.lock pyproject.toml
	@$(NEW_VENV)
	@echo "installing the pinned requirements into $(VENV), about a minute"
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-build-isolation -e .
	@touch $@

# The second lock holds the first: a new .venv is filled from it in one go.
$(DEV_READY): requirements-dev.lock requirements.lock pyproject.toml
	@test $(READY) -nt requirements.lock -a $(READY) -nt pyproject.toml || { $(NEW_VENV); }
	@echo "installing the pinned requirements of the tests into $(VENV), one to two minutes"
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@$(INSTALL) --no-build-isolation -e .
	@touch $(READY) $@

# After a change of the dependencies in pyproject.toml; needs `pip install uv`.
lock:
	$(LOCK) --extra openvino --output-file requirements.lock
	$(LOCK) --extra openvino --extra ray --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock

# The pages of docs/ that are generated.
docs: $(DEV_READY)
	python -m tests.support.params_page

# Takes about half an hour; wants the artefacts of `make repro` and a quiet machine.
bench: $(READY)
	python -m benchmarks

# Leaves .cache, where every vector ever computed is.
clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
