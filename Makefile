# What one does with a checkout. Everything sets itself up; Rust, Go and a C compiler have to be there.
#
# PROFILE=release builds umbra optimised. ARGS is passed on to `umbra up`, and TESTS to the test programs as a filter.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
GO ?= go
PROFILE ?= dev
ARGS ?=
TESTS ?=

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
BIN := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# The programs of tests/kube: a real cluster, and kubectl.
KUBE ?= $(TARGET)/kube
RESULTS := $(TARGET)/show

# What tests/kube/build.sh compiles with; anything else would compile Kubernetes once more.
GO_ENVIRONMENT := CGO_ENABLED=0 GOFLAGS=-buildvcs=false
# Where the end-to-end tests find the programs, and keep the files of a run.
E2E_ENVIRONMENT := UMBRA_BIN=$(BIN)/umbra KUBE_BIN=$(KUBE) E2E_DIR=$(TARGET)/tmp

.PHONY: help up build kube test lint show-main show-storage show-aggregated show-children clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

up: ## build umbra and start a hub with three simulated children
	@tests/show/tools.sh cargo cc protoc
	$(CARGO) build --locked --profile $(PROFILE) -p umbra-cli
	exec $(BIN)/umbra up --demo $(ARGS)

# The same selection of packages and targets as in `cargo test`, so that no dependency is compiled twice.
build:
	@tests/show/tools.sh cargo cc protoc
	$(CARGO) build --locked --workspace --bins --tests --profile $(PROFILE)

kube: ## build a real cluster and an unmodified kubectl into target/kube
	@tests/show/tools.sh go
	tests/kube/build.sh $(KUBE)

# What a hub has to do in either form: these tests run against `umbra up`, and once more against a hub behind a kube-apiserver. Of
# joining and leaving that is the way that everybody goes; what fails on it takes minutes more, in `make show-aggregated`.
EITHER_FORM := view:: write:: fleet:: cluster_root:: tenant:: custom_resources:: join::every errors:: crash::

test: build kube ## run all tests: Rust, end to end with real clusters, Go
	mkdir -p $(TARGET)/tmp
	$(E2E_ENVIRONMENT) $(CARGO) test --locked --workspace --no-fail-fast --profile $(PROFILE) -- $(TESTS) 2>&1 | tee $(TARGET)/test.log
	$(E2E_ENVIRONMENT) E2E_HUB=aggregated $(CARGO) test --locked --workspace --test e2e --profile $(PROFILE) \
		-- $(or $(TESTS),$(EITHER_FORM)) 2>&1 | tee -a $(TARGET)/test.log
	@# What Kubernetes itself says its kinds look like comes with the Go modules.
	K8S_API_TESTDATA=$$(cd tests/kube && $(GO) list -m -f '{{.Dir}}' k8s.io/api)/testdata/HEAD \
		$(CARGO) test --locked --workspace --lib --profile $(PROFILE) -- --ignored every_kind_becomes_what_go_prints 2>&1 \
		| grep -E '^test |^test result: F' | tee -a $(TARGET)/test.log
	cd tests/kube && $(GO_ENVIRONMENT) $(GO) vet ./...
	cd tests/kube && $(GO_ENVIRONMENT) KUBE_BIN=$(KUBE) $(GO) test ./... 2>&1 | tee -a $(TARGET)/test.log
	@# These are ignored on their own: one was run just now, the others are run by tests in processes of their own.
	@grep -E '^SKIPPED|^test .* \.\.\. ignored|^--- SKIP' $(TARGET)/test.log \
		| grep -v -e every_kind_becomes_what_go_prints -e write_until_killed -e on_a_small_disk || echo 'Nothing was skipped.'

lint: ## check formatting and lints
	@tests/show/tools.sh cargo cc protoc go
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@unformatted=$$(gofmt -l tests/kube); if [ -n "$$unformatted" ]; then echo "gofmt would change: $$unformatted"; exit 1; fi
	cd tests/kube && $(GO_ENVIRONMENT) $(GO) vet ./...
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --locked check; else echo 'SKIPPED cargo deny: it is not installed'; fi

show-main: build kube ## show every item of the main job: what, figure, bound, pass or short
	mkdir -p $(RESULTS) $(TARGET)/tmp
	rm -f $(RESULTS)/main.tsv
	$(E2E_ENVIRONMENT) SHOW_RESULTS=$(RESULTS)/main.tsv $(CARGO) test --locked --workspace --test e2e --profile $(PROFILE) \
		> $(RESULTS)/main.log 2>&1 || echo 'Some tests failed; what they say is in $(RESULTS)/main.log'
	@tests/show/table.sh tests/show/main.tsv $(RESULTS)/main.tsv

# What `make test` keeps short. The rounds of crashes and the operations of the model are what the items ask for; the rest is
# chosen so that all of it takes a quarter of an hour on two cores.
STORAGE_LONG := UMBRA_STORAGE_MODEL_OPERATIONS=100000 UMBRA_STORAGE_CRASH_ROUNDS=200 UMBRA_STORAGE_HISTORIES=24 \
	UMBRA_STORAGE_DAMAGE_POSITIONS=2000 UMBRA_STORAGE_CACHE_FAULT_CASES=256
# The benchmark makes its stores here, some gigabytes; what it measures is this disk.
BENCH_DIR ?= $(TARGET)/tmp
BENCH_ARGS ?=

show-storage: build kube ## show every item of the storage: what, figure, bound, pass or short
	@tests/show/tools.sh etcd
	$(CARGO) build --locked --release -p umbra-bench
	mkdir -p $(RESULTS) $(TARGET)/tmp $(BENCH_DIR)
	rm -f $(RESULTS)/storage.tsv $(RESULTS)/storage.log
	@# First, and alone: figures are about a machine that does nothing else.
	SHOW_RESULTS=$(RESULTS)/storage.tsv $(TARGET)/release/umbra-bench storage --dir $(BENCH_DIR) --json $(RESULTS)/storage.json \
		$(BENCH_ARGS) 2>&1 | tee $(RESULTS)/storage-bench.log || echo 'The benchmark failed; see $(RESULTS)/storage-bench.log'
	$(STORAGE_LONG) KUBE_BIN=$(KUBE) SHOW_RESULTS=$(RESULTS)/storage.tsv $(CARGO) test --locked --workspace --lib --profile $(PROFILE) \
		-- proofs:: cache::tests:: embedded:: >> $(RESULTS)/storage.log 2>&1 || echo 'Some tests failed; see $(RESULTS)/storage.log'
	$(E2E_ENVIRONMENT) SHOW_RESULTS=$(RESULTS)/storage.tsv $(CARGO) test --locked --workspace --test e2e --profile $(PROFILE) \
		-- storage:: encryption:: etcd:: >> $(RESULTS)/storage.log 2>&1 || echo 'Some tests failed; see $(RESULTS)/storage.log'
	@grep -E '^SKIPPED' $(RESULTS)/storage.log || true
	@tests/show/table.sh tests/show/storage.tsv $(RESULTS)/storage.tsv

# The watch outlives the 60 s after which kube-apiserver ends what is not a watch. What the main job has to show is shown here
# through the aggregation layer, and listed with the prefix `aggregated.main.`.
show-aggregated: build kube ## show every item of a hub behind a kube-apiserver: what, figure, bound, pass or short
	mkdir -p $(RESULTS) $(TARGET)/tmp
	rm -f $(RESULTS)/aggregated.tsv $(RESULTS)/aggregated-all.tsv
	$(E2E_ENVIRONMENT) E2E_HUB=aggregated AGGREGATED_WATCH_SECONDS=100 AGGREGATED_CONTROLLERS_SECONDS=600 SHOW_RESULTS=$(RESULTS)/aggregated-all.tsv \
		$(CARGO) test --locked --workspace --test e2e --profile $(PROFILE) -- aggregated:: manifests:: informer:: controllers:: kubeconfig:: doctor:: hub_rbac:: join:: $(EITHER_FORM) \
		> $(RESULTS)/aggregated.log 2>&1 || echo 'Some tests failed; what they say is in $(RESULTS)/aggregated.log'
	@touch $(RESULTS)/aggregated-all.tsv
	@sed '/^aggregated\./!s/^/aggregated.main./' $(RESULTS)/aggregated-all.tsv > $(RESULTS)/aggregated.tsv
	@tests/show/table.sh tests/show/aggregated.tsv $(RESULTS)/aggregated.tsv

# What `make test` keeps short: a log is followed for 3 minutes, a watch lives 10, and all specs run that are
# about API servers and their clients; an agent is killed 20 times, and faults come and go 1,000 times.
CHILDREN_LONG := REPERTOIRE_LOG_SECONDS=180 REPERTOIRE_WATCH_SECONDS=600 CHILDREN_SPECS='\[sig-(api-machinery|auth|cli)\]' \
	UMBRA_TUNNEL_RESTARTS=20 FAULTS_CYCLES=1000 FAULTS_ROUNDS=5

# Tests of crates are chosen by their modules, end-to-end tests by theirs.
show-children: build kube ## show every item of reaching the children: what, figure, bound, pass or short
	$(CARGO) build --locked --release -p umbra-cli -p umbra-bench
	mkdir -p $(RESULTS) $(TARGET)/tmp
	rm -f $(RESULTS)/children.tsv $(RESULTS)/children.log
	@# First, and alone: figures are about a machine that does nothing else.
	UMBRA_BIN=$(TARGET)/release/umbra KUBE_BIN=$(KUBE) E2E_DIR=$(TARGET)/tmp SHOW_RESULTS=$(RESULTS)/children.tsv \
		$(TARGET)/release/umbra-bench children --json $(RESULTS)/children.json $(BENCH_ARGS) 2>&1 \
		| tee $(RESULTS)/children-bench.log || echo 'The benchmark failed; see $(RESULTS)/children-bench.log'
	SHOW_RESULTS=$(RESULTS)/children.tsv $(CARGO) test --locked --workspace --lib --profile $(PROFILE) \
		-- attacks:: protocol:: path:: proxy:: identity:: tunnel:: connection:: transport:: pool:: manager:: cluster:: version:: body:: \
		>> $(RESULTS)/children.log 2>&1 || echo 'Some tests failed; see $(RESULTS)/children.log'
	$(E2E_ENVIRONMENT) $(CHILDREN_LONG) SHOW_RESULTS=$(RESULTS)/children.tsv $(CARGO) test --locked --workspace --test e2e --profile $(PROFILE) \
		-- proxying:: tunnel:: join:: repertoire:: specs:: >> $(RESULTS)/children.log 2>&1 || echo 'Some tests failed; see $(RESULTS)/children.log'
	@# Alone: how long requests take to a child without a fault is measured.
	$(E2E_ENVIRONMENT) $(CHILDREN_LONG) SHOW_RESULTS=$(RESULTS)/children.tsv $(CARGO) test --locked --workspace --test e2e --profile $(PROFILE) \
		-- faults:: --test-threads=1 >> $(RESULTS)/children.log 2>&1 || echo 'Some tests failed; see $(RESULTS)/children.log'
	@grep -E '^SKIPPED' $(RESULTS)/children.log || true
	@tests/show/table.sh tests/show/children.tsv $(RESULTS)/children.tsv

clean: ## remove everything that was built
	rm -rf $(KUBE) $(RESULTS)
	$(CARGO) clean
