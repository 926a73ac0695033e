# The commands of this project. `make help` lists them.

# An interpreter to build .venv with: 3.10 to 3.13, the versions for which every pinned package has a wheel.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# make run
GRPC_PORT ?= 9000
REST_PORT ?= 8000

# make image: the base to build on, and further arguments for the build tool (a proxy's certificate, a volume)
BASE ?=
IMAGE_ARGS ?=

# make test, make perf: further arguments for pytest or perf
ARGS ?=
# make test: unit tests that are run a second time, of the compiled modules
HOT_TESTS := tests/unit/frontends/grpc $(wildcard tests/unit/frontends/rest/test_connection_*.py) \
	tests/unit/broker/test_simulated_failures.py
# make test: files of tests that run at the same time
TEST_PROCESSES ?= 2

# What `make compile` leaves, and what it is made of. Compiled modules lie beside their sources.
COMPILED := $(VENV)/compile.stamp
PACKAGES := broker common frontends workers
SOURCES := $(shell find $(PACKAGES) -name '*.py')
COMPILED_FILES := find $(PACKAGES) $(wildcard ie_serving__mypyc.*) -name '*.so'

# Bytecode is kept, also where the environment says otherwise: tests start hundreds of processes, each of which would
# compile the same sources.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Nothing but what the resolver must not decide: no addresses in the files, wheels for every supported Python.
UV_COMPILE := uv pip compile --quiet --no-python-downloads --universal --python-version 3.10 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --override requirements/overrides.txt \
	--custom-compile-command "make lock"

MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
# One thing after the other, but for what `make test` starts together.
ifndef TOGETHER
.NOTPARALLEL:
endif
.DEFAULT_GOAL := help
.PHONY: help install dev compile run test test-deep test-api fuzz lint format schema lock perf perf-quick flame bench image image-check clean clean-compiled

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '%-16s %s\n' "$$name" "$$text"; done

# Whoever has compiled once has what is compiled follow the sources.
install: $(VENV)/runtime.stamp $(wildcard $(COMPILED)) ## make .venv with the pinned packages and the command ie_serving in it
	@:

dev: $(VENV)/dev.stamp ## install what test, lint and perf need beside it
	@:

compile: $(COMPILED) ## compile the hot modules with mypyc, for speed (wants a C compiler; about a minute)
	@:

run: install ## serve the demo model, gRPC on GRPC_PORT (9000), REST on REST_PORT (8000)
	@exec $(BIN)/python -m examples.digits.demo --port $(GRPC_PORT) --rest_port $(REST_PORT)

# mypy keeps one core busy, and so does mypyc.
test: dev ## lint, then all tests (ARGS="-m 'not e2e'" and the like go to pytest)
	@$(MAKE) TOGETHER=1 --jobs=2 --output-sync=target lint compile
	@$(PYTEST) --numprocesses=$(TEST_PROCESSES) --dist=loadfile $(ARGS)
	@$(PYTEST) --quiet --compiled $(HOT_TESTS)

test-deep: dev ## the slow suites: simulated failures, changing versions, bytes of any kind, messages of 1 GiB
	@$(BIN)/python -m pytest --hypothesis-profile=deep tests/unit/broker/test_simulated_failures.py $(ARGS)
	@$(BIN)/python -m pytest --flip-seconds=60 tests/integration/test_repositories.py -k flip $(ARGS)
	@$(BIN)/python -m pytest --hypothesis-profile=deep tests/unit/frontends/grpc/http2/test_any_bytes.py $(ARGS)
	@$(BIN)/python -m pytest --largest-messages tests/integration/http2/test_clients.py -k largest $(ARGS)

test-api: dev ## the REST API against its own document, many more requests
	@$(BIN)/python -m pytest --hypothesis-profile=deep tests/integration/test_rest_schema.py $(ARGS)

fuzz: dev ## gRPC's methods, our reader of requests and HTTP/2 under atheris, a minute each (ARGS go to libFuzzer)
	@$(BIN)/python -m tests.fuzz.grpc_messages -max_total_time=60 $(ARGS)
	@$(BIN)/python -m tests.fuzz.predict_requests -max_total_time=60 $(ARGS)
	@$(BIN)/python -m tests.fuzz.http2_connection -max_total_time=60 $(ARGS)

lint: dev ## lint, format check, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: dev ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: install ## write configs/schema.json, the JSON Schema of the configuration file, anew
	@$(BIN)/python -m ie_serving.config_schema configs/schema.json

lock: ## compile requirements/*.lock anew (wants uv; ARGS=--upgrade takes newer versions)
	@command -v uv >/dev/null || { echo "make lock wants uv: python3 -m pip install uv" >&2; exit 1; }
	$(UV_COMPILE) $(ARGS) -o requirements/runtime.lock pyproject.toml requirements/runtime.in
	$(UV_COMPILE) $(ARGS) -o requirements/dev.lock pyproject.toml requirements/runtime.in requirements/dev.in
	$(UV_COMPILE) $(ARGS) -o requirements/compile.lock requirements/compile.in
	@! grep -nE '://|file:|find-links|index-url|@ ' requirements/*.lock || \
		{ echo "a lock file names an address; it must not" >&2; exit 1; }

perf: dev compile ## measure the server against its limits and bars, about 10 minutes (ARGS go to perf)
	@$(BIN)/python -m perf $(ARGS)

perf-quick: dev compile ## the same with one short round, under 2 minutes: whether all works, and roughly where it stands
	@$(BIN)/python -m perf --quick $(ARGS)

flame: dev ## flame graphs of all processes of a server under load, by py-spy (ARGS go to perf.flame)
	@$(BIN)/python -m perf.flame $(ARGS)

bench: dev ## nanoseconds of the hot functions (ARGS go to perf.micro)
	@$(BIN)/python -m perf.micro $(ARGS)

image: ## build the container image ie-serving-py:latest (BASE=... on another base image)
	@BASE="$(BASE)" sh deploy/build-image.sh $(IMAGE_ARGS)

image-check: install ## run the image as the documents do, read-only and unprivileged, and ask it (wants root)
	@sh deploy/check-image.sh $(BIN)/python

clean-compiled: ## remove what `make compile` has made: everything is interpreted again
	@rm -rf $(COMPILED) build
	@$(COMPILED_FILES) -delete

clean: clean-compiled ## remove .venv, caches and build output
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
		{ echo "Python 3.10 to 3.13 is wanted, and $(PYTHON) is not: add PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing. This installs it: apt-get install -y python3-venv" >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/runtime.stamp: requirements/runtime.lock pyproject.toml | $(BIN)/python
	@echo "Installing the server into $(VENV) ..."
	@$(PIP_INSTALL) --no-deps --require-hashes -r requirements/runtime.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.lock $(VENV)/runtime.stamp
	@echo "Installing the development packages into $(VENV) ..."
	@$(PIP_INSTALL) --no-deps --require-hashes --no-compile -r requirements/dev.lock
	@touch $@

# Without a C compiler everything is interpreted, which is slower and else the same; what was compiled before goes first, for
# it would be what runs.
$(COMPILED): setup.py requirements/compile.lock $(SOURCES) | $(VENV)/runtime.stamp
	@$(COMPILED_FILES) -delete
	@if ! command -v cc >/dev/null; then \
		echo "There is no C compiler, so nothing is compiled. This installs one: apt-get install -y gcc libc6-dev"; \
	elif ! $(BIN)/python -c "import pathlib, sysconfig as s, sys; sys.exit(not pathlib.Path(s.get_path('include'), 'Python.h').exists())"; then \
		echo "Python's headers are missing, so nothing is compiled. This installs them: apt-get install -y python3-dev"; \
	else \
		echo "Compiling the hot modules ..."; \
		$(PIP_INSTALL) --no-deps --require-hashes -r requirements/compile.lock && \
		IE_SERVING_COMPILE=1 $(BIN)/python setup.py --quiet build_ext --inplace && \
		$(COMPILED_FILES) -exec touch {} +; \
	fi
	@touch $@
