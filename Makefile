# make demo    sets up what is missing, then shows the main job on real hosts in namespaces
# make test    sets up what is missing, then runs the whole test suite
# Both need root or sudo: hosts are network namespaces with an sshd each.

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
SYSTEM_PYTHON := $(firstword $(wildcard /usr/bin/python3) python3)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
#: What the labs and the tests run: Debian 12's names.
PACKAGES := python3-venv sudo openssh-server openssh-client iproute2 nftables ethtool iputils-ping \
	procps util-linux strace openvswitch-switch
#: What libvirt-python, which has no wheel, is built with.
LIBVIRT_PACKAGES := libvirt-dev pkg-config gcc python3-dev
WORKERS := 2
RUNS := 200
SEQUENCES := 300
SEED := 1

.PHONY: help setup demo test unit lint faults sequences bench clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo 'make setup   Debian packages, .venv/ and the locked Python packages, no more'
	@echo 'make unit    the tests that need neither root nor a namespace'
	@echo 'make lint    ruff, mypy --strict, the layers'
	@echo 'make faults RUNS=200 SEED=1   attack the transaction, print the figures'
	@echo 'make sequences SEQUENCES=300 SEED=1   random intents in turn, and all the way back'
	@echo 'make bench   fleet, Ansible, pyinfra and bare asyncssh on one job'

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock requirements-libvirt.lock pyproject.toml Makefile
	@scripts/install-packages $(PACKAGES)
	@echo "setup: Python packages of requirements.lock into $(VENV)/"
	@test -x $(PYTHON) || $(SYSTEM_PYTHON) -m venv $(VENV)
	@$(PYTHON) -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PYTHON) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@scripts/install-libvirt $(PYTHON) $(LIBVIRT_PACKAGES)
	@touch $@

demo: setup
	@$(SUDO) $(PYTHON) scripts/demo.py

test: setup
	$(SUDO) $(PYTHON) -m pytest -q -n $(WORKERS) --dist loadfile

unit: setup
	$(PYTHON) -m pytest -q -n $(WORKERS) tests/unit tests/golden

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

faults: setup
	$(SUDO) $(PYTHON) -m tests.faults --runs $(RUNS) --seed $(SEED)

sequences: setup
	$(SUDO) env FLEET_SEQUENCES=$(SEQUENCES) FLEET_SEED=$(SEED) $(PYTHON) -m pytest -q -s tests/kernel/test_sequences.py

bench: setup
	@test -x bench/.venv/bin/python || $(SYSTEM_PYTHON) -m venv bench/.venv
	@bench/.venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r bench/requirements.lock
	$(SUDO) $(PYTHON) bench/compare.py --rivals bench/.venv/bin

clean:
	rm -rf $(VENV) bench/.venv dist .mypy_cache .ruff_cache .pytest_cache
