# What a person types. Each target makes .venv and builds first. BENCH: what python -m bench
# is given, say BENCH="train infer --only cnn"; without it, all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: train test bench bench-peers performance docs lint build clean

train: build
	$(BIN)/fastnn train --data digits --model cnn

test: build
	$(BIN)/python -m pytest -n auto --dist worksteal

bench: build
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[bench]"
	$(BIN)/python -m bench $(BENCH)

performance: build
	$(BIN)/python -m bench report > docs/performance.md

bench-peers:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet numpy torch==2.13.0 jax tensorflow-cpu onnxruntime onnx

docs: build
	$(BIN)/pip install --quiet pdoc
	$(BIN)/pdoc --output-directory build/docs --docformat markdown --template-directory docs/pdoc fastnn

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'kernels/*.c' 'kernels/*.h')
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint fastnn/_core.pyx fastnn/*.pxi

build: $(VENV)/.ready
	$(BIN)/python setup.py --quiet build_ext --inplace

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "setuptools>=77" "cython>=3.1" "numpy>=2.0"
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[test,lint]"
	$(BIN)/pip install --quiet --no-deps aeon  # only data files of it are read
	touch $@

clean:
	rm -rf build dist fastnn/*.so fastnn/_core.c *.egg-info
