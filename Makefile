# Tasks of the project. Each target installs the requirements first if they are missing or out of date.

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

##@ The two main commands

.PHONY: demo
demo: $(SETUP)  ## Run the training pipeline on the example table, serve the champion, predict over each protocol
	$(RUN) demo.py

.PHONY: test
test: $(SETUP) check-static  ## Static checks and the tests that a change needs; repetition counts are reduced
	$(PYTEST) -m "not kafka and not fault and not benchmark and not extended" --durations 15

##@ installs

.PHONY: installs install install-hooks
installs: install install-hooks  ## Install the requirements and the git hooks
install: $(SETUP)  ## Install the locked requirements into .venv; no-op when up to date
install-hooks: $(SETUP)  ## Install the git hooks: format, lint, commit message
	$(BIN)/pre-commit install --hook-type pre-commit --hook-type commit-msg

# The stamp file is newer than the files that define the environment.
$(SETUP): requirements.lock pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --python $(RUN) --requirements requirements.lock
	$(BIN)/uv pip install --python $(RUN) --no-deps --editable .
	# Each pipeline step is a process of its own: precompiled bytecode cuts its import time to a third.
	$(RUN) -m compileall -q -j 0 $(VENV)/lib > /dev/null || true
	touch $@

.PHONY: lock
lock: $(SETUP)  ## Resolve the requirements again and write requirements.lock
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --no-header \
	  --no-annotate --no-emit-index-url --quiet --output-file requirements.lock

##@ formats

.PHONY: formats format-imports format-sources
formats: format-imports format-sources  ## Sort imports and format
format-imports: $(SETUP)  ## Sort imports
	$(BIN)/ruff check --select I --fix $(SOURCES)
format-sources: $(SETUP)  ## Format
	$(BIN)/ruff format $(SOURCES)

##@ tests

# Two processes, each runs whole files; tests/conftest.py sorts the files, the longest first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: test-unit test-integration test-kafka test-faults test-benchmarks test-all
test-unit: $(SETUP)  ## Tests without MLflow jobs, server processes, brokers and pipelines
	$(PYTEST) -m "not integration and not kafka and not fault and not benchmark and not extended"
test-integration: $(SETUP)  ## Jobs with MLflow, the command line, server processes, explainers, pipelines
	$(PYTEST) -m "integration"
test-kafka: $(SETUP)  ## The Kafka worker and its tools on real brokers, without faults
	$(PYTEST) -m "kafka and not fault"
test-faults: $(SETUP)  ## Kafka and Knative eventing under faults, with the full counts
	MODEL_NAME_TEST_COUNTS=full $(PYTEST) -m "fault"
test-benchmarks: $(SETUP)  ## The benchmarks at a small size
	$(PYTEST) -m "benchmark"
test-all: $(SETUP) check-static  ## Static checks and all tests with the full repetition counts and branch coverage; what CI runs
	$(BIN)/coverage erase
	MODEL_NAME_TEST_COUNTS=full $(PYTEST) --cov --cov-report term --durations 40 --junitxml build/tests.xml

##@ checks

.PHONY: checks check-static check-lint check-types check-imports check-security
checks: test-all  ## All checks and tests: an alias of test-all
check-static: check-lint check-types check-imports check-security  ## Format, lint, types, import contracts, security
check-lint: $(SETUP)  ## Format and lint
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
check-types: $(SETUP)  ## Static types (mypy, strict)
	$(BIN)/mypy
check-imports: $(SETUP)  ## Import contracts between packages
	$(BIN)/lint-imports --no-logo
check-security: $(SETUP)  ## Insecure code patterns (bandit)
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml model_name components pipelines

##@ cleans

.PHONY: cleans clean-cache clean-state clean-build clean-venv reset
cleans: clean-cache clean-build  ## Remove caches and build outputs
clean-cache:  ## Remove the caches of the tools
	rm -rf .ruff_cache .mypy_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -not -path './$(VENV)/*' -exec rm -rf {} +
clean-build:  ## Remove build outputs of jobs, pipelines and packaging
	rm -rf build dist local_outputs docs/api
clean-state:  ## Remove the MLflow store and the audit trail of this folder
	rm -rf mlflow.db mlartifacts mlruns audit
clean-venv:  ## Remove the virtual environment
	rm -rf $(VENV)
reset: cleans clean-state clean-venv  ## Remove everything that these targets create

##@ commits

.PHONY: commits commit commit-bump commit-info
commits: commit  ## Commit interactively with commitizen
commit: $(SETUP)  ## Commit interactively with commitizen
	$(BIN)/cz commit
commit-bump: $(SETUP)  ## Bump the version according to the commits
	$(BIN)/cz bump --yes
commit-info: $(SETUP)  ## Describe the commit message format
	$(BIN)/cz info

##@ containers

.PHONY: containers container-trainer container-server container-run
containers: container-trainer container-server  ## Build both images (CONTAINER=docker|podman, TAG=...)
container-trainer: package-build  ## Build the image of the pipeline steps
	$(CONTAINER) build --file dockerfiles/trainer.dockerfile --tag model-name-python:$(TAG) .
container-server: package-build  ## Build the image of the server
	$(CONTAINER) build --file dockerfiles/server.dockerfile --tag model-name-server:$(TAG) .
container-run:  ## Serve build/bundles/flights/1 from the image
	$(CONTAINER) run --rm --read-only --tmpfs /tmp --publish 8080:8080 --publish 8081:8081 \
	  --volume $(CURDIR)/build/bundles/flights/1:/mnt/models:ro model-name-server:$(TAG)

##@ docs

.PHONY: docs docs-api docs-serve
docs: docs-api  ## Build the API reference
docs-api: $(SETUP)  ## Build the API reference into docs/api
	rm -rf docs/api
	$(BIN)/pdoc --docformat google --output-directory docs/api model_name '!model_name.serving.__main__' '!model_name.__main__'
docs-serve: $(SETUP)  ## Serve the API reference on port 8088
	$(BIN)/pdoc --docformat google --host 127.0.0.1 --port 8088 --no-browser model_name '!model_name.serving.__main__'

##@ kafka

.PHONY: kafka kafka-up kafka-down kafka-status
kafka: kafka-up  ## An alias of kafka-up
kafka-up: $(SETUP)  ## Start a Kafka cluster on port 9092 in the background (KAFKA="--nodes 3 --secured --topic rows:4")
	$(RUN) -m local_kafka up $(KAFKA)
kafka-down: $(SETUP)  ## Stop the Kafka cluster and remove its data
	$(RUN) -m local_kafka down
kafka-status: $(SETUP)  ## Show whether the Kafka cluster runs, and its addresses
	$(RUN) -m local_kafka status

##@ mlflow

.PHONY: mlflow mlflow-doctor mlflow-serve
mlflow: mlflow-doctor mlflow-serve  ## Run mlflow-doctor and mlflow-serve
mlflow-doctor: $(SETUP)  ## Print the MLflow installation and configuration
	$(BIN)/mlflow doctor
mlflow-serve: $(SETUP)  ## Serve the MLflow UI on port 5000
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow.db

##@ packages

.PHONY: packages package-build
packages: package-build  ## Build the wheel
package-build: $(SETUP)  ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation

##@ projects

.PHONY: projects project-run project-requirements pipeline-compile pipeline-run
projects: $(SETUP)  ## Run all jobs of CONFS in order
	for job in $(JOBS); do $(MAKE) --no-print-directory project-run JOB=$$job; done
project-run: $(SETUP)  ## Run one job of CONFS, e.g. make project-run JOB=training
	$(BIN)/model-name run $(CONFS)/$(JOB).yaml
project-requirements: lock  ## An alias of lock
pipeline-compile: $(SETUP)  ## Compile the pipelines of CONFS
	for name in training inference; do $(RUN) -m pipelines compile $$name --confs $(CONFS); done
pipeline-run: $(SETUP)  ## Run the training pipeline of CONFS on this machine
	$(RUN) -m pipelines run training --confs $(CONFS)

.PHONY: help
help:  ## List the targets
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {split($$1, name, ":"); printf "  %-22s %s\n", name[1], $$2}' $(MAKEFILE_LIST)
