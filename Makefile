# Sets itself up on a machine that has only python3 (3.11 or newer) and make: see CONTRIBUTING.md.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev,docs,pyqt6
DEMO_OUTPUT ?= demo-output

# With an NVIDIA GPU, pip's own choice of torch. Without one, the release that has a CPU build
# where CI runs: the range in pyproject.toml is satisfied then and brings no CUDA libraries.
TORCH ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo torch || echo torch==2.13.0)

# CI runs all tests with PyQt6, and the smoke test with PySide6, in an environment of its own.
OTHER_QT_VENV := .venv-pyside6

# And quick tests of files, fits and windows with the lowest versions that pyproject.toml admits.
# torch is not the lowest but the one above: its older wheels bring gigabytes of CUDA libraries. uv,
# which can do so, leaves a torch alone that is there.
LOWEST_VENV := .venv-lowest
LOWEST_TESTS := tests/lowest.py tests/formats tests/stacks tests/fitting/test_fit.py tests/_napari/layers/test_layers.py
RESOLUTION ?= highest

FAST_TESTS := tests/stacks tests/model tests/formats tests/plots tests/measure/test_metrics.py \
    tests/jobs/test_messages.py tests/jobs/test_encoding.py tests/fitting/test_bounds.py \
    tests/fitting/test_fit.py tests/fitting/test_losses.py tests/fitting/test_seeding.py \
    tests/jobs/test_fit_folder.py tests/jobs/test_overwriting.py tests/test_docs.py \
    tests/test_docstrings.py tests/test_errors.py tests/test_files.py tests/test_house.py \
    tests/test_settings.py tests/test_workflows.py

# A process of tests for each core; four have a gigabyte each, and share the kernels' compiled code.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# What make prints of two targets at a time: first all of one. Older than 4.0, it mixes the lines.
IN_ONE_PIECE := $(if $(filter output-sync,$(.FEATURES)),--output-sync=recurse)

BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What Qt and OpenGL need of Debian to open a window, and a screen where there is none.
WINDOW_PACKAGES := libegl1 libgl1 libgl1-mesa-dri libxkbcommon-x11-0 libxcb-cursor0 \
    libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libdbus-1-3 libfontconfig1 libglib2.0-0
HAS_SCREEN := $(DISPLAY)$(WAYLAND_DISPLAY)
ON_SCREEN := $(if $(HAS_SCREEN),,xvfb-run -a -s "-screen 0 1280x1024x24")

.DEFAULT_GOAL := help
DOCS := docs/_build
NOTEBOOK_TABLE := $(DOCS)/notebook-table.md
KERNELS := $(DOCS)/kernels
TESTED := $(shell find src tests -name '*.py' 2>/dev/null) pyproject.toml

.PHONY: help demo test test-fast every-test kernels coverage smoke lowest other-environments other-packages quick-tests lint docs bench screenshots clean window-packages screen-packages

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) $(if $(HAS_SCREEN),window-packages) ## Fit a phantom with known Gaussians: report, files, a picture; opens napari on a screen
	$(BIN)/napari-gaussfit demo -o $(DEMO_OUTPUT) --force

test: screen-packages ## Run all that CI runs: lint, then every test, then the documentation
	+$(MAKE) -j2 $(IN_ONE_PIECE) lint kernels
	+$(MAKE) -j2 every-test other-environments
	+$(MAKE) -j2 $(IN_ONE_PIECE) docs other-packages

every-test: $(READY) screen-packages
	$(ON_SCREEN) $(BIN)/python -m pytest $(SIDE_BY_SIDE) --notebook-table=$(NOTEBOOK_TABLE)

# Compiled once, on the core that lint leaves: each process of tests would compile them for itself.
kernels: $(READY)
	$(BIN)/napari-gaussfit demo -o $(KERNELS) --force --quiet
	$(BIN)/napari-gaussfit spots $(KERNELS)/stack.ome.tif -o $(KERNELS)/spots --force --quiet

# Made while tests run: they wait for the network more than for a core.
other-environments:
	$(MAKE) $(OTHER_QT_VENV)/.ready VENV=$(OTHER_QT_VENV) EXTRAS=test,pyside6
	$(MAKE) $(LOWEST_VENV)/.ready VENV=$(LOWEST_VENV) EXTRAS=test,pyqt6 RESOLUTION=lowest-direct

other-packages:
	$(MAKE) smoke VENV=$(OTHER_QT_VENV) EXTRAS=test,pyside6
	$(MAKE) lowest

# Files, arithmetic, pages and the house: what most changes break, without windows and whole fits.
test-fast: lint ## Lint, then the quick tests: an answer in two minutes
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "not slow and not gui" $(FAST_TESTS)

coverage: $(READY) screen-packages ## Say which lines no test runs, those of processes that tests start too: htmlcov
	$(BIN)/python -m pip install 'coverage>=7.10.3'
	$(ON_SCREEN) $(BIN)/python -m coverage run -m pytest $(SIDE_BY_SIDE) -m "not slow" $(COVERED_TESTS)
	$(BIN)/python -m coverage combine
	$(BIN)/python -m coverage html
	$(BIN)/python -m coverage report

smoke: $(READY) screen-packages ## Run the smoke test of the windows with the Qt of EXTRAS
	$(ON_SCREEN) $(BIN)/python -m pytest -m smoke

lowest: ## Run quick tests with the lowest versions that pyproject.toml admits
	$(MAKE) quick-tests VENV=$(LOWEST_VENV) EXTRAS=test,pyqt6 RESOLUTION=lowest-direct

# Old packages with new ones beside them warn of each other, which is not for us to mend. Their Numba
# keeps its kernels apart: two versions in one folder would compile each other's anew.
QUICKLY = NUMBA_CACHE_DIR=$(VENV)/kernels $(ON_SCREEN) $(BIN)/python -m pytest \
    -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning

quick-tests: $(READY) screen-packages
	$(QUICKLY) $(LOWEST_TESTS)
	$(QUICKLY) -m smoke

lint: $(READY) ## Check rules, layout, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) $(NOTEBOOK_TABLE) ## Build the documentation, its pages executed: docs/_build/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -b html -d $(DOCS)/doctrees docs $(DOCS)/html

bench: $(READY) ## Time the kernels and the fit; prints a table and writes JSON
	$(BIN)/python -m benchmarks

screenshots: $(READY) screen-packages ## Make the pictures of the README and docs anew
	$(ON_SCREEN) $(BIN)/python docs/screenshots.py

clean: ## Remove the environment and all that was built, cached or written by the demo
	rm -rf $(VENV) $(OTHER_QT_VENV) $(LOWEST_VENV) build dist .mypy_cache .pytest_cache .ruff_cache
	rm -rf .coverage* htmlcov $(DEMO_OUTPUT) $(DOCS) docs/api/generated
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The documentation shows which test proves what, and how it ended: a run of `make test` wrote it,
# or the tests that it names are run now.
$(NOTEBOOK_TABLE): $(TESTED) | $(READY) screen-packages
	$(ON_SCREEN) $(BIN)/python -m pytest -q -m notebook --notebook-table=$@

window-packages:
	@.ci/system-packages $(WINDOW_PACKAGES)

screen-packages: window-packages
	@$(if $(HAS_SCREEN),,.ci/system-packages xvfb xauth)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than 3.11: name a newer one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/system-packages python3-venv
	$(PYTHON) -m venv $(if $(filter lowest-direct,$(RESOLUTION)),--clear) $(VENV)
	$(BIN)/python -m pip install --no-deps uv $(TORCH) || \
	    { echo "No $(TORCH) here: taking the newest torch instead"; $(BIN)/python -m pip install --no-deps uv torch; }
	$(BIN)/uv pip install --compile-bytecode --python $(VENV) --resolution $(RESOLUTION) -e '.[$(EXTRAS)]' \
	    torch==$$($(BIN)/python -c 'import importlib.metadata as m; print(m.version("torch"))')
	@touch $@
