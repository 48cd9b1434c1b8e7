# All targets except clean first install the project into a virtual environment, .venv.

PYTHON ?= python3
# The tested version. To install the latest one, use TORCH='torch>=2.11'.
TORCH ?= torch==2.13.0

DEVICE ?= cuda
MINUTES ?= 8
OUT ?= gpu_check

BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test test-fast gpu-check bench format clean

demo: $(INSTALLED)
	$(BIN)/repeat-study run laptop
	$(BIN)/repeat-study report laptop
	$(BIN)/repeat-study run laptop_heads
	$(BIN)/repeat-study report laptop_heads

# Five workers suit two cores, because two of them mostly wait for SLURM.
test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder -m 'not slow'

# For a machine with a GPU. Without one: make gpu-check DEVICE=cpu MINUTES=4
gpu-check: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu_check --device $(DEVICE) --minutes $(MINUTES) --out $(OUT)

bench: $(INSTALLED)
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/probes.py
	$(BIN)/python benchmarks/bundles.py
	$(BIN)/python benchmarks/report.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Install torch first and separately, so that no other package determines its version.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "repeat-study needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
