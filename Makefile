# The words a person types; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

ROOT := $(CURDIR)
PYTHON ?= python3.11
export PATH := $(ROOT)/.venv/bin:$(PATH)
# nothing that runs here reports anything to anyone
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1

.PHONY: help env git repro test bench estimate exp params diff compare page figure mlflow-sync ui forget clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

env: ## make .venv from requirements.txt, once; again only when that file has changed
	@want="$$(cksum < requirements.txt)"; \
	if [[ "$$(cat .venv/made-from 2>/dev/null || true)" == "$$want" ]]; then exit 0; fi; \
	outside="$${PATH#*:}"; \
	python="$$(PATH="$$outside" command -v $(PYTHON) || PATH="$$outside" command -v python3 || true)"; \
	found="$$([[ -z "$$python" ]] || "$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; \
	if [[ "$$found" != 3.11 ]]; then \
	  echo "error: expected Python 3.11, found $${python:-no python3} $$found." >&2; \
	  echo "Install it, or name it: make $(or $(MAKECMDGOALS),env) PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	.venv/bin/python -m pip --version > /dev/null 2>&1 || "$$python" -m venv --clear .venv; \
	echo "make env: installing requirements.txt into .venv (some minutes)" >&2; \
	.venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements.txt; \
	echo "$$want" > .venv/made-from

git:
	@command -v git > /dev/null || { echo "error: expected git, found none in PATH. DVC keeps its history with git: install it." >&2; exit 1; }
	@top="$$(git rev-parse --show-toplevel 2>/dev/null || true)"; \
	if [[ -z "$$top" || ! "$$top" -ef "$(ROOT)" ]]; then \
	  echo "error: $(ROOT): expected a git repository of its own, found $${top:-none} (an unpacked archive has no history)." >&2; \
	  echo "Clone the project instead, or make this folder one:" >&2; \
	  echo "  git init -q && git add -A && git commit -q -m 'Unpacked' && make $(or $(MAKECMDGOALS),repro)" >&2; exit 1; fi

repro: git env ## the main job: run every stage whose inputs changed, from raw ECGs to the report
	@dvc repro
	@echo "The report: file://$(ROOT)/reports/index.html"

test: env ## ruff, mypy and the tests
	@ruff check .
	@ruff format --check .
	@mypy
	@pytest -n 2

estimate: env ## hours, memory and disk of the report's and the paper's full configuration here (two minutes; ARGS="--help")
	@python -m benchmarks.estimate $(ARGS)

bench: env ## time every part against a textbook version -> benchmarks/results/bench.json (ARGS="--quick")
	@python -m benchmarks.bench $(ARGS)

exp: git env ## run overlays: NAME="full paper200" SET="-S key=value" SEEDS="1 2 3"; the workspace stays as it is
	@python -m experiments.run exp --name "$(NAME)" --set "$(SET)" --seeds "$(SEEDS)"

params: env ## write overlays into params.yaml, running nothing: NAME="full paper200"
	@python -m experiments.run params --name "$(NAME)"

diff: env ## where two sets of overlays differ: A=full B="full paper200"
	@python -m experiments.run diff --first "$(A)" --second "$(B)"

compare: git env ## experiments side by side on one page: curves, scores, parameters (NAME="a b"; all without)
	@python -m experiments.compare $(NAME)

page: git env ## the report page with this machine, versions and commit added (.state/report/index.html)
	@python -m experiments.view

figure: env ## the figure at the top of README.md, from reports/evaluate/metrics.json (docs/demo.png)
	@python -m experiments.view figure

mlflow-sync: env ## log to MLflow from the reports what it does not have yet
	@python -m ecg_core.mlflow_writer sync

PORT ?= 5000
ui: env ## MLflow's pages over all runs, on this machine alone (PORT=5000)
	@if [[ "$${MLFLOW_TRACKING_URI:-}" == http* ]]; then echo "MLflow: $$MLFLOW_TRACKING_URI"; exit 0; fi; \
	echo "MLflow: http://127.0.0.1:$(PORT)  (Ctrl-C ends it)"; \
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --workers 1 --host 127.0.0.1 --port $(PORT) \
	  --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(ROOT)/mlflow.db}"

forget: ## discard the states from which interrupted or finished trainings go on
	@if [[ -d .state ]]; then find .state -mindepth 1 -maxdepth 1 ! -name mlflow ! -name segments-cache -exec rm -rf {} +; fi

clean: forget ## forget, and remove what `make repro` or the tools make again (not .venv, DVC's cache, MLflow's runs, raw data)
	@rm -rf models data/manifest data/segments data/split .state/segments-cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
