# Everything a person does with this repository. `make` alone lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
BOOTSTRAP := python3 libs/embedded/bootstrap.py
PACKAGES := libs/common libs/embedded libs/cli services/gateway services/auth services/session services/catalog-sync services/agent services/vnc-proxy
WORKERS ?= 2
PORT ?= 8080
STREAM_PORT ?= 8081
DATA ?= .streamspace
NAME ?= admin
# AGENTS_HOST=hub.example.org lets agents of other machines in: docs/how-to/connect-a-cluster.md
agents_option = $(if $(AGENTS_$(1)),--agents-$(2) $(AGENTS_$(1)))
AGENTS = $(call agents_option,HOST,host) $(call agents_option,PORT,port) $(call agents_option,LISTEN,listen) \
	$(call agents_option,CERTIFICATE,certificate) $(call agents_option,KEY,key) $(call agents_option,CA,ca)

##@ Run

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: ## Set up what is missing and run StreamSpace on this machine (PORT=8080)
	@$(BOOTSTRAP) run
	@exec $(BIN)/streamspace-embedded up --data $(DATA) --port $(PORT) --stream-port $(STREAM_PORT) $(AGENTS)

.PHONY: down
down: ## Stop a StreamSpace that runs in another terminal
	@test -x $(BIN)/streamspace-embedded || { echo "Nothing runs here: \`make up\` was never started."; exit 1; }
	@$(BIN)/streamspace-embedded down --data $(DATA)

.PHONY: recover-admin
recover-admin: ## Give an admin a new password, while StreamSpace runs (NAME=admin)
	@$(BIN)/streamspace-embedded recover-admin --data $(DATA) --name $(NAME)

.PHONY: agent
agent: ## Set up what is missing and run a cluster's agent on this machine (ENROLMENT=east.json)
	@test -r "$(ENROLMENT)" || { echo "Give the file that enrolling the cluster made: make agent ENROLMENT=east.json"; exit 1; }
	@$(BOOTSTRAP) agent
	@mkdir -p $(DATA)
	@STREAMSPACE_AGENT_ENROLMENT_FILE=$(ENROLMENT) STREAMSPACE_AGENT_STATE_DIR=$(DATA)/$(basename $(notdir $(ENROLMENT))) \
		exec $(BIN)/streamspace-agent

.PHONY: setup
setup: ## Install everything for development, and nothing more
	@$(BOOTSTRAP) develop

##@ Check

.PHONY: check
check: setup lint types arch drift web-check ## Lint, types, architecture, generated files

.PHONY: lint
lint: ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: types
types: ## mypy, strict
	@$(BIN)/mypy

.PHONY: arch
arch: ## Who may import whom
	@$(BIN)/lint-imports

.PHONY: drift
drift: ## Generated files are current
	@$(BIN)/python -m streamspace_common.protogen --check
	@$(BIN)/python -m streamspace_gateway.openapi --check docs/reference/openapi.json
	@$(BIN)/python -m streamspace_embedded.settings_reference --check

.PHONY: web-check
web-check: ## The web app: eslint, types, unit tests, generated client
	@cd services/web && npm run --silent lint && npm run --silent typecheck && npm run --silent api:check && npm test --silent

##@ Test

.PHONY: test
test: setup ## Run every test that this machine can run
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(T)

.PHONY: test-kubernetes
test-kubernetes: setup ## Run the tests that need Kubernetes, on KUBECONFIG's cluster or on one of their own
	@$(BIN)/python -m tests.kubernetes.onenode prepare
	@$(BIN)/python -m pytest $(or $(T),tests/kubernetes)

.PHONY: chaos
chaos: setup ## Run everything under fire: 10,000 requests, 300 kills (ARGS="--seed N")
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: bench
bench: ## Measure, with the peers in the same run
	@$(BOOTSTRAP) bench
	@$(BIN)/python -m tests.bench $(ARGS)

##@ Change

.PHONY: fmt
fmt: ## Format the Python code
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format -q .

.PHONY: proto
proto: ## Write proto/ from the contracts
	@$(BIN)/python -m streamspace_common.protogen

.PHONY: corpus
corpus: ## Keep what a release says, for ever (VERSION=1.2.3)
	@$(BIN)/python -m streamspace_common.protogen --freeze $(VERSION)

.PHONY: openapi
openapi: ## Write the OpenAPI document and the web app's client
	@$(BIN)/python -m streamspace_gateway.openapi docs/reference/openapi.json
	@cd services/web && npm run --silent api

.PHONY: settings
settings: ## Write the reference of all settings
	@$(BIN)/python -m streamspace_embedded.settings_reference

.PHONY: screenshot
screenshot: setup ## Take the README's picture anew
	@STREAMSPACE_UPDATE_SCREENSHOT=1 $(BIN)/python -m pytest -q tests/e2e/test_browser.py

.PHONY: constraints
constraints: ## Lock the versions that are installed now
	@(echo '# Exact versions of everything that is installed, without any index address.'; echo '# Made by `make constraints`.'; $(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable | grep -v -e '^-e' -e '^uv==' -e ' @ ') > constraints.txt.new
	@mv constraints.txt.new constraints.txt

.PHONY: clean
clean: ## Remove what was built; data under .streamspace/ stays
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis services/web/dist test-results
