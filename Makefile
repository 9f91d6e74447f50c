# make demo   compares five students of digits over three seeds: alone, and distilled by several methods
# make test   the whole test suite
# make docs   the documentation as a site, in build/site
# All make .venv first where it is missing. Another Python: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# One that is asked for and not had would pass unseen.
ifeq ($(origin PYTHON)$(filter clean,$(MAKECMDGOALS)),command line)
ifneq ($(wildcard $(BIN)/python),)
ifneq ($(shell $(BIN)/python -V 2>/dev/null),$(shell $(PYTHON) -V 2>/dev/null))
$(error $(VENV) is there already, with $(shell $(BIN)/python -V), which $(PYTHON) is not: run make clean first)
endif
endif
endif

.PHONY: demo test docs clean

demo: $(VENV)/.installed-demo
	@$(BIN)/python scripts/demo.py

test: $(VENV)/.installed-test
	@$(BIN)/python -m pytest

docs: $(VENV)/.installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Open build/site/index.html"

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there: name a Python 3.11 or newer, make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "keras_tkd needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo none that runs): name another, make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (Debian: apt install python3-venv), or name another Python"; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The stamps are written after an install that succeeded, and are older than setup.cfg once that changes.
$(VENV)/.installed: setup.cfg | $(BIN)/python
	@echo "Installing keras_tkd into $(VENV) (once; some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.installed
	@echo "Installing what draws the demo's report"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[report]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing what the tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,docs]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "Installing what the site of the documentation needs"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@
