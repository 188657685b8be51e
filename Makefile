# make help says what there is.

# The module files change by hand only.
export GOFLAGS := $(GOFLAGS) -mod=readonly

.PHONY: help build pam run test bench chaos install-packages lint fmt race counts fuzz clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

build: ## build bin/dewey, a static binary
	CGO_ENABLED=0 go build -trimpath -o bin/dewey ./cmd/dewey

pam: ## build bin/dewey-pam, which asks PAM for dewey (with libpam0g-dev; docs/PAM.md)
	CGO_ENABLED=1 go build -C pam-helper -trimpath -o ../bin/dewey-pam .

run: build ## serve a sample maildrop on 127.0.0.1:1110; keeps its data in dewey-data
	@demo/run

test: install-packages ## install what the tests need (apt-get), then run all of them
	@$(MAKE) --no-print-directory lint race counts fuzz
	@echo "make test: all passed"

install-packages: ## install what the tests need (apt-get, by sudo if need be)
	@scripts/install-packages test/packages.txt

SCRIPTS = .ci/run bench/compare/run demo/run scripts/fuzz scripts/install-packages scripts/keep-corpus

lint: ## look for faults and for the wrong format, also in pam-helper, a module of its own
	go tool -modfile=tools.mod golangci-lint run
	cd pam-helper && go vet ./... && go tool -modfile=../tools.mod golangci-lint run -c ../.golangci.yml
	shellcheck $(SCRIPTS)

fmt: ## format the Go files
	go tool -modfile=tools.mod gofumpt -l -w .

race: ## run the tests under the race detector, real clients and all
	CGO_ENABLED=1 go test -race -count=1 -timeout 20m ./...

counts: ## hold memory and allocations to their bounds, which the race detector widens
	go test -count=1 -run 'TestIdleSession|TestPollAllocates' ./pop3server

fuzz: ## run each fuzz target for 10 seconds
	@scripts/fuzz

chaos: install-packages ## break things on purpose, all of it (40 minutes): docs/RELIABILITY.md; the figures go to bin/chaos
	DEWEY_CHAOS=full DEWEY_CHAOS_OUT=$${DEWEY_CHAOS_OUT:-$(CURDIR)/bin/chaos} go test -count=1 -p 1 -timeout 60m ./test/chaos/... ./test/upgrade/...

bench: ## compare dewey with Dovecot and Courier, and write docs/BENCHMARKS.md (an hour; BENCH="--quick": 3 minutes)
	@bench/compare/run $(BENCH)

clean: ## remove what make built; keeps dewey-data
	rm -rf bin
