# Every command sets up what it needs in .venv, with pinned versions, and a second run starts at once.
#   make demo        simulate, train, infer, and draw the pictures
#   make test        quick tests: CPU kernels, and the CUDA kernels compiled for the host
#   make help        the rest

PYTHON ?= python3
# Arguments for pytest, for instance PYTEST_ARGS="-k heat_bath -x".
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
NATIVE := CMakeLists.txt setup.py pyproject.toml $(shell find csrc -type f)
PACKAGE := $(shell find nri_fast -name '*.py*' -not -name '*.pyc')
FORMATTED := git ls-files -z '*.h' '*.cpp' '*.cu' '*.cuh'
PARALLEL := --numprocesses=auto --maxprocesses=4
TEST := $(BIN)/pytest $(PARALLEL)
KERNEL_TESTS = $(shell grep -l '[(, ]backend[),:]' python_tests/test_*.py) \
  $(addprefix python_tests/test_,heat_bath_kept.py linear.py rollout_choice.py)

.PHONY: help demo docs doctor install test test-all test-gpu lint format types sanitize wheel setup clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

demo: $(VENV)/.installed ## simulate, train, infer, and draw the pictures
	$(BIN)/nri-fast demo

docs: $(VENV)/.docs $(VENV)/.installed ## the documentation as a site, build/docs/docs/index.html
	$(BIN)/sphinx-build -q -W -c docs -b html . build/docs

doctor: $(VENV)/.installed ## what was built and what this machine offers
	$(BIN)/nri-fast doctor

install: $(VENV)/.installed ## build in place, with CUDA kernels where a CUDA compiler is found

test: $(VENV)/.check build/emulated/.built ## quick tests, CPU and emulated CUDA
	PYTHONPATH=build/emulated PYTHONSAFEPATH=1 $(TEST) -m "not slow" $(PYTEST_ARGS)

test-all: $(VENV)/.check build/emulated/.built ## slow tests too
	PYTHONPATH=build/emulated PYTHONSAFEPATH=1 $(TEST) $(PYTEST_ARGS)

test-gpu: $(VENV)/.check $(VENV)/.installed ## all tests on a GPU, which must be there
	NRI_FAST_REQUIRE_GPU=1 $(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.check ## formatting and style, Python and C++
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(FORMATTED) | xargs -0 $(BIN)/clang-format --dry-run -Werror

format: $(VENV)/.check ## rewrite files in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(FORMATTED) | xargs -0 $(BIN)/clang-format -i

types: $(VENV)/.check $(VENV)/.installed ## types, and the stubs against the built module
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml --allowlist .ci/stubtest_allowlist.txt nri_fast._core

sanitize: $(VENV)/.check build/sanitize/.built ## the CPU kernels' tests under ASan and UBSan
	PYTHONPATH=build/sanitize PYTHONSAFEPATH=1 .ci/sanitize $(BIN)/python -m pytest $(PARALLEL) -m "not slow" \
	  $(KERNEL_TESTS) $(PYTEST_ARGS)

wheel: $(VENV)/.run ## a wheel in dist/
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

setup: $(VENV)/.check $(VENV)/.installed ## everything that the other commands need

clean: ## remove what was built; .venv stays
	rm -rf build dist nri_fast.egg-info nri_fast/_core.*.so $(VENV)/.installed

$(VENV)/.made:
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('The pinned versions need Python 3.11 or newer: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.run: $(VENV)/.made requirements/run.txt requirements/build.txt
	@echo "Installing pinned packages into $(VENV); this happens once"
	$(PIP) install -r requirements/run.txt -r requirements/build.txt
	touch $@

$(VENV)/.check: $(VENV)/.run requirements/check.txt requirements/extras.txt
	$(PIP) install -r requirements/check.txt -r requirements/extras.txt
	touch $@

$(VENV)/.docs: $(VENV)/.run requirements/docs.txt requirements/extras.txt requirements/check.txt
	$(PIP) install -r requirements/docs.txt -c requirements/extras.txt -c requirements/check.txt
	touch $@

$(VENV)/.installed: $(VENV)/.run $(NATIVE)
	@echo "Building nri_fast; this takes a minute or two"
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

build/emulated/.built: export NRI_FAST_CUDA = emulated
build/sanitize/.built: export NRI_FAST_CUDA = off
build/sanitize/.built: export NRI_FAST_SANITIZE = address,undefined
build/%/.built: $(VENV)/.run $(NATIVE) $(PACKAGE)
	@echo "Building nri_fast for build/$*"
	rm -rf build/$*
	$(BIN)/python setup.py --quiet build --build-lib build/$*
	touch $@
