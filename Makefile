# Needs Python 3.11 or newer, make and Node 20 or newer. Everything else is made here.

PYTHON ?= python3
PORT ?= 8000
# 0.0.0.0: phones and other machines may use the example, too.
HOST ?= 127.0.0.1
# Whether `make docs` serves the site that it has built.
SERVE ?= yes
# Processes that run tests side by side, each with a database and servers of its own.
WORKERS ?= 4

VENV := .venv
BIN := $(VENV)/bin
SUITE := tests/conformance
CLIENTS := tests/ai tests/browser

# What `make run` needs, and what the tests need on top of it, in one virtual environment.
VENV_MADE := $(VENV)/.made
# Its Python does not run, or is another one, after an upgrade of the system's: then everything is installed anew.
$(shell $(BIN)/python -c "import pip" 2>/dev/null || rm -f $(VENV_MADE))
INSTALL := $(PYTHON) tools/install_packages.py
INSTALLED_EXAMPLE := $(VENV)/.installed-example
INSTALLED := $(VENV)/.installed-dev
INSTALLED_MYSQL := $(VENV)/.installed-mysql
INSTALLED_NOX := $(VENV)/.installed-nox
# LiteLLM brings forty packages and needs a newer certifi than the other tests. So it has an environment of its own.
LITELLM := $(VENV)/litellm
INSTALLED_LITELLM := $(LITELLM)/.installed
# So have the packages that a benchmark measures beside this one.
ALTERNATIVES := $(VENV)/alternatives
INSTALLED_ALTERNATIVES := $(ALTERNATIVES)/.installed
# Packages for Node and the browser: the conformance suite, and clients of browsers and of AI answers.
INSTALLED_SUITE := $(SUITE)/node_modules/.installed
INSTALLED_CLIENTS := $(addsuffix /node_modules/.installed,$(CLIENTS))

# Tests of streams in Python, on every database too.
IN_PYTHON := $(addprefix tests/api/test_,stream_methods.py last_page.py tail.py writer.py) \
	$(addprefix tests/test_,emptying.py signals.py testing.py)
SIDE_BY_SIDE := -n $(WORKERS) --dist worksteal
# Notes which branches of the package run: `make coverage` shows them.
MEASURED := PYTEST_PLUGINS=tests.measuring $(BIN)/python -m pytest
# A test that failed beside servers that are killed and frozen has to pass alone: the machine may have been too busy.
# Only after status 1: a run that ended in another way has left tests out, or has not written down which have failed.
ALONE = { test $$? -eq 1 && TESTS_END= $(BIN)/pytest tests --last-failed --last-failed-no-failures none; }
# Subscriptions and consumers, as far as other databases have locks and lost connections that SQLite has not.
SUBSCRIPTIONS := $(addprefix tests/subscriptions/,test_transactions.py $(addprefix consumers/test_,transactions.py replay.py \
	crashes.py hostile_handlers.py task_wakes.py))
DATABASE_TESTS := --only-database tests/runtime tests/store tests/engine tests/models $(IN_PYTHON) $(SUBSCRIPTIONS) \
	$(addprefix tests/ai/test_,answers.py leases.py stored_runs.py)

# Tests start hundreds of processes: each would compile the package anew where the environment forbids to keep the result.
unexport PYTHONDONTWRITEBYTECODE

# What fails first when the package is changed: a good half of the unit tests, which start few processes.
QUICK_TESTS := $(addprefix tests/,protocol runtime models checks store engine api access) tests/test_conf.py

# Later stages take minutes; they also share the processor with the servers they start.
.NOTPARALLEL:
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 14

.PHONY: run
run: $(INSTALLED_EXAMPLE) ## serve the example project on 127.0.0.1:$PORT (8000); HOST=0.0.0.0 for other devices
	@exec $(BIN)/python tools/run_example.py --port $(PORT) --host $(HOST)

.PHONY: docs
docs: $(INSTALLED) ## build the documentation's site and serve it on 127.0.0.1:$PORT (8000); SERVE= only builds it
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	$(if $(SERVE),$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory build/docs)

.PHONY: test
test: $(VENV_MADE) services proxies ## every check
	@# All at once: two installations of system packages cannot run side by side.
	@$(PYTHON) tools/ensure_system.py python venv compiler pkg-config python-headers mysql-headers node npm chromium firefox
	@$(PYTHON) tools/side_by_side.py python-packages litellm node-packages
	@$(BIN)/python -m tests.measuring --erase
	@$(PYTHON) tools/side_by_side.py tests databases types lint
	@$(MAKE) --no-print-directory coverage

.PHONY: python-packages litellm node-packages
python-packages: $(INSTALLED_MYSQL) $(INSTALLED)
	@# While packages of the others arrive: otherwise each process that runs tests compiles all of them.
	@$(BIN)/python tools/compile_tests.py
litellm: $(INSTALLED_LITELLM)
node-packages: $(INSTALLED_SUITE) $(INSTALLED_CLIENTS)

.PHONY: tests
tests: $(INSTALLED_MYSQL) $(INSTALLED_LITELLM) $(INSTALLED_SUITE) $(INSTALLED_CLIENTS) services proxies ## unit, simulation, conformance, cluster and browser in one run
	@$(PYTHON) tools/ensure_system.py chromium firefox
	$(MEASURED) tests $(SIDE_BY_SIDE) || $(ALONE)

.PHONY: check
check: $(INSTALLED) ## lint, types and the quick tests, at the same time: for each commit
	@$(PYTHON) tools/side_by_side.py quick types lint

.PHONY: quick
quick: $(INSTALLED) ## the tests of the rooms below the server, with fewer examples
	QUICK=1 $(BIN)/pytest $(QUICK_TESTS) -q -m 'not slow' -n 3 --dist worksteal

.PHONY: lint
lint: $(INSTALLED) ## ruff: rules and format; codespell; who may import whom; the words of the glossary
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/check_names.py

.PHONY: types
types: $(INSTALLED) ## mypy on the package, the tests and the tools
	$(BIN)/mypy

.PHONY: unit
unit: $(INSTALLED) $(INSTALLED_LITELLM) ## the tests that need nothing but Python
	@$(BIN)/python -m tests.measuring --erase
	$(MEASURED) tests $(SIDE_BY_SIDE) -m "not conformance and not browser and not cluster and not simulation and not package"

.PHONY: coverage
coverage: $(INSTALLED) ## the branches of the package that the last tests and databases have run in their own processes
	@$(BIN)/python -m tests.measuring
	$(if $(wildcard build/coverage/unfinished),@echo "Tests were left out: the time of the run was over." >&2)
	$(BIN)/coverage report --sort=cover $(if $(wildcard build/coverage/unfinished),--fail-under=0)

.PHONY: simulation
simulation: $(INSTALLED) ## random programs and faults, decided by seeds; SEEDS=1000, or SEED=17 with its history
	$(if $(SEEDS),SIMULATION_SEEDS=$(SEEDS)) $(if $(SEED),SIMULATION_SEED=$(SEED)) $(BIN)/pytest tests/simulation -m "not cluster" -s

.PHONY: databases
databases: $(INSTALLED_MYSQL) services ## the tests of the store and the engine on PostgreSQL and MariaDB
	$(BIN)/python tools/databases.py $(DATABASE_TESTS)

.PHONY: database
database: $(INSTALLED_MYSQL) ## the same tests on the database that DATABASE_URL names
	@test -n "$(DATABASE_URL)" || { echo "DATABASE_URL is not set" >&2; exit 1; }
	DATABASE_URL=$(DATABASE_URL) $(BIN)/pytest $(DATABASE_TESTS)

.PHONY: cluster
cluster: $(INSTALLED_MYSQL) $(INSTALLED_SUITE) services proxies ## several workers, databases and Redis: killed, frozen, restarted
	$(BIN)/pytest tests $(SIDE_BY_SIDE) -m cluster

.PHONY: stress
stress: $(INSTALLED_MYSQL) services ## the same for much longer, a thousand seeds of the simulation, ten times the examples
	STRESS=1 $(BIN)/pytest tests/cluster -m cluster
	STRESS=1 $(BIN)/pytest tests/simulation
	STRESS=1 $(BIN)/pytest tests/protocol tests/store tests/engine tests/api tests/server tests/subscriptions $(SIDE_BY_SIDE)

.PHONY: services
services:
	@$(PYTHON) tools/ensure_system.py postgresql mariadb-server redis-server gettext

# What the configurations of docs/deployment/ are for.
.PHONY: proxies
proxies:
	@$(PYTHON) tools/ensure_system.py nginx caddy haproxy pgbouncer systemd-analyze

.PHONY: conformance
conformance: $(INSTALLED) $(INSTALLED_SUITE) ## the protocol's public suite against real servers
	$(BIN)/pytest tests/conformance -m "conformance and not cluster"

.PHONY: browser
browser: $(INSTALLED) $(INSTALLED_CLIENTS) ## pages and clients of streams in headless Chromium and Firefox
	@$(BIN)/python tools/ensure_system.py chromium firefox
	$(BIN)/pytest tests $(SIDE_BY_SIDE) -m browser

.PHONY: pictures
pictures: $(INSTALLED) ## the pictures of the example in docs/images, from the running example
	@$(BIN)/python tools/ensure_system.py chromium
	$(BIN)/python tools/take_pictures.py

.PHONY: package
package: $(INSTALLED) ## build the package, check it, and use it in an empty project
	$(BIN)/pytest tests/package

.PHONY: bench
bench: $(INSTALLED) ## measure beside the reference server; ARGS=--quick takes three minutes instead of thirty
	@$(PYTHON) tools/ensure_system.py node npm wrk postgresql redis-server
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-production
bench-production: $(INSTALLED) ## measure behind proxies, with tokens, on PostgreSQL with Redis, with two workers
	@$(PYTHON) tools/ensure_system.py node npm wrk postgresql redis-server nginx
	$(BIN)/python -m benchmarks.production $(ARGS)

.PHONY: bench-alternatives
bench-alternatives: $(INSTALLED) $(INSTALLED_ALTERNATIVES) ## messages to 500 readers, beside django-eventstream and groups of Channels
	@$(PYTHON) tools/ensure_system.py postgresql redis-server
	$(BIN)/python -m benchmarks.alternatives $(ARGS)

.PHONY: bench-guard
bench-guard: $(INSTALLED) ## five short rows of it against stored ratios to the ASGI ceiling; fails on a loss of 15 %
	@$(PYTHON) tools/ensure_system.py wrk
	$(BIN)/python -m benchmarks.guard $(ARGS)

.PHONY: messages
messages: $(INSTALLED) ## take new texts into the catalogs of translations, and compile these
	@$(PYTHON) tools/ensure_system.py gettext
	$(BIN)/python tools/messages.py

.PHONY: extras
extras: $(INSTALLED_NOX) ## resolve each extra, and each pair of two, to the newest and the lowest versions
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nox -s extras

.PHONY: matrix
matrix: $(INSTALLED_NOX) ## the unit tests on every supported Python (if found) and Django, and on the lowest dependencies
	$(BIN)/nox $(ARGS)

.PHONY: clean
clean: ## remove what was installed and generated, but not the example's database
	rm -rf $(VENV) .nox $(addsuffix /node_modules,$(SUITE) $(CLIENTS) benchmarks/reference) tests/artifacts build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV_MADE):
	@$(PYTHON) tools/ensure_system.py python venv
	@$(INSTALL) $(VENV)
	@touch $@

$(INSTALLED_EXAMPLE): $(VENV_MADE) pyproject.toml constraints.txt
	@echo "Installing the example into $(VENV). This takes up to a minute."
	@$(INSTALL) $(VENV) -e '.[example]' -c constraints.txt
	@touch $@

# The larger set holds the smaller one: `make run` after `make test` installs nothing.
$(INSTALLED): $(VENV_MADE) pyproject.toml constraints.txt
	$(INSTALL) $(VENV) -e '.[dev]' -c constraints.txt
	@touch $@ $(INSTALLED_EXAMPLE)

$(INSTALLED_NOX): $(VENV_MADE) constraints.txt
	$(INSTALL) $(VENV) 'nox[uv]' -c constraints.txt
	@touch $@

$(INSTALLED_LITELLM): $(VENV_MADE) tests/ai/litellm.txt
	$(BIN)/python -m venv --clear $(LITELLM)
	$(INSTALL) $(LITELLM) -r tests/ai/litellm.txt
	@touch $@

$(INSTALLED_ALTERNATIVES): $(VENV_MADE) benchmarks/alternatives.txt
	$(BIN)/python -m venv --clear $(ALTERNATIVES)
	$(INSTALL) $(ALTERNATIVES) -r benchmarks/alternatives.txt
	@touch $@

# The MySQL driver is compiled where it is installed, so only what needs it asks for it.
$(INSTALLED_MYSQL): $(VENV_MADE) pyproject.toml constraints.txt
	@$(PYTHON) tools/ensure_system.py compiler pkg-config python-headers mysql-headers
	$(INSTALL) $(VENV) -e '.[dev,mysql]' -c constraints.txt
	@touch $@ $(INSTALLED) $(INSTALLED_EXAMPLE)

%/node_modules/.installed: %/package.json %/package-lock.json
	@$(PYTHON) tools/ensure_system.py node npm
	cd $* && npm ci --loglevel=error --ignore-scripts
	@touch $@
