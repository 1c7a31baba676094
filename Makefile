# `make help` lists the targets. Everything that is built or installed lives in .build/ and .venv/.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.build/bin:$(PATH)
# A process that may not keep its bytecode compiles every library anew: seconds of CPU for each of a dozen services.
unexport PYTHONDONTWRITEBYTECODE
export UV_COMPILE_BYTECODE := 1

UV := uv run --quiet
LOCAL := $(UV) python -m tools.local

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: bootstrap
bootstrap:
	@tools/bootstrap.sh
	@uv sync --quiet --frozen

##@ The main job
.PHONY: up down status figures
up: bootstrap ## Deploy a photo feed on Kubernetes and use it (CLUSTER=native|kind|current, NODES=1..4)
	@$(LOCAL) up
down: bootstrap ## Remove the platform, the operator and the cluster (PURGE=1: built state too)
	@$(LOCAL) down
status: bootstrap ## Show the deployed platform
	@$(LOCAL) status
figures: bootstrap ## Print memory, image sizes and feed latency of the deployed platform
	@$(LOCAL) figures

##@ Without Kubernetes
.PHONY: dev
dev: bootstrap ## Run all services as processes with real PostgreSQL, Valkey and S3
	@$(UV) fanfold dev

##@ Load tests
.PHONY: loadtest loadtest-image
loadtest: bootstrap ## Load the running platform and judge it (SCENARIO=celebrity, PROFILE=small|medium|large, URL=, ARGS=)
	@$(UV) python -m tools.loadtest
loadtest-image: bootstrap ## Build the load generator's image and load it into the cluster, for LoadTests
	@$(LOCAL) loadtest-image

##@ Parts
.PHONY: cluster cluster-down images
cluster: bootstrap ## Start the native Kubernetes (no Docker needed; root)
	@cluster/build.sh && .build/bin/fanfold-cluster up $(if $(NODES),--nodes $(NODES))
cluster-down: bootstrap ## Stop the native Kubernetes and leave nothing behind
	@cluster/build.sh && .build/bin/fanfold-cluster down
images: bootstrap ## Build the container images
	@images/build.sh

##@ Speed
.PHONY: bench
bench: bootstrap ## Measure everything that has figures, beside its peers; write docs/performance.md (an hour)
	@for name in gateway gateway_features feed_read compression churn overload live_sockets fanout photos likes generator celebrity performance; do $(UV) python benchmarks/$$name.py; done

##@ Quality
.PHONY: test test-fast test-long lint format openapi dashboards reference
test: bootstrap ## Run what CI runs: lint, types, contracts, unit, integration, operator, chart, e2e
	@$(UV) python -m tools.stages all
test-fast: bootstrap ## The inner loop: lint, types, contracts, unit tests
	@$(UV) python -m tools.stages fast
test-long: bootstrap ## The loss of a node, evictions and autoscaling live: two nodes, many minutes
	@$(UV) python -m tools.stages long
lint: bootstrap ## Lint, format check, types and import contracts
	@$(UV) python -m tools.stages lint
format: bootstrap ## Format the code and apply safe fixes
	@$(UV) ruff format . && $(UV) ruff check --fix .
dashboards: bootstrap ## Write the dashboards and Prometheus rules, and the chart's copies, anew
	@$(UV) python -m dashboards.generate
openapi: bootstrap ## Write the gateway's merged OpenAPI document anew
	@$(UV) python -m tools.openapi
reference: bootstrap ## Write the reference of the custom resources anew
	@$(UV) python -m tools.crd_reference
