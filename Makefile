# `make repro` runs the pipeline; `make quick`, `make test` and `make soak` the tests, in tiers.
# Each sets up .venv first, where it is missing or older than its lock.

# TensorFlow has no build for Python 3.14 yet.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.dev-ready
PACKAGE := $(VENV)/.package-ready
# The locks are complete, and most of the modules they install are never imported.
INSTALL := python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate pyproject.toml

define NEW_VENV
test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' || \
	{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	$(PYTHON) -m venv --clear $(VENV)
endef

# Stages run as `python -m pipeline.stages.NAME`, which must be .venv's python.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Without bytecode each process would compile TensorFlow again: 19 s instead of 5.
unexport PYTHONDONTWRITEBYTECODE

# One worker per core; the longest files first (tests/tiers.py).
PYTEST := pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: repro quick test soak lint docs bench lock clean

# The first run is kept as the DVC experiment `first`, to compare later runs with: no commit needed.
repro: $(READY) $(PACKAGE)
	@git rev-parse --is-inside-work-tree >/dev/null 2>&1 || \
		{ echo 'this is no git repository, which DVC needs:' \
			'`git init && git add . && git commit -m "as downloaded"`, then `make repro`' >&2; exit 1; }
	@python -m pipeline.stages.dataset
	dvc repro
	@if git for-each-ref --format='%(refname)' 'refs/exps/*/*/first' | grep -q .; then :; \
	elif ! git rev-parse --quiet --verify HEAD >/dev/null; then \
		echo 'not kept as the experiment "first": nothing is committed yet' \
			'(`git add . && git commit -m "as downloaded"`); then run `make repro` again'; \
	elif git config user.email >/dev/null; then \
		dvc exp save --quiet --name first --include-untracked artifacts/evaluation/metrics.json \
			&& echo 'kept as the experiment "first"'; \
	else \
		echo 'not kept as the experiment "first": git has no name and e-mail for you yet' \
			'(git config --global user.name "Your Name"; git config --global user.email you@example.org);' \
			'then run `make repro` again'; \
	fi
	@echo "report: artifacts/evaluation/report.html"

# After each edit: at most two minutes.
quick: lint
	$(PYTEST) -m "not slow and not soak"

# Everything that CI runs: about ten minutes on two cores.
test: lint
	$(PYTEST) -m "not soak"

# The rest, before a release: kills by the hundred, every backend, large networks.
soak: $(DEV_READY) $(PACKAGE)
	$(PYTEST) -m soak

lint: $(DEV_READY) $(PACKAGE)
	ruff format --check
	ruff check
	mypy
	lint-imports

$(READY): requirements.lock
	@$(NEW_VENV)
	@echo "installing the pinned requirements into $(VENV), about a minute"
	@$(INSTALL) --require-hashes -r requirements.lock
	@touch $@

# The second lock contains the first, so a new .venv is filled from it in one go.
$(DEV_READY): requirements-dev.lock requirements.lock
	@test $(READY) -nt requirements.lock || { $(NEW_VENV); }
	@echo "installing the pinned requirements of the tests into $(VENV), one to two minutes"
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $(READY) $@

# The project itself, editable. Only this step follows pyproject.toml, which also configures tools.
$(PACKAGE): pyproject.toml | $(READY)
	@$(INSTALL) --no-build-isolation -e .
	@touch $@

# After a change of the dependencies in pyproject.toml; needs `pip install uv`.
lock:
	$(LOCK) --extra openvino --output-file requirements.lock
	$(LOCK) --extra openvino --extra ray --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock

# The pages of docs/ that are generated.
docs: $(DEV_READY) $(PACKAGE)
	python -m tests.support.params_page

# Takes about half an hour; needs the artefacts of `make repro` and an idle machine.
bench: $(READY) $(PACKAGE)
	python -m benchmarks

# Keeps .cache, which has every vector ever computed.
clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
