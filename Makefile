# Every target that needs the environment makes it first: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXP    ?=
RUNS   ?= $(patsubst %/environment.json,%,$(wildcard runs/*/environment.json))
ARGS   ?=
QUICK  ?=
# Where pip should look for torch, if not where it looks by itself (for example PyTorch's CPU wheel index).
TORCH_INDEX ?=

PIP    := $(BIN)/python -m pip install -q --disable-pip-version-check
# Not in requirements.lock: which wheel of torch is right, and what it needs for CUDA, depends on the machine.
UNLOCKED := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
            nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver \
            nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

.DEFAULT_GOAL := help
.PHONY: help setup demo headline test test-slow check lint types smoke bench pretrain finetune submit report tensorboard \
        clean

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo "  EXP=name means experiments/name.yaml; more flags through ARGS, as in ARGS=\"--trainer.devices 8\""

setup: $(STAMP) ## make the environment in .venv, pinned by requirements.lock, with hashes

$(STAMP): pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "fmct needs Python 3.11 to 3.13, this is %d.%d; choose one: make setup PYTHON=python3.11" % v)'
	@echo "setting up $(VENV) (a minute or two) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes --no-deps -r requirements.lock
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	@$(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip check
	@$(BIN)/python -c 'import torch; print("torch", torch.__version__, "with CUDA" if torch.version.cuda else "for the CPU")'
	@touch $@

.PHONY: lock audit
lock: $(STAMP) ## write requirements.lock: the versions of constraints.txt with the hash of every file
	@$(PIP) -c constraints.txt uv
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra slurm --universal --python-version 3.11 --generate-hashes \
		-c constraints.txt $(UNLOCKED:%=--no-emit-package %) --no-annotate --custom-compile-command "make lock" \
		-q -o requirements.lock
	@grep -c '==' requirements.lock | sed 's/$$/ packages with hashes in requirements.lock/'

audit: $(STAMP) ## look up known vulnerabilities of everything in requirements.lock
	@$(PIP) -c constraints.txt pip-audit
	@.ci/audit $(BIN)/pip-audit

demo: $(STAMP) ## synthetic cohort -> pretrain -> adapt -> test elsewhere -> runs/demo/report.html; QUICK=1: in minutes, to see it work
	@$(BIN)/fmct demo $(if $(QUICK),--size quick) $(ARGS)

# Of another seed than the cohorts on which readouts and recipes were chosen.
headline: $(STAMP) ## the same design with three seeds and more scans -> runs/headline/table.md; hours, goes on when run again
	@$(BIN)/fmct demo --size headline --seed 2 $(ARGS)

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

smoke: $(STAMP) ## every part, end to end on a handful of synthetic scans, ended once: runs/smoke/report.html
	@rm -rf runs/smoke
	@FMCT_SMOKE=runs/smoke $(BIN)/python -m pytest -m smoke $(ARGS)

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
