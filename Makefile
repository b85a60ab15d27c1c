# The commands people need: run, test, check, bench, css, clean.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run test check bench css clean tools-for-tests litellm-for-tests

run: $(VENV)/installed ## everything on this machine; PORT=8001 and the like come from the environment
	@exec $(BIN)/python manage.py up

test: $(VENV)/installed-dev tools-for-tests litellm-for-tests ## every test; ARGS="tests/jobs -x" for some
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/installed-dev ## lint, format, types, templates, migrations, architecture, compiled CSS, README
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy webapp trainer lowrank
	$(BIN)/djlint templates --lint --quiet
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; export DATA_DIR="$$folder"; \
	  $(BIN)/python manage.py makemigrations --check --dry-run; \
	  BASE_URL=https://lowrank.example $(BIN)/python manage.py check --deploy --fail-level WARNING
	$(BIN)/python static/css/build.py --check
	$(BIN)/python docs/layout.py --check
	$(BIN)/python -m pytest tests/test_architecture.py

bench: $(VENV)/installed-dev ## measurements
	@$(BIN)/python -m benchmarks $(ARGS)

css: $(VENV)/installed-dev ## static/css/app.css from static/css/src
	@$(BIN)/python static/css/build.py

clean: ## caches and the virtual environment; never the data
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment. A stamp says which requirements are in it; pip runs when a requirements file is newer.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Lowrank needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)."; \
	  echo "Install one and name it: make run PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "Python could not make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/installed: requirements.txt requirements/web.txt requirements/trainer.txt | $(BIN)/python
	@echo "Installing requirements.txt into $(VENV): once, a few minutes"
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements/dev.txt $(VENV)/installed
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements/dev.txt
	@touch $@

# A client of the API with requirements of its own, so in an environment of its own. Where no package index can be
# reached its test is skipped, and says so; what an index refuses is an error.
litellm-for-tests: $(BIN)/python
	@[ $(VENV)/litellm/installed -nt requirements/litellm.txt ] && exit 0; \
	[ -x $(VENV)/litellm/bin/python ] || $(BIN)/python -m venv $(VENV)/litellm; \
	pip="$(VENV)/litellm/bin/python -m pip --disable-pip-version-check"; \
	echo "Installing LiteLLM into $(VENV)/litellm for the tests: once, a minute or two"; \
	if $$pip install -q -r requirements/litellm.txt; then touch $(VENV)/litellm/installed; exit 0; fi; \
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	if $$pip download -q --no-deps --no-cache-dir -d "$$folder" pip; then exit 1; fi; \
	echo "No package index can be reached: the test with LiteLLM is skipped"

# Programs the tests drive: a browser, and the servers that can stand in for the embedded ones.
tools-for-tests:
	@need=(); \
	command -v chromium >/dev/null || need+=(chromium); \
	command -v redis-server >/dev/null || need+=(redis-server); \
	compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || need+=(postgresql); \
	[ $${#need[@]} -eq 0 ] && exit 0; \
	as_root=(); \
	if [ "$$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi; \
	if ! command -v apt-get >/dev/null || ! "$${as_root[@]}" true 2>/dev/null; then \
	  echo "The tests need $${need[*]}. Install them as root (on Debian: apt-get install $${need[*]}), then run make test again."; \
	  exit 1; \
	fi; \
	"$${as_root[@]}" apt-get update -qq; \
	"$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${need[@]}"
