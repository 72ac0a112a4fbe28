# Every target sets up what it needs: the system packages, .venv and the package itself.
PYTHON := .venv/bin/python
STAMP  := .venv/.penstock-ready
# As many processes as there are processors; PYTEST_ARGS= for one, or PYTEST_ARGS="-k match -x".
PYTEST_ARGS ?= -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test check kernels units golden fuzz torture bench install-units clean

help:
	@echo "make setup    system packages, .venv, .venv/bin/penstock"
	@echo "make demo     packets dropped at XDP between two namespaces of its own (best as root)"
	@echo "make test     every test; as root also those that speak to the kernel"
	@echo "make check    format, lint, types, import contracts, then every test"
	@echo "make kernels  boot Debian's kernels under qemu and run penstock on them (SERIES='5.10 6.1')"
	@echo "make units    start the systemd units in namespaces of their own and see what they do (root)"
	@echo "make golden   rewrite the golden files of tests/cases"
	@echo "make fuzz     the fuzzers, longer than in the tests (SECONDS=60)"
	@echo "make torture  1,000 replacements at each place under a full load of frames: none decided wrongly (root)"
	@echo "make bench    measure; writes bench/results and docs/performance.md (root; QUICK=1 for two minutes)"
	@echo "make install-units DESTDIR=DIR   systemd units, users and directories (packaging/README.md)"
	@echo "make clean    remove .venv and caches"

setup: $(STAMP)

$(STAMP): pyproject.toml tools/setup.sh
	@tools/setup.sh
	@touch $@

demo: $(STAMP)
	@.venv/bin/penstock demo

# In strict mode a privileged test may not be skipped: used whenever this user can load BPF programs.
test: $(STAMP)
	@tools/setup.sh peers
	@PENSTOCK_STRICT=$${PENSTOCK_STRICT-$$($(PYTHON) tools/bpf_ready.py)} $(PYTHON) -m pytest $(PYTEST_ARGS)

check: $(STAMP)
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@$(MAKE) --no-print-directory test

# Skipped, with a sentence, where qemu or the kernels cannot be had; PENSTOCK_STRICT=1 makes that a failure.
kernels: $(STAMP)
	@tools/setup.sh kernels
	@$(PYTHON) -m tools.kernels $(SERIES)

# Skipped, with a sentence, where there is no systemd; PENSTOCK_STRICT=1 makes that a failure.
units: $(STAMP)
	@$(PYTHON) -m tools.units

golden: $(STAMP)
	PENSTOCK_GOLDEN=write $(PYTHON) -m pytest -q tests/unit tests/cases

SECONDS ?= 60
fuzz: $(STAMP)
	PENSTOCK_FUZZ_SECONDS=$(SECONDS) $(PYTHON) -m pytest -q --timeout=0 tests/fuzz tests/kernel/test_set_machine.py

RELOADS ?= 1000
torture: $(STAMP)
	PENSTOCK_STRICT=1 PENSTOCK_TORTURE=$(RELOADS) $(PYTHON) -m pytest -q -s --timeout=0 tests/e2e/test_torture.py

bench: $(STAMP)
	@$(PYTHON) -c 'import matplotlib' 2>/dev/null || $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input --root-user-action=ignore -e '.[bench]' || echo 'without matplotlib there are no plots'
	@$(PYTHON) -m bench $(if $(QUICK),--quick)

# What belongs beside the Python package in a distribution's: packaging/README.md.
PREFIX ?= /usr
install-units:
	@for unit in packaging/systemd/*.service; do \
	    install -D -m 644 $$unit $(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/}; \
	    sed -i 's,/usr/bin/penstock,$(PREFIX)/bin/penstock,' $(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/}; \
	done
	@install -D -m 644 packaging/sysusers.d/penstock.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/penstock.conf
	@install -D -m 644 packaging/tmpfiles.d/penstock.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/penstock.conf
	@install -D -m 644 packaging/etc/settings.toml $(DESTDIR)$(PREFIX)/share/doc/penstock/settings.toml

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
