# Every task of the project. `make demo` and `make test` set up what they need by themselves.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
UV := 0.13.8
SETUP := $(VENV)/.set-up
SOURCES := model_name components pipelines tests benchmarks local_kafka data demo.py
CONFS ?= confs/flights
JOB ?= training
JOBS := preparation tuning training evaluations explanations promotion reports inference
CONTAINER ?= docker
TAG ?= 0.1.0

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONUNBUFFERED := 1
export OMP_WAIT_POLICY := PASSIVE

##@ The two that matter

.PHONY: demo
demo: $(SETUP)  ## Train on the example table through the compiled pipeline, serve it, predict
	$(RUN) demo.py

.PHONY: test
test: $(SETUP) check-lint check-types check-imports check-security check-coverage  ## Every check and every test

##@ installs

.PHONY: installs install install-hooks
installs: install install-hooks  ## Set-up and the git hooks
install: $(SETUP)  ## Install the locked requirements into .venv; nothing to do when up to date
install-hooks: $(SETUP)  ## Git hooks: format, lint, commit message
	$(BIN)/pre-commit install --hook-type pre-commit --hook-type commit-msg

# The stamp is newer than what it was made from, or the set-up runs again.
$(SETUP): requirements.lock pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --python $(RUN) --requirements requirements.lock
	$(BIN)/uv pip install --python $(RUN) --no-deps --editable .
	# Each step of a pipeline is a process of its own: compiled once, its imports take a third of the time.
	$(RUN) -m compileall -q -j 0 $(VENV)/lib > /dev/null || true
	touch $@

.PHONY: lock
lock: $(SETUP)  ## Resolve the requirements anew
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --no-header \
	  --no-annotate --no-emit-index-url --quiet --output-file requirements.lock

##@ formats

.PHONY: formats format-imports format-sources
formats: format-imports format-sources  ## Sort imports and format
format-imports: $(SETUP)  ## Sort imports
	$(BIN)/ruff check --select I --fix $(SOURCES)
format-sources: $(SETUP)  ## Format
	$(BIN)/ruff format $(SOURCES)

##@ checks

.PHONY: checks check-lint check-types check-imports check-security check-tests check-coverage
checks: test  ## The same as test
check-lint: $(SETUP)  ## Format and lint
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
check-types: $(SETUP)  ## Types, strictly
	$(BIN)/mypy
check-imports: $(SETUP)  ## Which room may import which
	$(BIN)/lint-imports --no-logo
check-security: $(SETUP)  ## Patterns that open doors
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml model_name components pipelines
check-tests: $(SETUP)  ## All tests
	$(BIN)/pytest
check-coverage: export OMP_NUM_THREADS := 1
check-coverage: $(SETUP)  ## All tests, two at a time, with the branch coverage of model_name
	$(BIN)/coverage erase
	$(BIN)/pytest --numprocesses 2 --dist loadfile --cov --cov-report term --durations 30

##@ cleans

.PHONY: cleans clean-cache clean-state clean-build clean-venv reset
cleans: clean-cache clean-build  ## Caches and what was built
clean-cache:  ## Caches of the tools
	rm -rf .ruff_cache .mypy_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -not -path './$(VENV)/*' -exec rm -rf {} +
clean-build:  ## What jobs, pipelines and packaging made
	rm -rf build dist local_outputs docs/api
clean-state:  ## Runs, versions and the audit trail of this folder
	rm -rf mlflow.db mlartifacts mlruns audit
clean-venv:  ## The virtual environment
	rm -rf $(VENV)
reset: cleans clean-state clean-venv  ## Everything

##@ commits

.PHONY: commits commit commit-bump commit-info
commits: commit  ## Commit with the questions of commitizen
commit: $(SETUP)  ## The same
	$(BIN)/cz commit
commit-bump: $(SETUP)  ## Bump the version from the commits
	$(BIN)/cz bump --yes
commit-info: $(SETUP)  ## What a commit message looks like
	$(BIN)/cz info

##@ containers

.PHONY: containers container-trainer container-server container-run
containers: container-trainer container-server  ## Build both images (CONTAINER=docker|podman, TAG=...)
container-trainer: package-build  ## The image of the pipeline's steps
	$(CONTAINER) build --file dockerfiles/trainer.dockerfile --tag model-name-python:$(TAG) .
container-server: package-build  ## The image of the server
	$(CONTAINER) build --file dockerfiles/server.dockerfile --tag model-name-server:$(TAG) .
container-run:  ## Serve build/bundles/flights/1 from the image
	$(CONTAINER) run --rm --read-only --tmpfs /tmp --publish 8080:8080 --publish 8081:8081 \
	  --volume $(CURDIR)/build/bundles/flights/1:/mnt/models:ro model-name-server:$(TAG)

##@ docs

.PHONY: docs docs-api docs-serve
docs: docs-api  ## The API reference
docs-api: $(SETUP)  ## Write it to docs/api
	rm -rf docs/api
	$(BIN)/pdoc --docformat google --output-directory docs/api model_name '!model_name.serving.__main__' '!model_name.__main__'
docs-serve: $(SETUP)  ## Serve it on port 8088
	$(BIN)/pdoc --docformat google --host 127.0.0.1 --port 8088 --no-browser model_name '!model_name.serving.__main__'

##@ kafka

.PHONY: kafka kafka-up kafka-down kafka-status
kafka: kafka-up  ## The same as kafka-up
kafka-up: $(SETUP)  ## A real Kafka on port 9092, in the background (KAFKA="--nodes 3 --secured --topic rows:4")
	$(RUN) -m local_kafka up $(KAFKA)
kafka-down: $(SETUP)  ## End it and remove its data
	$(RUN) -m local_kafka down
kafka-status: $(SETUP)  ## Whether it is up, and where
	$(RUN) -m local_kafka status

##@ mlflow

.PHONY: mlflow mlflow-doctor mlflow-serve
mlflow: mlflow-doctor mlflow-serve  ## Both
mlflow-doctor: $(SETUP)  ## What MLflow says of itself
	$(BIN)/mlflow doctor
mlflow-serve: $(SETUP)  ## The MLflow UI on port 5000
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow.db

##@ packages

.PHONY: packages package-build
packages: package-build  ## The wheel
package-build: $(SETUP)  ## The same, to dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation

##@ projects

.PHONY: projects project-run project-requirements pipeline-compile pipeline-run
projects: $(SETUP)  ## Every job of CONFS, one after the other
	for job in $(JOBS); do $(MAKE) --no-print-directory project-run JOB=$$job; done
project-run: $(SETUP)  ## One job of CONFS, e.g. make project-run JOB=training
	$(BIN)/model-name run $(CONFS)/$(JOB).yaml
project-requirements: lock  ## The locked requirements
pipeline-compile: $(SETUP)  ## Compile the pipelines of CONFS
	for name in training inference; do $(RUN) -m pipelines compile $$name --confs $(CONFS); done
pipeline-run: $(SETUP)  ## Run the training pipeline of CONFS here
	$(RUN) -m pipelines run training --confs $(CONFS)

.PHONY: help
help:  ## This list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {split($$1, name, ":"); printf "  %-22s %s\n", name[1], $$2}' $(MAKEFILE_LIST)
