# People who live in make find the main commands here; `make help` lists them.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
EDGEOPT = $(BIN)/edgeopt
# The tested versions are pinned for Python 3.11; other Pythons resolve the ranges of setup.cfg.
CONSTRAINTS := $(if $(filter 3.11,$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')),-c constraints.txt)

MODEL  ?= models/digits.keras
DATA   ?= digits
SCHEME ?= int8
OUT    ?= $(basename $(MODEL)).$(SCHEME).tflite
FLAGS  ?=
# Test files are shared out among this many processes: much of a test is waiting for an import in a worker of its own.
JOBS   ?= 2

.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow lint types bench docs models clean \
        language quantize inspect evaluate benchmark report firmware android doctor

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  MODEL=$(MODEL) DATA=$(DATA) SCHEME=$(SCHEME) FLAGS=\"--max-drop 1.0\""

setup: $(VENV)/.ready ## make the environment in .venv

$(VENV)/.ready: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# setuptools warns of every editable installation, at length
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet $(CONSTRAINTS) -e '.[dev,view]'
	touch $@

demo: setup models/digits.keras ## train a network, measure every scheme of it, write demo/report.html and a C project that tests itself
	$(EDGEOPT) optimize models/digits.keras --data digits -o demo --target cortex-m4 --max-drop 1.0 --max-size 40KB --time 30m
	$(EDGEOPT) export micro demo/variants/digits.int8.tflite -o demo/firmware --runtime c99 --name digits --data digits
	cmake -S demo/firmware -B demo/firmware/build > /dev/null
	cmake --build demo/firmware/build > /dev/null
	ctest --test-dir demo/firmware/build
	@echo "Open demo/report.html; demo/firmware is the int8 model as plain C"

models/digits.keras: models/digits_cnn.py models/training.py | $(VENV)/.ready
	$(BIN)/python models/digits_cnn.py -o $@ --force

models: setup models/digits.keras ## train the digits model; `make models/resnet8.keras DATA=cifar10` trains another

models/%.keras: models/%.py models/training.py | $(VENV)/.ready
	$(BIN)/python $< --data $(DATA) -o $@ --force

models/decoder.keras: models/decoder.py models/training.py | $(VENV)/.ready
	$(BIN)/python models/decoder.py -o $@ --force

language: setup models/decoder.keras ## train a small language model, quantize it four ways, let each write, renew docs/language-models.md
	$(BIN)/python -m bench.language --model models/decoder.keras --page
	$(BIN)/python -m bench.language --model models/decoder.keras --speeds

test: setup ## all tests but the slow ones
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: setup ## every test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "slow or not slow"

lint: setup ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy
	$(BIN)/mypy

bench: setup models/digits.keras ## compare with what one would do by hand; renews docs/benchmarks.md
	$(BIN)/python -m bench

docs: setup ## renew the references that are generated from the code
	$(BIN)/python docs/generate.py

quantize: setup ## convert MODEL with SCHEME, calibrated with DATA
	$(EDGEOPT) convert $(MODEL) -o $(OUT) --scheme $(SCHEME) --data $(DATA) $(FLAGS)

inspect: setup ## what MODEL holds
	$(EDGEOPT) inspect $(MODEL) $(FLAGS)

evaluate: setup ## score OUT on DATA
	$(EDGEOPT) evaluate $(OUT) --data $(DATA) $(FLAGS)

benchmark: setup ## time OUT on this machine
	$(EDGEOPT) benchmark $(OUT) $(FLAGS)

report: setup ## the main job on MODEL and DATA, into report/
	$(EDGEOPT) optimize $(MODEL) --data $(DATA) -o report $(FLAGS)

firmware: setup ## OUT as a project for microcontrollers, into firmware/
	$(EDGEOPT) export micro $(OUT) -o firmware $(FLAGS)

android: setup ## OUT as a Gradle project, into android/
	$(EDGEOPT) export android $(OUT) -o android $(FLAGS)

doctor: setup ## what works on this machine
	$(EDGEOPT) doctor

clean: ## remove what was made here
	rm -rf $(VENV) demo report firmware android build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f models/*.keras models/*.tflite
