# Steersman: `make up` starts a cluster, `make test` runs every test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PROTOS := $(wildcard proto/*.proto)
# tests that compute on one processor: they run beside those that mostly wait, and give way to them
COMPUTING := $(addprefix tests/,cli cluster deploy packaging sim)
COMPUTED  := $(VENV)/computing.log

.DEFAULT_GOAL := help
.PHONY: help install machine up down test waiting computing lint bench proto clean

help:  ## show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## prepare .venv with steer in it

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m compileall -q src/steersman/*/
	@touch $@

machine:  ## install what real containers need (Debian and Ubuntu, as root; elsewhere pods run as plain processes)
	@deploy/machine.sh

up: install machine  ## start a cluster, deploy an example, watch its rollout
	@deploy/quickstart.sh

down: install  ## stop the cluster and remove what it made
	@$(BIN)/steer down

test:  ## run every test
	@$(MAKE) --no-print-directory --jobs=2 install machine
	@$(MAKE) --no-print-directory --jobs=2 --keep-going waiting lint computing

waiting: install machine
	$(BIN)/python -m pytest $(addprefix --ignore=,$(COMPUTING))

computing: install
	@nice $(BIN)/python -m pytest $(COMPUTING) >$(COMPUTED) 2>&1; code=$$?; cat $(COMPUTED); exit $$code

lint: install  ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install machine  ## print the figures of every hot path
	$(BIN)/python -m tests.bench

proto: install  ## generate proto/gen from proto/*.proto
	$(BIN)/python -m grpc_tools.protoc -I steersman/pb=proto --python_out=src --pyi_out=src --grpc_python_out=src \
		$(patsubst proto/%,steersman/pb/%,$(PROTOS))

clean:  ## remove what make made here
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info
