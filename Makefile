# make demo    sets up what is missing, then shows the main job on real hosts in namespaces
# make test    sets up what is missing, then runs the whole test suite
# make test-vm builds the test host image and runs what needs machines that boot
# Both need root or sudo: hosts are network namespaces with an sshd each.

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
SYSTEM_PYTHON := $(firstword $(wildcard /usr/bin/python3) python3)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
#: What the labs and the tests run: Debian 12's names.
PACKAGES := python3-venv sudo openssh-server openssh-client iproute2 nftables ethtool iputils-ping \
	procps util-linux strace openvswitch-switch libvirt-daemon-system libvirt-clients dnsmasq-base
#: What libvirt-python, which has no wheel, is built with.
LIBVIRT_PACKAGES := libvirt-dev pkg-config gcc python3-dev
#: What builds the test host image; all else of the VM lab is in the image.
IMAGE_PACKAGES := mmdebstrap
WORKERS := 2
RUNS := 200
JOBS := 4
SEQUENCES := 300
SEED := 1
INPUTS := 100000
RACES := 202

.PHONY: help setup demo test image test-vm-short test-vm test-vm-all unit lint faults races fuzz sequences bench clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo 'make setup   Debian packages, .venv/ and the locked Python packages, no more'
	@echo 'make image   the test host image, as a disk and as a Vagrant box; once, then cached'
	@echo 'make test-vm-short   the lab of machines and the main job on it; make test-vm-all: all, for hours'
	@echo 'make unit    the tests that need neither root nor a namespace'
	@echo 'make lint    ruff, mypy --strict, the layers'
	@echo 'make faults RUNS=200 SEED=1 JOBS=4   attack the transaction, print the figures'
	@echo 'make races RACES=202   confirm against the deadline, 50 ms around it in steps of 1 ms'
	@echo 'make fuzz INPUTS=100000 SEED=1   changed inputs for all that fleet reads'
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

image:
	@scripts/install-packages $(IMAGE_PACKAGES)
	@$(SUDO) vagrant/box/build

# One after the other: a machine that boots keeps two processors busy.
VM_TESTS := $(SUDO) $(PYTHON) -m pytest -q -p no:xdist --durations=0
MAIN_JOB := tests/lab/test_main_job.py::test_from_plan_to_repair
MORE_JOBS := tests/lab/test_main_job.py tests/lab/test_way_back.py tests/lab/test_cables.py
ON_MACHINES := $(SUDO) env FLEET_LAB_BACKEND=vm $(PYTHON) -m pytest -q -p no:xdist --durations=0 -o timeout=900

test-vm-short: setup image
	$(ON_MACHINES) $(MAIN_JOB) tests/lab/test_cables.py

test-vm: setup image
	$(ON_MACHINES) $(MAIN_JOB) tests/lab/test_cables.py
	$(VM_TESTS) -m vm tests/vm
	@echo 'left out, see make test-vm-all: the reset at each moment (above, as skipped), and on machines:'
	@echo '  $(MORE_JOBS), the rest of them'

test-vm-all: setup image
	$(ON_MACHINES) $(MORE_JOBS)
	$(VM_TESTS) -m 'vm or vm_all' tests/vm

unit: setup
	$(PYTHON) -m pytest -q -n $(WORKERS) tests/unit tests/golden

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

faults: setup
	$(SUDO) $(PYTHON) -m tests.faults --runs $(RUNS) --seed $(SEED) --jobs $(JOBS)

races: setup
	$(SUDO) $(PYTHON) -m tests.faults --races $(RACES)

fuzz: setup
	$(PYTHON) -m tests.fuzz --inputs $(INPUTS) --seed $(SEED)

sequences: setup
	$(SUDO) env FLEET_SEQUENCES=$(SEQUENCES) FLEET_SEED=$(SEED) $(PYTHON) -m pytest -q -s tests/kernel/test_sequences.py

bench: setup
	@test -x bench/.venv/bin/python || $(SYSTEM_PYTHON) -m venv bench/.venv
	@bench/.venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r bench/requirements.lock
	$(SUDO) $(PYTHON) bench/compare.py --rivals bench/.venv/bin

clean:
	rm -rf $(VENV) bench/.venv dist .mypy_cache .ruff_cache .pytest_cache
