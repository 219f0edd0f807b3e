# azr_mlx: bare `make` prints what there is. Every target sets up its own environment on first use.
# Written for GNU make 3.81, the one that macOS ships.

VENV   ?= .venv
PYTHON ?=
UV     ?= $(shell command -v uv 2>/dev/null)
BIN    := $(VENV)/bin

# On Apple Silicon the largest model that shows what it learns within an hour (azr presets says which and why), the
# embedded demonstration model elsewhere.
ifeq ($(shell uname -s)-$(shell uname -m),Darwin-arm64)
  DEFAULT_CONFIG := auto
else
  DEFAULT_CONFIG := nano
endif
CONFIG ?= $(DEFAULT_CONFIG)
BENCH  ?= humaneval
TORCH  ?= torch
PROMPT ?= def f(a):
export PROMPT

# An existing run brings its own configuration: name another one only when asked to.
ifneq ($(filter-out auto,$(RESUME)),)
  ifneq ($(origin CONFIG),file)
    TRAIN_CONFIG := --config $(CONFIG)
  endif
else
  TRAIN_CONFIG := --config $(CONFIG)
endif

# The stamps are written last, so an interrupted setup is simply done again. One that names PYTHON makes
# `make test PYTHON=python3.12` look at the interpreter of an environment that is already there.
TAG  := $(if $(PYTHON),-$(subst /,_,$(PYTHON)))
CORE := $(VENV)/.azr-core$(TAG)
DEV  := $(VENV)/.azr-dev$(TAG)
HF   := $(VENV)/.azr-hf$(if $(LLAMA),-llama)$(TAG)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo train eval export report plan doctor generate nano test test-slow hf-check lint format bench docs clean

help: ## Print this help
	@echo "azr_mlx: a Qwen teaches itself to reason about code. Start with: make train"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  CONFIG=$(CONFIG) unless you say otherwise; PYTHON=python3.12 picks the interpreter of $(VENV)"

setup: $(CORE) ## Install into .venv (every target does so on first use; CUDA=1 on a Linux GPU)

demo: $(CORE) ## Show in a minute how the method works
	@$(BIN)/azr demo $(ARGS)

train: $(CORE) ## Teach a model by self-play [CONFIG=nano] [STEPS=n] [RESUME=auto|run] [SET="a.b=c ..."]
	@$(if $(TRAIN_CONFIG),echo "config: $(CONFIG)  (CONFIG=name picks another; configs/ holds them)",true)
	@$(BIN)/azr train $(TRAIN_CONFIG) $(if $(STEPS),--steps $(STEPS)) $(if $(RESUME),--resume $(RESUME)) $(foreach word,$(SET),--set $(word)) $(ARGS)

eval: $(CORE) ## Score a model on a benchmark [BENCH=humaneval] [MODEL=m] [ADAPTER=a] [LIMIT=n]
	@$(BIN)/azr eval --bench $(BENCH) $(if $(MODEL),--model $(MODEL)) $(if $(ADAPTER),--adapter $(ADAPTER)) $(if $(LIMIT),--limit $(LIMIT)) $(ARGS)

export: $(CORE) ## Write a run's adapter for mlx-lm, PEFT and transformers [RUN=run] [FORMAT=mlx,peft,hf]
	@$(BIN)/azr export $(if $(RUN),$(RUN)) $(if $(FORMAT),--format $(FORMAT)) $(ARGS)

report: $(CORE) ## Write a run's report.html [RUN=run]; RUN is the newest run unless given
	@$(BIN)/azr report $(if $(RUN),$(RUN)) $(ARGS)

plan: $(CORE) ## Say whether a configuration fits this machine, and how long a step takes [CONFIG=..]
	@$(BIN)/azr plan --config $(CONFIG) $(ARGS)

doctor: $(CORE) ## Look at this machine and say what to fix
	@$(BIN)/azr doctor $(ARGS)

generate: $(CORE) ## Let a model write, with or without an adapter [MODEL=m] [ADAPTER=a] [PROMPT="..."]
	@$(BIN)/python -m mlx_lm generate --model $(or $(MODEL),checkpoints/qwen3-nano) $(if $(ADAPTER),--adapter-path $(ADAPTER)) --prompt "$$PROMPT" $(ARGS)

nano: $(CORE) ## Pre-train the embedded model again, from scratch (hours on a CPU)
	@$(BIN)/python checkpoints/qwen3-nano/pretrain.py $(ARGS)
	@$(BIN)/python checkpoints/qwen3-nano/pretrain.py --init checkpoints/qwen3-nano --seed 1 --steps 3000 --lr 0.002 --decay 0.7 $(ARGS)
	@$(BIN)/python checkpoints/qwen3-nano/pretrain.py --init checkpoints/qwen3-nano --seed 2 --steps 1600 --lr 0.002 --decay 0.8 --worked 0.3 $(ARGS)
	@$(BIN)/python checkpoints/qwen3-nano/pretrain.py --init checkpoints/qwen3-nano --seed 3 --steps 7800 --decay 0.2308 --worked 0.9 --deductions 0.6 $(ARGS)
	@$(BIN)/python checkpoints/qwen3-nano/pretrain.py --init checkpoints/qwen3-nano --seed 4 --steps 400 --lr 0.0005 --decay 0.7 --grid 0.5 --worked 0.25 --deductions 0.5 $(ARGS)

# Three processes, a file each at a time, the longest first (tests/conftest.py): most tests wait for processes of their
# own. ARGS="-n 0" takes one.
TESTS := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(DEV) ## Run the tests [ARGS="-k name"]
	@$(TESTS) $(ARGS)

test-slow: $(DEV) ## Run the slow tests too
	@$(TESTS) -m "slow or not slow" $(ARGS)

hf-check: $(HF) ## Compare models and exports with transformers, torch, peft [TORCH=torch==2.13.0] and, with LLAMA=1, llama.cpp
	@$(BIN)/python -m pytest -m "slow or not slow" tests/export tests/model/test_rope.py $(ARGS)

lint: $(DEV) ## Check format, style and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(DEV) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(CORE) ## Write the generated pages of docs/
	@mkdir -p docs
	@$(BIN)/python -m azr_mlx.config > docs/configuration.md
	@$(BIN)/python -m azr_mlx.run.metrics > docs/metrics.md
	@$(BIN)/python -m azr_mlx.selfplay.kinds > docs/kinds.md
	@$(BIN)/python docs/draw_architecture.py
	@$(BIN)/python -m tests.docs.macos_branches docs/macos.md

bench: $(DEV) ## Measure speed and memory beside other trainers [ARGS=..]
	@$(BIN)/python -m benchmarks.speed $(ARGS)

clean: ## Remove environments and caches (runs, logs and exports stay)
	rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# -- the environment ----------------------------------------------------------------------------------------

$(CORE): pyproject.toml
	@$(call environment,.)
	@touch $(VENV)/.azr-core $@

$(DEV): pyproject.toml
	@$(call environment,.[dev])
	@touch $(VENV)/.azr-core $(CORE) $(VENV)/.azr-dev $@

$(HF): pyproject.toml
	@$(call environment,.[dev$(comma)hf-check$(if $(LLAMA),$(comma)llama)],$(TORCH))
	@touch $(VENV)/.azr-core $(CORE) $(VENV)/.azr-dev $(DEV) $(VENV)/.azr-hf $@

comma := ,

# $(1): what to install, $(2): what to install before it. The interpreter is PYTHON when given, else the first of the list that will do; an
# environment is kept when it works and has the wanted version, and made anew otherwise.
define environment
set -e; \
will_do='import platform, sys; sys.exit(not (sys.version_info >= (3, 11) and (sys.platform != "darwin" or platform.machine() == "arm64")))'; \
version='import sys; print(".".join(map(str, sys.version_info[:2])))'; \
works() { "$$@" -c "$$will_do" >/dev/null 2>&1; }; \
found=; \
for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python); do \
  if works "$$python"; then found="$$python"; break; fi; \
done; \
if [ -z "$$found" ] && { [ -z "$(UV)" ] || [ -n "$(PYTHON)" ]; }; then \
  echo "azr_mlx needs Python 3.11 or newer$(if $(PYTHON),: $(PYTHON) is not one) (on a Mac an arm64 one): install it, or name one with PYTHON=/path/to/python3" >&2; \
  exit 1; \
fi; \
if works "$(BIN)/python" && { [ -n "$(UV)" ] || "$(BIN)/python" -m pip --version >/dev/null 2>&1; } && \
   { [ -z "$(PYTHON)" ] || [ "$$("$(BIN)/python" -c "$$version")" = "$$("$$found" -c "$$version")" ]; }; then :; \
else \
  echo "setup: $(VENV) with $${found:-a Python that uv brings}"; \
  rm -rf "$(VENV)"; \
  if [ -n "$(UV)" ]; then "$(UV)" venv --quiet --python "$${found:->=3.11}" "$(VENV)"; \
  elif ! "$$found" -m venv "$(VENV)"; then \
    rm -rf "$(VENV)"; \
    echo "setup: $$found cannot make an environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
    exit 1; \
  fi; \
fi; \
echo "setup: installing $(1) into $(VENV) (some minutes the first time)"; \
install() { if [ -n "$(UV)" ]; then "$(UV)" pip install --quiet --python "$(BIN)/python" "$$@"; else "$(BIN)/python" -m pip install --quiet --disable-pip-version-check "$$@"; fi; }; \
{ $(if $(2),install '$(2)' && )install --editable '$(1)'; } || { echo "setup: the installation failed; run the same command again to go on" >&2; exit 1; }; \
$(if $(CUDA),install --editable '.[cuda]'; \
version="$$("$(BIN)/python" -c 'from importlib.metadata import version; print(version("mlx"))')"; \
: "the CPU and the CUDA library share a file name: the wanted one goes in last"; \
install --no-deps --force-reinstall "mlx-cuda-13==$$version";)
endef
