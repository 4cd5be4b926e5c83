# Two commands are enough to start: `make demo` and `make test`. Both make .venv from the pinned versions first.
PYTHON ?= python3
BIN := .venv/bin
export MLFLOW_DISABLE_TELEMETRY = true

.PHONY: demo test check fix golden slow slurm clean

demo: .venv/.installed  ## train, evaluate and judge the core methods on embedded data
	$(BIN)/python -m harness demo

test: .venv/.installed  ## the fast tests
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu and not network and not slurm"

slow: .venv/.installed  ## the slow tests
	$(BIN)/python -m pytest -n 2 -m "slow and not gpu and not network and not slurm"

slurm: .venv/.installed  ## faults on a real SLURM that the tests start; skipped where SLURM is not installed
	$(BIN)/python -m pytest -n 2 -m slurm

check: .venv/.installed  ## format, lint, types, fast tests; CI runs this, then `make slow` and `make slurm`
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

fix: .venv/.installed  ## format and repair what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

golden: .venv/.installed  ## write the golden losses anew, and digests of new recipes; say in the commit why losses changed
	$(BIN)/python -m pytest tests/test_golden.py tests/test_recipes.py --write-golden

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("harness needs Python 3.11 or newer; call make with PYTHON=python3.12, say" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:  ## remove the virtual environment and the runs
	rm -rf .venv runs
