# Two commands on a fresh machine: `make demo` and `make test`. Both build .venv from pinned versions and can be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# With more than one torch thread per process, busy neighbours make small steps many times slower.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
# One setting for installation and runs: with bytecode `import lightning` costs 3 s, without it 8 s.
unexport PYTHONDONTWRITEBYTECODE
# The certificates that this machine trusts, as pip does.
export UV_SYSTEM_CERTS ?= true

DEMO_ARGS ?=
PYTEST_ARGS ?=
# Processes of tests, each with one torch thread; a file stays in one of them. 0 runs all in this one.
TEST_WORKERS ?= 2

.PHONY: demo test faults test-long lint format clean

$(VENV)/pip.stamp:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"lit_pwm needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.11 ..."'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	touch $@

# The local wheel folder of a machine (PIP_FIND_LINKS) is honoured, which pip does by itself and uv does not.
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $${PIP_FIND_LINKS:+--find-links "$$PIP_FIND_LINKS"} -c constraints.txt

$(VENV)/core.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	@echo "Installing lit_pwm and its pinned dependencies into $(VENV) ..."
	$(INSTALL) -e .
	touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp
	@echo "Installing the test extras into $(VENV) ..."
	$(INSTALL) -e '.[dev]'
	touch $@

demo: $(VENV)/core.stamp
	$(BIN)/lit-pwm demo --overwrite $(DEMO_ARGS)

PYTEST = $(BIN)/python -m pytest -n $(TEST_WORKERS)

test: $(VENV)/dev.stamp lint
	$(PYTEST) --dist loadfile -m "not faults and not long" $(PYTEST_ARGS)

# Injected faults: signals in each phase, kills at each rename, full disks, hostile files. They are sent to real processes
# at real moments, which a busy machine can shift: what failed is tried once more, alone, and must pass then.
faults: $(VENV)/dev.stamp
	$(PYTEST) --dist worksteal -m faults $(PYTEST_ARGS) || \
	$(BIN)/python -m pytest -m faults --last-failed --last-failed-no-failures none

# Other tests that take too long for every change.
test-long: $(VENV)/dev.stamp
	$(PYTEST) --dist loadfile -m "long and not faults" $(PYTEST_ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache runs report lightning_logs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
