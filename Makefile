# `make demo` and `make test` set up everything they need: a virtual environment in .venv, and the system's compilers and
# emulators through apt-get where that is permitted.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUTPUT ?= demo-out
# Workers of the test run; each has one thread, so that they do not fight for the cores.
WORKERS ?= auto

.PHONY: help demo test lint docs clean

help:
	@echo "make demo    compress the digits example and measure it on x86, Cortex-A72 and Cortex-M4"
	@echo "make test    run the tests"
	@echo "make lint    check style and types"
	@echo "make docs    build the documentation as a site, in site/"
	@echo "make clean   remove what these have made"

demo: $(VENV)/.ready
	$(BIN)/tvmcompress benchmark examples/digits.onnx \
		--calib examples/digits_calib.npz --eval examples/digits_test.npz \
		--prune 0.5 --quantize int8 \
		--target x86 --target cortex-a72 --target cortex-m4 \
		--skip-missing --output $(DEMO_OUTPUT)

test: $(VENV)/.ready-test
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	scripts/check_installed.sh $(BIN)

# Nothing of it is fetched from elsewhere, neither here nor by who reads it. The environment silences an advertisement.
docs: $(VENV)/.ready-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --site-dir site

clean:
	rm -rf $(VENV) $(DEMO_OUTPUT) build site

$(VENV)/.ready: pyproject.toml scripts/setup.sh
	PYTHON="$(PYTHON)" scripts/setup.sh $(VENV) .
	@touch $@

$(VENV)/.ready-test: pyproject.toml scripts/setup.sh
	PYTHON="$(PYTHON)" scripts/setup.sh $(VENV) ".[test]"
	@touch $@ $(VENV)/.ready
