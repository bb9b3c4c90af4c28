# Common commands. `make help` lists the targets.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help run up down destroy logs test test-long check fmt bench bench-micro fuzz release clean drill drill-containers bench-postgres

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build and run on this machine, with the settings of .env and the database under ./data
	./quickstart.sh

up: ## Start with Docker Compose
	docker compose up -d --build

down: ## Stop it and keep the data
	docker compose down

destroy: ## Stop it and delete the data, after asking
	@read -r -p "Delete the volume with all messages? Type yes: " answer && [ "$$answer" = yes ]
	docker compose down -v

logs: ## Follow the service's log
	docker compose logs -f api

test: check ## Run all checks of CI: format, lints, all tests
	@./tests/have-postgresql.sh
	$(CARGO) test --workspace --locked
	@CARGO=$(CARGO) ./tests/on-postgresql.sh

test-long: ## Run the crash, fault and schema tests at full length
	POSTROOM_TEST_LONG=1 $(CARGO) test --workspace --locked --release -- --nocapture

drill: ## Kill replicas, primary and standby of PostgreSQL under load, and report lost messages
	@./tests/have-postgresql.sh
	POSTROOM_TEST_LONG=1 $(CARGO) test --locked --test it -- --nocapture postgres::drill

drill-containers: ## Kill containers of the Compose profile postgres under load, and count messages (needs Docker)
	./tests/containers.sh

check: ## Format and lints only
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --locked --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

bench: release ## Measure the service on this machine; ARGUMENTS="--profile 1m" and more, see BENCHMARKS.md
	./target/release/postroom bench $(ARGUMENTS)

bench-micro: ## Measure the parts of a request, one at a time
	$(CARGO) bench --locked --package postroom-bench --bench micro

bench-postgres: ## The same on PostgreSQL with 1, 2 and 3 replicas, compared with pgbench; ARGUMENTS as for bench
	./benches/postgres.sh $(ARGUMENTS)

fuzz: ## Fuzz every parser and verifier for SECONDS_EACH=60 each, or only TARGETS (needs a nightly toolchain and cargo-fuzz)
	./fuzz/run.sh $(TARGETS)

release: ## Build the optimised program, target/release/postroom
	$(CARGO) build --locked --release

clean: ## Remove build results
	$(CARGO) clean
