# One place for the commands that people, CI and the documentation use. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help .venv serve test lint conformance e2e bench lock image image-test clean

VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
CODE := oci storage serving registry tests bench

# The server as people meet it at the desk. Mode `none` is written out, so that it is the same inside a Pod.
ADDR ?= 127.0.0.1:5000
DATA ?= ./data

# Settings of the caller's own registry must not reach the servers and the configuration under test.
CLEAN := env $(addprefix -u ,$(filter REGISTRY_%,$(.VARIABLES)))

help: ## list the targets
	@sed -nE 's/^([.a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.venv: $(STAMP) ## the Python environment, from requirements-dev.lock

$(STAMP): requirements-dev.lock
	@python="$$(tests/python.sh)"; \
	"$$python" -m venv --clear $(VENV); \
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock; \
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	touch $@

serve: $(STAMP) ## the registry on 127.0.0.1:5000, from ./data (ADDR=, DATA=)
	@REGISTRY_ALAUDA_AUTH_MODE=none REGISTRY_HTTP_ADDR=$(ADDR) \
	REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=$(DATA) exec $(BIN)/python -m registry serve

# What is not to be had (no Go, no Debian package) is skipped with its reason at the desk, and fails in CI.
test: $(STAMP) ## unit, contract and integration tests (ARGS="-k name")
	tests/tools.sh registry-v3 >/dev/null || true
	$(CLEAN) $(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## format, rules, types, import layers, dependencies, module sizes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	@find $(CODE) -name '*.py' -exec wc -l {} + | awk '$$1 > 600 && $$2 != "total" \
	  {print $$2 ": " $$1 " lines, 600 is the most: split it"; bad = 1} END {exit bad}'

conformance: $(STAMP) ## the OCI conformance suite: one process, then two behind a switching proxy
	tools="$$(tests/tools.sh conformance)"; \
	PATH="$$tools:$$PATH" $(CLEAN) $(BIN)/python -m tests.conformance.run

# Without Go the Go clients are missing, and the tests say so: at the desk they are skipped, in CI they fail.
e2e: $(STAMP) ## real clients over TLS: podman, buildah, skopeo, crane, oras, helm, containerd (ARGS=)
	tests/tools.sh crane oras helm crictl >/dev/null || true
	PATH="$$(tests/tools.sh):$$PATH" $(CLEAN) $(BIN)/python -m pytest tests/e2e $(ARGS)

bench: $(STAMP) ## throughput and latency beside other registries (ARGS=)
	tools="$$(tests/tools.sh registry-v3)"; \
	PATH="$$tools:$$PATH" $(CLEAN) $(BIN)/python -m bench $(ARGS)

LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --custom-compile-command "make lock"

lock: $(STAMP) ## write both lock files from pyproject.toml (ARGS="--upgrade")
	$(BIN)/uv pip compile $(LOCK) $(ARGS) pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile $(LOCK) $(ARGS) pyproject.toml --extra dev -c requirements.lock \
	  -o requirements-dev.lock

image: ## the container image (BASE=a Python base image)
	buildah bud --isolation chroot $(if $(BASE),--build-arg BASE=$(BASE)) -t acp-image-registry .

image-test: $(STAMP) ## build the image on a base of Debian packages, run it read-only, push to it
	$(CLEAN) $(BIN)/python -m pytest tests/e2e/image.py $(ARGS)

clean: ## remove what the other targets made, except ./data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
