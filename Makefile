# Every target does its own set-up: a virtual environment in .venv, then the work.

PYTHON ?= python3
# The version the project is tested with; TORCH='torch>=2.11' takes the newest.
TORCH ?= torch==2.13.0

BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test bench format clean

demo: $(INSTALLED)
	$(BIN)/repeat-study run studies/laptop.toml
	$(BIN)/repeat-study report studies/laptop.toml

# Three workers on two cores: one of them mostly waits for SLURM.
test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 3 --dist loadgroup

bench: $(INSTALLED)
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/probes.py
	$(BIN)/python benchmarks/bundles.py
	$(BIN)/python benchmarks/report.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch goes first and alone, so that nothing else chooses its version.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "repeat-study needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
