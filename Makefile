# Every target that needs the environment makes it first: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXP    ?=
RUNS   ?= $(patsubst %/environment.json,%,$(wildcard runs/*/environment.json))
ARGS   ?=
# Where pip should look for torch, if not where it looks by itself (for example PyTorch's CPU wheel index).
TORCH_INDEX ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check lint types smoke bench pretrain finetune submit report tensorboard clean

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo "  EXP=name means experiments/name.yaml; more flags through ARGS, as in ARGS=\"--trainer.devices 8\""

setup: $(STAMP) ## make the environment in .venv, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "fmct needs Python 3.11 to 3.13, this is %d.%d; choose one: make setup PYTHON=python3.11" % v)'
	@echo "setting up $(VENV) (a minute or two) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,slurm]'
	@$(BIN)/python -c 'import torch; print("torch", torch.__version__, "with CUDA" if torch.version.cuda else "for the CPU")'
	@touch $@

demo: $(STAMP) ## synthetic cohort -> index -> preprocess -> pretrain -> adapt -> runs/demo/report.html
	@$(BIN)/fmct demo $(ARGS)

# All tests also write down what they cover, so that `make check` needn't run them again while no file has changed.
PYTEST  := $(BIN)/python -m pytest -n auto --dist loadfile
COVERED := { rm -f .coverage; $(PYTEST) --cov --cov-report= || { code=$$?; rm -f .coverage; exit $$code; }; }

test: $(STAMP) ## the tests, in minutes
	@$(if $(ARGS),$(PYTEST) $(ARGS),$(COVERED))

test-slow: $(STAMP) ## the tests marked slow
	@$(BIN)/python -m pytest -m slow $(ARGS)

check: lint types test-coverage ## what CI runs: ruff, mypy --strict, tests with coverage

lint: $(STAMP) ## ruff, linting and format
	@$(BIN)/ruff check fmct tests
	@$(BIN)/ruff format --check fmct tests

types: $(STAMP) ## mypy --strict on fmct/
	@$(BIN)/mypy

.PHONY: test-coverage
test-coverage: .coverage
	@$(BIN)/coverage report --skip-covered --fail-under=85

.coverage: $(STAMP) $(shell find fmct tests experiments -type f -not -path '*/__pycache__/*') README.md CONTRIBUTING.md
	@$(COVERED)

smoke: $(STAMP) ## the smoke experiments, end to end on synthetic scans, in a minute
	@$(BIN)/fmct demo --smoke --out runs/smoke $(ARGS)

bench: $(STAMP) ## measure this machine, as ratios to a stated baseline
	@$(BIN)/fmct bench $(or $(SUBJECT),preprocess) $(ARGS)

pretrain: $(STAMP) ## learn from scans without labels, as experiments/EXP.yaml says
	$(call fit,$@)

finetune: $(STAMP) ## adapt to labels, as experiments/EXP.yaml says
	$(call fit,$@)

define fit
	@test -n "$(EXP)" || { echo "name an experiment: make $(1) EXP=name, one of:"; ls experiments/*.yaml | sed 's#experiments/\(.*\)\.yaml#  \1#'; exit 2; }
	@$(BIN)/python -m fmct.fit --config experiments/$(EXP).yaml $(ARGS)
endef

submit: $(STAMP) ## hand experiments/EXP.yaml to SLURM: NODES=2 ARGS="--slurm partition=gpu,gpus=8,cores=12,walltime=24:00:00"
	@test -n "$(EXP)" || { echo "name an experiment: make $@ EXP=name, one of:"; ls experiments/*.yaml | sed 's#experiments/\(.*\)\.yaml#  \1#'; exit 2; }
	@$(BIN)/python -m fmct.submit --config experiments/$(EXP).yaml --config experiments/overlays/slurm.yaml --nodes $(or $(NODES),1) $(ARGS)

report: $(STAMP) ## compare the finished runs in runs/: runs/report.html
	@test -n "$(RUNS)" || { echo "no finished run in runs/; name some: make report RUNS=\"folder folder\""; exit 2; }
	@$(BIN)/fmct report $(RUNS) --out runs/report.html $(ARGS)

tensorboard: $(STAMP) ## look at runs/ in TensorBoard
	@$(BIN)/tensorboard --logdir runs

clean: ## remove the environment and caches (runs/ stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
