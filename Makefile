# `make` alone lists what there is to make. Stages print their name and how long they took.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

CARGO ?= cargo
target_dir := $(or $(CARGO_TARGET_DIR),target)
data_dir := data

# $(call stage,name,command): runs the command and says how long it took.
define stage
@printf '==> %s\n' '$(1)' >&2; start=$$SECONDS; \
if $(2); then printf '==> %s: ok (%d s)\n' '$(1)' $$((SECONDS - start)) >&2; \
else status=$$?; printf '==> %s: FAILED after %d s\n' '$(1)' $$((SECONDS - start)) >&2; exit $$status; fi
endef

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: ## build, start a private PostgreSQL (or use DATABASE_URL; REDIS_URL, STRIPE=fake), migrate, seed a demo, serve
	@[[ -n "$${DATABASE_URL:-}" ]] || scripts/ensure-postgres
	@$(CARGO) build --locked
	@exec '$(target_dir)/debug/tenantry' dev $(if $(STRIPE),--stripe '$(STRIPE)')

.PHONY: test
test: ## run every test (TEST_DATABASE_URL, Docker, or a private PostgreSQL)
	$(call stage,test,scripts/test)

.PHONY: ci
ci: ## what continuous integration runs: fmt-check, deny, lint, doc, test
	@start=$$SECONDS; \
	for goal in fmt-check deny lint doc test; do $(MAKE) $$goal || exit; done; \
	printf '==> ci: ok (%d s)\n' $$((SECONDS - start)) >&2

.PHONY: fmt
fmt: ## format the code
	$(call stage,fmt,$(CARGO) fmt --all && $(CARGO) fmt --manifest-path tests/flag-yardstick/Cargo.toml)

.PHONY: fmt-check
fmt-check: ## fail when the code is not formatted
	$(call stage,fmt-check,$(CARGO) fmt --all --check && $(CARGO) fmt --manifest-path tests/flag-yardstick/Cargo.toml --check)

.PHONY: deny
deny: ## check the licenses, bans, duplicates and sources of third-party crates (deny.toml)
	$(call stage,deny,scripts/deny licenses bans sources)

.PHONY: lint
lint: ## clippy, warnings are errors
	$(call stage,lint,$(CARGO) clippy --workspace --all-targets --locked -- -D warnings)

.PHONY: doc
doc: ## build the API documentation, warnings are errors
	$(call stage,doc,RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked)

.PHONY: bench
bench: ## measure the release build beside pgbench (ARGS='--only list_10')
	@scripts/bench $(ARGS)

.PHONY: bench-quick
bench-quick: ## the same in under five minutes, once the release build is there
	@scripts/bench --quick $(ARGS)

.PHONY: flame
flame: ## draw where the server's time goes under load (perf; target/bench/flame.svg)
	@scripts/bench --quick --flame target/bench/flame.svg $(ARGS)

.PHONY: check
check: ## type-check everything, the quickest feedback
	$(call stage,check,$(CARGO) check --workspace --all-targets --locked)

.PHONY: migrate
migrate: ## apply the migrations to DATABASE_URL
	@[[ -n "$${DATABASE_URL:-}" ]] || { echo 'set DATABASE_URL to the database to migrate' >&2; exit 1; }
	$(call stage,migrate,$(CARGO) run --quiet --locked -- migrate)

.PHONY: openapi
openapi: ## write the OpenAPI document to target/openapi.json
	$(call stage,openapi,scripts/write-openapi '$(target_dir)/openapi.json')

.PHONY: clients
clients: openapi ## build the TypeScript and Python clients and the Postman collection (target/clients)
	$(call stage,clients,scripts/build-clients '$(target_dir)/openapi.json')

.PHONY: contract
contract: ## lint the OpenAPI document and test it, the clients and the receivers of webhooks
	$(call stage,contract,scripts/test -p tenantry-tests --test it -- contract:: webhook_receivers::)

.PHONY: clean-data
clean-data: ## stop the private PostgreSQL and remove its data
	$(call stage,clean-data,scripts/clean-data '$(data_dir)')
