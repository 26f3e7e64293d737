# Everything here needs Go and nothing else; an older Go fetches this one.
export GOTOOLCHAIN = go1.27.3

GO ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 20s

.PHONY: build demo test check bench bench-peers generate generated wasm web fuzz lint tidy race clean

build: ## bin/spinnet
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/spinnet ./cmd/spinnet

demo: build ## train on Shakespeare for minutes, then write some
	test -f datasets/tinyshakespeare/manifest.json || bin/spinnet prepare tinyshakespeare
	bin/spinnet train demo --overwrite
	bin/spinnet generate runs/demo --prompt "ROMEO:" --echo --max-tokens 400

test: ## all tests
	$(GO) test -timeout 20m ./...
	$(GO) test -tags nocuda ./cuda

check: lint tidy generated race test ## what a change must pass

bench: build ## the tables of docs/benchmarks.md
	bin/spinnet bench

bench-peers: build ## decode and prefill beside llama.cpp; it needs node and npm, and an idle machine
	scripts/bench_peers.sh $(MODEL)

generate: ## write the generated files anew
	$(GO) generate ./kernel

wasm: ## build the committed WebAssembly module anew; it needs wasm-opt (binaryen)
	$(GO) run ./canister/link/_make

generated: ## fail when a generated file is stale
	SPINNET_GENERATE=1 $(GO) test -count=1 -run 'TestGenerated' .

web: ## write web/dist, the page that is embedded, anew; it needs node and npm
	npm --prefix web ci --silent --no-audit --no-fund
	npm --prefix web run --silent build

race: ## the race detector, where it is quick; it needs a C compiler
	@if command -v cc >/dev/null; then \
	  CGO_ENABLED=1 $(GO) test -short -race -timeout 10m -skip 'TestPrepare(Memory|WithoutWordBreak|LongDocuments)' \
	    ./algebra ./runlog ./interop ./dataset ./tensor ./model ./cuda ./train ./engine ./canister/agent ./canister/host ./canister/replica ./cmd/spinnet && \
	  CGO_ENABLED=1 $(GO) test -race -timeout 10m -run Pool ./kernel; \
	else echo "race detector skipped: no C compiler"; fi

fuzz: ## each fuzz target for FUZZTIME
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzzminimizetime 20x -fuzztime $(FUZZTIME) $$pkg; \
	  done; done

lint: ## gofmt, vet and golangci-lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags nocuda ./cuda ./cmd/spinnet
	$(GO) tool -modfile=_tools/go.mod golangci-lint run

tidy: ## fail when go.mod is not what the imports ask for
	$(GO) mod tidy -diff

clean:
	rm -rf bin
