# Everything here needs Go, make and a POSIX shell. Tools are built from the
# versions in tools/go.mod and tools/lint/go.mod; nothing is installed outside
# of bin/ and Go's caches.

SHELL         := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

SEEDS     ?= 10000
FUZZTIME  ?= 60s
BENCH     ?= .
BENCHTIME ?= 1s
# What bench-peers is given: bench/README.md explains each.
PEERTASKS ?= 20000
PEERLIMIT ?= 10m
PEERSETS  ?= w1k,w10k
PEERDATA  ?= $(or $(COVEY_SHARED_DATA),../shared/data)/workload
PEERPAGE  ?= docs/bench/peers.md
AGENTS    ?= 1000
TASKS     ?= 10
SCALE     ?=
# Go would repeat an old result although the user or the cgroups have changed
# since, which it does not see.
TESTFLAGS ?= -count=1

# One static binary, with or without a C compiler on this machine.
export CGO_ENABLED = 0

ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
  GOVERSION := $(shell go env GOVERSION 2>/dev/null)
  ifeq ($(GOVERSION),)
    $(error Go is missing; install Go 1.26 or newer from https://go.dev/dl/ and put it into PATH)
  endif
endif

BUF    = go tool -modfile=tools/go.mod buf
GOTEST = go run ./scripts/gotest

# The linter is large: its binary is kept, and built again when its version or
# Go's changes.
LINTVERSION := $(shell awk '$$1 == "github.com/golangci/golangci-lint/v2" { print $$2 }' tools/lint/go.mod)
LINT        := bin/golangci-lint-$(LINTVERSION)-$(GOVERSION)

GENERATED = -name '*.pb.go' -o -name '*.connect.go'

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: dev
dev: build ## build covey and run it here with the examples of three teams
	@exec bin/covey dev --examples examples/teams

.PHONY: build
build: ## build bin/covey
	go build -o bin/covey ./cmd/covey

.PHONY: test
test: ## run every test; skipped ones are listed at the end with their reason
	@sh scripts/vm-kernel.sh || echo 'without that a test in a virtual machine will be skipped'
	@sh scripts/postgres.sh || echo 'without that the tests on PostgreSQL will be skipped'
	$(GOTEST) $(TESTFLAGS) -timeout 20m ./...
	go -C bench test $(TESTFLAGS) ./...

.PHONY: vm
vm: ## bring the emulator and the kernel that a test needs, by apt
	@sh scripts/vm-kernel.sh

.PHONY: check
check: fmt-check vet lint generate-check tidy-check test ## run all that must hold before a change is taken

.PHONY: fmt
fmt: $(LINT) ## format Go and proto files
	$(LINT) fmt
	$(BUF) format -w

.PHONY: fmt-check
fmt-check: $(LINT)
	$(LINT) fmt --diff
	$(BUF) format --diff --exit-code

.PHONY: vet
vet:
	go vet ./...
	go vet -tags planted ./internal/...
	go -C bench vet ./...

.PHONY: lint
lint: $(LINT) ## run every linter over Go and proto files
	$(LINT) run ./...
	cd bench && ../$(LINT) run ./...
	$(BUF) lint

.PHONY: generate
generate: ## write the Go code of api/ again from its proto files
	rm -rf bin/generated
	$(BUF) generate -o bin/generated
	find api \( $(GENERATED) \) -delete
	cp -R bin/generated/api/. api/

# Compares names and contents, so that a leftover of a removed proto file counts.
.PHONY: generate-check
generate-check:
	@rm -rf bin/generated
	$(BUF) generate -o bin/generated
	@find api -type f \( $(GENERATED) \) -exec cksum {} + | sort -k 3 > bin/generated/committed
	@cd bin/generated && find api -type f -exec cksum {} + | sort -k 3 > current
	@diff bin/generated/committed bin/generated/current || \
		{ echo 'the generated code in api/ does not match its proto files; run make generate and commit the result' >&2; exit 1; }

.PHONY: tidy-check
tidy-check:
	go mod tidy -diff
	go -C bench mod tidy -diff

.PHONY: sim
sim: ## run SEEDS (10000) worlds through the simulator
	$(GOTEST) -count=1 -timeout 24h -run '^TestSeeds$$' ./internal/sim -seeds=$(SEEDS)

.PHONY: faults
faults: ## plant known bugs and see the simulator find every one
	go test -v -count=1 -timeout 15m -tags planted -run '^TestPlanted$$' ./internal/sim

.PHONY: bench
bench: ## run the benchmarks that match BENCH (.), each for BENCHTIME (1s)
	go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem -timeout 60m ./...

.PHONY: bench-scale
bench-scale: build ## run a server with AGENTS (1000, or a list) simulated agents and TASKS (10) tasks each
	go run ./scripts/scale -agents $(AGENTS) -tasks $(TASKS) -json bin/scale.json $(SCALE)

.PHONY: bench-curve
bench-curve: ## make docs/bench/scale.md and its plot of what bench-scale measured last, or of the files in CURVE
	@mkdir -p docs/bench
	go -C bench/curve run . -dir ../../docs/bench -command 'make bench-scale AGENTS=... TASKS=$(TASKS) SCALE="$(SCALE)"; make bench-curve' $(abspath $(or $(CURVE),bin/scale.json))

# kube and nomad are modules of their own: no other target sees them.
.PHONY: bench-peers-build
bench-peers-build: build
	go -C bench build -o ../bin/bench-peers ./peers
	@echo 'building kube-scheduler and Nomad: the first time this takes minutes'
	go -C bench/kube build -o ../../bin/bench-kube .
	go -C bench/nomad build -o ../../bin/bench-nomad .

.PHONY: bench-peers
bench-peers: bench-peers-build ## place the same jobs with Covey, kube-scheduler and Nomad in turn; writes PEERPAGE
	@mkdir -p $(dir $(PEERPAGE))
	bin/bench-peers -data '$(PEERDATA)' -sets '$(PEERSETS)' -tasks '$(PEERTASKS)' -limit '$(PEERLIMIT)' -page '$(PEERPAGE)' \
		-command 'make bench-peers PEERSETS=$(PEERSETS) PEERTASKS=$(PEERTASKS) PEERLIMIT=$(PEERLIMIT)'

# go test fuzzes one target of one package at a time. Its list names the
# targets of a package before the package.
.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (60s)
	@mkdir -p bin
	go test -list '^Fuzz' ./... > bin/fuzz.list
	@awk '/^Fuzz/ { names[n++] = $$1 } $$1 == "ok" { while (n > 0) print names[--n], $$2 }' bin/fuzz.list > bin/fuzz.targets
	@test -s bin/fuzz.targets || { echo 'no fuzz target found' >&2; exit 1; }
	@while read -r name pkg; do \
		echo "$$pkg $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$pkg" < /dev/null || exit 1; \
	done < bin/fuzz.targets

.PHONY: clean
clean: ## remove what make built
	rm -rf bin

$(LINT): tools/lint/go.mod tools/lint/go.sum
	@mkdir -p bin
	@rm -f bin/golangci-lint-*
	@echo 'building golangci-lint $(LINTVERSION), once: this takes minutes'
	GOOS= GOARCH= go build -modfile=tools/lint/go.mod -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
