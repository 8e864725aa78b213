# make help lists the targets. Everything lands in .venv beside this file; nothing else on the machine is touched.
# Which index pip and uv use is theirs to know (their configuration files and environment variables): none is named here.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

UV_PIN := uv==0.13.8
VENV := .venv
BIN := $(VENV)/bin
PINS := constraints.txt pyproject.toml
ROOMS := platform solvers surrogates pipelines
RECIPE ?= pipelines/recipes/darcy_fno.yaml
# In four processes even on two cores: the tests that start Ray mostly wait for it.
PYTEST_ARGS ?= -n4

# The wheels of torch are large: 30 s without a byte is too little on a slow line.
export UV_HTTP_TIMEOUT ?= 300

# Empty means off: without bytecode caches each of a run's dozen processes compiles everything it imports again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test check bench docs clean lock

help: ## say what can be made
	@grep -hE '^[a-z]+:.*## ' Makefile | sort | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 14

demo: $(VENV)/.run-ready ## environment, then a streamed training run of a minute on two cores (RECIPE=... for another)
	$(BIN)/headrace run "$(RECIPE)"

test: $(VENV)/.test-ready ## environment with the test tools, then every test in four processes (PYTEST_ARGS='-k darcy' for some)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.test-ready ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.view $(BIN)/lint-imports --no-logo

bench: $(VENV)/.test-ready ## run every benchmark, one after the other; each ends with a line of JSON
	@for script in tests/benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

docs: $(VENV)/.test-ready ## the documentation: build/docs/index.html (with its search: python3 -m http.server -d build/docs)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## remove the environment, caches and build products; runs/ stays
	rm -rf $(VENV) build dist headrace.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find $(ROOMS) tests -name __pycache__ -prune -exec rm -rf {} +

lock: $(VENV)/.test-ready ## choose the newest versions anew and write constraints.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --all-extras --no-header --no-annotate --no-emit-index-url \
		--python $(BIN)/python --output-file constraints.txt pyproject.toml

# Stamps: an environment is made again when its pins change, and a failed installation leaves none behind.

# An environment that works is kept; one that does not (half made, or of an older Python) is made anew.
RECENT := -c 'import pip, sys; sys.exit(sys.version_info < (3, 12))'

$(VENV)/.uv-ready:
	@if ! $(BIN)/python $(RECENT) 2>/dev/null; then \
		for python in python3.12 python3 none; do \
			if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then break; fi; \
		done; \
		if [ "$$python" = none ]; then \
			echo "Headrace needs Python 3.12 or newer; python3 is $$(python3 --version 2>&1 || true)." >&2; \
			echo "Install it (Debian, Ubuntu: apt install python3.12 python3.12-venv; macOS: brew install python@3.12;" >&2; \
			echo "conda: conda create -n headrace python=3.12, then conda activate headrace) and run make again." >&2; \
			exit 1; \
		fi; \
		"$$python" -m venv --clear $(VENV) || { \
			echo "$$python cannot make an environment. On Debian and Ubuntu: apt install python3.12-venv." >&2; exit 1; }; \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(UV_PIN)'
	@touch $@

$(VENV)/.run-ready: $(VENV)/.uv-ready $(PINS)
	$(call install,.)

$(VENV)/.test-ready: $(VENV)/.uv-ready $(PINS)
	$(call install,.[test])
	@touch $(VENV)/.run-ready

# Bytecode is compiled here once: a run starts a dozen processes, and each would spend ten seconds on torch's source where
# PYTHONDONTWRITEBYTECODE is set. pip steps in where only pip has been told which index to use.
define install
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode \
		--constraints constraints.txt --build-constraints constraints.txt -e '$(1)' \
		|| { echo "uv did not succeed: trying pip, which is slower." >&2; \
			$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '$(1)'; }
	@touch $@
endef
