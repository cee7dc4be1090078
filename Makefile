# make alone prints this help. Two targets do everything: demo and test.
SHELL := /bin/bash
.DELETE_ON_ERROR:

GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LINT      := v2.15.0
CACHE     := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nexus
LINT_BIN  := $(CACHE)/golangci-lint-$(LINT)/golangci-lint
BUILD     := -trimpath -tags grpcnotrace -ldflags "-s -w -X main.version=$(VERSION)"
# A module proxy that refuses a module must fail the build, not fall through to git.
export GOPROXY := $(firstword $(subst $(comma), ,$(subst |, ,$(shell $(GO) env GOPROXY))))
comma     := ,
# Small machines: two packages at a time, and every test in random order under the race detector.
LANES     ?= 6
SHARD     ?= 1/1
N         ?= 100,1000,5000
TESTFLAGS ?= -race -shuffle=on -p 2 -timeout 40m

.PHONY: help
help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/reconciler
	CGO_ENABLED=0 $(GO) build $(BUILD) -o bin/reconciler ./cmd/reconciler

.PHONY: demo
demo: packages build ## run the main job for real on an embedded control plane (ARGS=--once: end when done)
	./bin/reconciler demo $(ARGS)

.PHONY: test
test: packages cluster check build ## all tests; installs what they need
	$(GO) test $(TESTFLAGS) ./...
	cd devcluster && CGO_ENABLED=0 $(GO) test -trimpath ./sim/...
	./bin/reconciler demo --once

.PHONY: bench
bench: packages cluster ## measure against a floor of bare applies, and print the table (N=100,1000,5000)
	$(GO) test ./e2e/bench -run TestSpeed -count=1 -v -timeout 60m -args -sizes "$(N)" -full

.PHONY: sweep
sweep: packages cluster ## every fault at every write of a release, and more (some hours; of the same build it goes on where it was interrupted)
	$(GO) test ./reconcile/model -count=1 -v -timeout 30m -args -deep
	$(GO) test ./e2e/faults -count=1 -v -timeout 3h -args -full -lanes $(LANES) -shard $(SHARD) -soak 6m -state $(CURDIR)/.run/sweep
	$(GO) test ./e2e/faults -count=1 -v -args -report -state $(CURDIR)/.run/sweep

.PHONY: check
check: lint generated tidy ## everything that is no test: build, vet, lint, generated files, go.mod
	$(GO) build ./...
	$(GO) vet ./...

.PHONY: lint
lint: $(LINT_BIN) ## golangci-lint
	$(LINT_BIN) run --timeout 15m

$(LINT_BIN):
	GOBIN=$(dir $@) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT)

.PHONY: generate
generate: ## write deep copies and CRDs anew
	$(GO) tool controller-gen object paths=./api/...
	$(GO) tool controller-gen crd paths=./api/... output:crd:dir=manifests/base/crds

.PHONY: generated
generated: generate
	@git diff --exit-code --stat -- api manifests/base/crds || { echo "generated files are not current: commit what make generate wrote"; exit 1; }

.PHONY: tidy
tidy: ## go mod tidy leaves no difference
	@$(GO) mod tidy -diff || { echo "go.mod is not tidy: run go mod tidy"; exit 1; }

.PHONY: cluster
cluster: ## build the embedded control plane (once per machine: some minutes)
	$(GO) run ./e2e/cluster/build

.PHONY: packages
packages:
	@hack/packages

.PHONY: image
image: ## build the container image
	docker build --build-arg VERSION=$(VERSION) -t nexus-platform/reconciler:$(VERSION) .

.PHONY: clean
clean: ## remove what make built here (caches stay)
	rm -rf bin
