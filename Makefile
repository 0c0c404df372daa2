PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
QUICK := tests/model tests/lora tests/training tests/data/test_masking.py tests/data/test_packing.py \
	--ignore tests/training/test_parallel.py --ignore tests/training/test_measured_as_saved.py

.PHONY: quickstart smoke test quick slow bench anchors gpu notebooks paper submission lint types clean

quickstart: .venv/.extras          ## all three tracks on the embedded defaults, ends in a report
	$(BIN)/python quickstart.py

smoke: .venv/.extras               ## the same way in three to four minutes
	$(BIN)/python quickstart.py --smoke

test: .venv/.dev                   ## the tests, on two cores
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

quick: .venv/.dev                  ## the tests of network, LoRA, masking, packing, loss and training, in a minute and a half
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(QUICK)

slow: .venv/.slow                  ## the long proofs, llama.cpp among them
	$(BIN)/python -m pytest -m slow

bench: .venv/.bench                ## side by side with the peers; alone on the machine, about an hour
	$(BIN)/python -m bench.generate --out runs/bench/generate.json
	$(BIN)/python -m bench.train --out runs/bench/train.json
	$(BIN)/python -m bench.embed --out runs/bench/embed.json
	$(BIN)/python -m bench.search --out runs/bench/search.json
	$(BIN)/python -m bench.sandbox --out runs/bench/sandbox.json

anchors: .venv/.extras             ## published scores of HumanEval and MBPP beside ours, and what makes the difference; hours on a CPU
	$(BIN)/python -m experiments.anchors.run --out runs/anchors

gpu: .venv/.bench                  ## test and measure everything on a GPU, in under ten minutes; downloads no model
	$(BIN)/python -m bench.gpu --out runs/bench/gpu.json

notebooks: .venv/.notebooks        ## execute the notebooks anew, from their texts and docs/; forty minutes
	$(BIN)/python -m notebooks.build

paper: .venv/.paper                ## the study's paper, every figure from experiments/*/results.json; needs latexmk
	$(BIN)/python -m paper.generate
	$(BIN)/python -m paper.compile

submission: paper                  ## the paper, its sources and all code in one archive
	$(BIN)/python -m paper.submission --out runs/submission.zip

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev                  ## pyright on the reading path; mypy on the rest, where errors may only become fewer
	$(BIN)/basedpyright
	$(BIN)/python -m tests.mypy_ratchet

clean:                             ## remove the environment; runs/ stays
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/.%: .venv/bin/python pyproject.toml constraints.txt      # an extra of pyproject.toml
	$(PIP) --editable '.[$*]'
	touch $@
