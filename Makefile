# swarmbridge: everything a person does with it from a checkout. `make` alone lists it.
#
# Paths are always relative and quoted where they can hold spaces, so that the checkout may live anywhere.

PYTHON ?= python3
UV_VERSION := 0.13.9
SIZE_MIB ?= 32
FILE ?=
JSON ?=
QUICK ?=
ARGS ?=
TESTS ?= tests
WITHOUT_INTEROP := --ignore=tests/interop

UV_STAMP := .tools/.uv-$(UV_VERSION)
UV := .tools/bin/uv
# Another environment for another Python: make test PYTHON=python3.13 VENV=.venv-3.13
VENV ?= .venv
BIN := $(VENV)/bin
COMPOSE := docker compose
STAMP := $(VENV)/.synced
export UV_PROJECT_ENVIRONMENT := $(VENV)
# Installing must not depend on a home directory, nor leave anything there or among the machine's temporary files.
export UV_CACHE_DIR := $(or $(UV_CACHE_DIR),.tools/cache)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo up check test test-interop test-compose coverage start stop restart upgrade backup restore logs bench-fallback bench-webtorrent clean
.DELETE_ON_ERROR:

help:  ## this list
	@printf 'swarmbridge: chunks over whichever transport works\n\n'
	@sed -n 's/^\([a-z][a-z-]*\):.*##  *\(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r target text; \
		do printf '%-23s %s\n' "$$target" "$$text"; done
	@printf '\nSettings: PYTHON=%s  SIZE_MIB=%s  FILE=path  JSON=1  ARGS=…  TESTS=%s\n' '$(PYTHON)' '$(SIZE_MIB)' '$(TESTS)'

setup: $(STAMP)  ## install everything into .venv (done by the others where needed)
	@echo "ready; try: make demo" >&2

demo: $(STAMP)  ## two nodes, three transports, real faults (FILE=path adds a file, SIZE_MIB=32, JSON=1)
	@exec $(BIN)/python -m services.supervisor demo --size-mib $(SIZE_MIB) $(if $(FILE),--file "$(FILE)") $(if $(JSON),--json) $(ARGS)

up: $(STAMP)  ## one node until Ctrl-C (ARGS="--port 8080")
	@exec $(BIN)/python -m services.supervisor up $(ARGS)

check: $(STAMP)  ## lint, formatting, spelling, secrets, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	git ls-files -z ':!uv.lock' ':!tests/vectors' ':!*package-lock.json' | xargs -0 $(BIN)/detect-secrets-hook
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest tests/architecture

test: $(STAMP)  ## every test (TESTS=tests/shared for some)
	$(BIN)/python -m pytest $(WITHOUT_INTEROP) $(TESTS) $(ARGS)

test-interop: $(STAMP)  ## against the real peers: Chromium with peerjs, npm's peer (installs what is missing)
	tests/interop/install
	@TMPDIR="$(CURDIR)/.tools/tmp" $(UV) sync --quiet --frozen --inexact --extra node --group interop --python '$(PYTHON)' >&2
	$(BIN)/python -m pytest tests/interop $(ARGS)

test-compose: $(STAMP)  ## two nodes under docker compose, harmed, seen in a real Jaeger (installs what is missing; PART="words")
	@TMPDIR="$(CURDIR)/.tools/tmp" $(UV) sync --quiet --frozen --inexact --extra node --group interop --python '$(PYTHON)' >&2
	@exec $(BIN)/python -m tests.compose $(PART) $(ARGS)

define say_where
	@printf 'page:    http://%s/#token=%s\n' "$$($(COMPOSE) port gateway 8080)" "$$($(COMPOSE) exec -T gateway cat /secret/gateway.token)"
	@printf 'metrics: http://%s/metrics (with the token)\n' "$$($(COMPOSE) port gateway 8080)"
	@printf 'jaeger:  http://%s\n' "$$($(COMPOSE) port jaeger 16686)"
endef

start:  ## a node under docker compose; prints where its page is
	@$(COMPOSE) build --quiet
	@$(COMPOSE) up --detach --wait $(ARGS)
	$(say_where)

stop:  ## end it; its keys and files stay (service=webrtc ends that alone)
	@$(COMPOSE) $(if $(service),stop $(service),down) $(ARGS)

restart:  ## start it again (service=webrtc that alone); prints where its page is
	@$(COMPOSE) restart $(service) $(ARGS)
	@$(COMPOSE) up --detach --wait --no-recreate
	$(say_where)

upgrade:  ## replace its containers by this checkout's, one service after another
	@COMPOSE="$(COMPOSE)" ops/compose/upgrade.sh

backup:  ## its identity, index and chunks into FILE=path, stopped meanwhile; whoever has the file is the node
	@test -n "$(FILE)" || { echo 'make: say where to: make backup FILE=node.tar' >&2; exit 1; }
	@running="$$($(COMPOSE) ps --quiet)"; $(COMPOSE) stop && \
		(umask 077; $(COMPOSE) run --rm --no-deps -T backup save >"$(FILE).part") && mv "$(FILE).part" "$(FILE)"; \
		code=$$?; test -z "$$running" || $(COMPOSE) up --detach --wait --no-recreate; exit $$code

restore:  ## a node out of FILE=path, where there is none yet; then: make start
	@test -n "$(FILE)" || { echo 'make: say from where: make restore FILE=node.tar' >&2; exit 1; }
	@$(COMPOSE) run --rm --no-deps -T backup load <"$(FILE)"

logs:  ## what its containers say (service=webrtc that alone)
	@$(COMPOSE) logs --tail 200 $(service) $(ARGS)

coverage: $(STAMP)  ## the tests with the lines that they run; of child processes nothing is counted (Python 3.12+)
	COVERAGE_CORE=sysmon $(BIN)/python -m coverage run -m pytest $(WITHOUT_INTEROP) $(TESTS) $(ARGS)
	$(BIN)/python -m coverage report --sort=cover | tail -n 25

bench-fallback: $(STAMP)  ## latency that faults add, beside two plain ladders (under 10 min; QUICK=1 under one, JSON=1)
	@exec $(BIN)/python -m ops.bench fallback $(if $(QUICK),--quick) $(if $(JSON),--json) $(ARGS)

bench-webtorrent: $(STAMP)  ## our wire beside webtorrent, libtorrent, a socket and NATS (QUICK=1 64 MiB once, JSON=1)
	@tests/interop/install
	@exec $(BIN)/python -m ops.bench.webtorrent $(if $(QUICK),--quick) $(if $(JSON),--json) $(ARGS)

clean:  ## remove what setup and the tools made
	rm -rf .venv .venv-* .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find services shared tests ops -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV_STAMP):
	@command -v '$(PYTHON)' >/dev/null || { echo "make: no '$(PYTHON)'; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $$('$(PYTHON)' --version) is too old; 3.11 or newer is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	@'$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "make: '$(PYTHON)' has no venv module; install it (Debian: python3-venv) or name another: make PYTHON=…" >&2; exit 1; }
	@rm -rf .tools && mkdir -p .tools/tmp
	@echo 'setting up .tools and .venv (once)' >&2
	@'$(PYTHON)' -m venv .tools
	@TMPDIR="$(CURDIR)/.tools/tmp" .tools/bin/python -m pip install --quiet 'uv==$(UV_VERSION)' >&2
	@touch $@

# Only when what is installed can have changed; output on stderr, so that `make demo JSON=1` stays JSON.
$(STAMP): pyproject.toml uv.lock | $(UV_STAMP)
	@TMPDIR="$(CURDIR)/.tools/tmp" $(UV) sync --quiet --frozen --extra node --compile-bytecode --python '$(PYTHON)' >&2
	@touch $(STAMP)
