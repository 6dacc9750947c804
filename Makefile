# Everything starts here. Needs only Python >= 3.11 and make; the environment is left in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Test processes at once, each with servers and ports of its own: they often wait, so one more than two cores.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Optional parts that were asked for once stay: `make install EXTRAS=device`, or `EXTRAS="device s3"`.
EXTRAS_FILE := $(VENV)/.extras
EXTRAS ?= $(shell cat $(EXTRAS_FILE) 2>/dev/null)
SOURCES := pyproject.toml uv.lock hatch_build.py $(shell find web -path web/node_modules -prune -o -type f -print 2>/dev/null)

# End-to-end tests that are run while all modules move.
MOVED := flow resume crash live rest kills twilio

# Jaeger from its Go module, once for all checkouts of this user.
JAEGER := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/quickcomm/jaeger-v1.76.0/jaeger

# Modules are compiled once, not by each of the processes that a test starts.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo picture test test-fast test-units test-long test-up test-services test-migrating check check-page check-workflows bench jaeger clean
help: ## Show what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(STAMP): $(SOURCES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), "QuickComm needs Python 3.11 or newer"'
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(BIN)/uv sync --frozen --all-groups $(addprefix --extra ,up $(EXTRAS))
	@echo '$(EXTRAS)' > $(EXTRAS_FILE)
	@touch $@

ifeq ($(origin EXTRAS),command line)
.PHONY: $(STAMP)
endif

install: $(STAMP) ## Set up .venv (uv, locked dependencies, the page); EXTRAS=device for sound devices

demo: install ## Play a recorded shift into a running QuickComm; ONCE=1 ends when it is over, PORT=8090
	@$(BIN)/quickcomm demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

picture: install ## Take the README's picture from a demo, in Chromium
	$(BIN)/python -m tools.picture

test-fast: install ## In two minutes: unit and contract tests that need no server, and the page's checks
	$(MAKE) --no-print-directory -j2 --output-sync=target check-page test-units

test-units: install
	$(PYTEST) -m 'not long and not server' --hypothesis-profile=fast tests/unit tests/contract $(ARGS)

test: install ## Everything that takes minutes at most
	$(PYTEST) -m 'not long' --hypothesis-profile=some $(ARGS)

test-long: install ## All tests, also those that take long; builds Jaeger first where there is Go
	@command -v go >/dev/null && $(MAKE) --no-print-directory jaeger || echo "Without Go, Jaeger's test is skipped."
	$(PYTEST) $(ARGS)
	$(if $(ARGS),,$(MAKE) --no-print-directory test-migrating)

check: install check-page ## Format, lint, types, import contracts, the page
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# PyPI has actionlint only as a script that downloads it from elsewhere; Go's own registry has its source.
check-workflows: ## Workflow files, by actionlint; needs Go
	@command -v go >/dev/null || { echo "Go is needed to build actionlint: https://go.dev/dl"; exit 1; }
	cd deploy/actionlint && go tool actionlint $(addprefix $(CURDIR)/,$(wildcard .github/workflows/*.yml))

check-page: install ## The page alone: types, lint, unit tests
	$(BIN)/python hatch_build.py check

test-up: install ## End-to-end tests of conversations, through edge and store
	E2E_DEPLOYMENT=monolith-up $(PYTEST) -m 'not long' $(addprefix tests/e2e/test_,flow.py resume.py crash.py live.py kills.py twilio.py) $(ARGS)

test-migrating: install ## The same, the page and telephone calls, with all three modules moving between both sides every few seconds
	E2E_DEPLOYMENT=migrating $(PYTEST) -m 'not long' $(addprefix tests/e2e/test_,$(addsuffix .py,$(MOVED))) tests/e2e/page $(ARGS)

test-services: install ## The same and the page, with the dashboard as a service of its own
	E2E_DEPLOYMENT=services $(PYTEST) -m 'not long' $(addprefix tests/e2e/test_,flow.py resume.py crash.py live.py kills.py rest.py prompts.py twilio.py) tests/e2e/page $(ARGS)

bench: install ## Benchmarks: a table and JSON
	$(BIN)/python -m benchmarks $(ARGS)

jaeger: $(JAEGER) ## Build Jaeger, which needs Go: to look at traces, and for the test that does
	@echo "$(JAEGER)"

$(JAEGER): deploy/jaeger/go.mod deploy/jaeger/go.sum
	@command -v go >/dev/null || { echo "Go is needed to build Jaeger: https://go.dev/dl"; exit 1; }
	@mkdir -p $(@D)
	cd deploy/jaeger && go build -trimpath -buildvcs=false -ldflags='-s -w' -o '$@.new' github.com/jaegertracing/jaeger/cmd/all-in-one
	@mv '$@.new' '$@'

clean: ## Remove what was built
	rm -rf $(VENV) .bench src/quickcomm/dashboard/static web/node_modules
