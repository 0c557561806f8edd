# wholefs: a file appears whole or not at all.
#
# Everything CI runs is a target here, so that anybody can run it.

GO      ?= go
PREFIX  ?= /usr/local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
REPS    ?= 5
FUZZTIME ?= 20s

# promtool is unpacked here rather than installed: its package brings a service.
export PATH := $(CURDIR)/build/tools:$(PATH)
# Tests run the binary that was built here.
BIN := $(CURDIR)/bin/wholefs

.DEFAULT_GOAL := help
.PHONY: help build test test-unit test-mount race lint fuzz bench demo install tools clean

help: ## show this
	@echo "wholefs: a FUSE filesystem on which a file appears whole or not at all"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "test, race, bench and demo mount for real: they need root and /dev/fuse."

build: ## build bin/wholefs
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o $(BIN) ./cmd/wholefs

test: tools lint build ## install what is missing and run everything (root, /dev/fuse)
	WHOLEFS_BIN=$(BIN) $(GO) test -count=1 -timeout 30m -p 2 ./...

test-unit: ## only the tests that need neither root nor a mount
	WHOLEFS_ALLOW_SKIP=1 $(GO) test -short $$($(GO) list ./... | grep -v /wholefs/test)

test-mount: tools build ## only the tests with real mounts
	WHOLEFS_BIN=$(BIN) $(GO) test -count=1 -timeout 30m -p 1 ./test/...

race: tools ## everything under the race detector, daemon included
	$(GO) build -race -o $(BIN)-race ./cmd/wholefs
	WHOLEFS_BIN=$(BIN)-race WHOLEFS_TEST_KILLS=20 WHOLEFS_TEST_BIG=268435456 \
		$(GO) test -race -count=1 -timeout 60m -p 1 ./...

lint: ## gofmt and go vet
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...

fuzz: ## run each fuzz target for FUZZTIME (20s)
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "--- $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

bench: build ## compare with plain cp and dd; DOCS=docs/BENCHMARKS.md writes the table
	WHOLEFS_BIN=$(BIN) $(GO) run ./test/bench -reps $(REPS) -check $(if $(DOCS),-docs $(DOCS)) $(BENCHFLAGS)

demo: build ## mount a directory, copy 1 GiB into it, watch it appear whole
	WHOLEFS_BIN=$(BIN) bash test/demo.sh

install: build ## install to PREFIX (/usr/local), with the mount(8) helper
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/wholefs
	install -d $(DESTDIR)/sbin
	ln -sf $(PREFIX)/bin/wholefs $(DESTDIR)/sbin/mount.wholefs

tools: ## install the programs that the tests run (Debian), only what is missing
	bash test/tools.sh

clean: ## remove what was built
	rm -rf bin build
