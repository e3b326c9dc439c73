# Every target makes what it needs in the checkout: a virtual environment in .venv, an editable build of infold, exported models in
# build/zoo. Stamp files keep the second time quick. PYTHON picks the interpreter (3.11 or newer), CC the compiler.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install -q --disable-pip-version-check
ZOO    := build/zoo
NATIVE := setup.py pyproject.toml engine/_native.pyx engine/_program.pxi $(shell find src_c -name '*.[ch]')

.PHONY: demo test browser batch serving serve-tests bench zoo docs lint aarch64 packages sanitize fuzz corpus soak clean

demo: $(VENV)/.infold $(VENV)/.demo
	$(BIN)/infold demo $(if $(SHORT),--short)

# PYTEST='-m "slow or not slow"' adds the large networks, PYTEST='-k conv' picks some tests.
test: $(VENV)/.infold $(VENV)/.test
	$(BIN)/python tests/run.py $(PYTEST)

# The page of `infold report` in Chromium. Debian's is installed if there is none, which takes root.
browser: $(VENV)/.infold $(VENV)/.browser
	$(BIN)/python -m pytest -q tests/report/browser.py $(PYTEST)

# A server and real clients, on 127.0.0.1 only, then what serving adds to a run's time. kserve asks for older libraries than the other
# tests have, so this has an environment of its own.
serving:
	$(MAKE) --no-print-directory VENV=.venv-serve serve-tests
serve-tests: $(VENV)/.infold $(VENV)/.serving
	$(BIN)/python -m pytest -q tests/serving $(PYTEST)
	$(BIN)/python bench/serving.py --requests 200

# `infold batch` on a Ray cluster on this machine, with workers that are killed.
batch: $(VENV)/.infold $(VENV)/.ray
	INFOLD_DOCS=ray $(BIN)/python -m pytest -q tests/batch/cluster.py "tests/docs/test_blocks.py::test_blocks[batch.md]" $(PYTEST)

zoo: $(VENV)/.infold $(VENV)/.test
	$(BIN)/python bench/zoo.py $(ZOO)

bench: zoo $(VENV)/.bench
	$(BIN)/python bench/models.py --zoo $(ZOO) --output build/bench

lint: $(VENV)/.lint
	$(BIN)/ruff check .

# The pages of docs/ as a site in build/docs; warnings are errors.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

# AddressSanitizer and UndefinedBehaviorSanitizer (gcc): a build of its own, then the tests that reach the native code and all file
# formats. PYTEST= adds options. Leaks are looked for by `make soak`: CPython's own would hide them here.
SANITIZE := build/sanitize
SANITIZED := tests/native tests/ops tests/plan tests/fuzz tests/models tests/importers tests/conformance tests/test_api.py \
  tests/test_backend.py tests/test_compiled.py tests/test_control.py tests/test_host.py tests/test_out.py tests/test_runtime.py
PRELOAD = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so) $(shell $(CC) -print-file-name=libstdc++.so.6)
sanitize: CC := gcc
sanitize: $(VENV)/.infold $(VENV)/.test
	CC=$(CC) CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
	  LDFLAGS="-fsanitize=address,undefined" $(BIN)/python setup.py -q build --build-base $(SANITIZE) --build-lib $(SANITIZE)/lib
	LD_PRELOAD="$(PRELOAD)" PYTHONPATH=$(SANITIZE)/lib PYTHONMALLOC=malloc \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:log_path=$(SANITIZE)/report \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:log_path=$(SANITIZE)/report \
	  $(BIN)/python -m pytest -q -o timeout=3600 $(PYTEST) $(SANITIZED)

# Mutants of models of every format, and of graphs that are run; counts grow in build/fuzz.json from call to call.
MINUTES ?= 10
fuzz: $(VENV)/.infold $(VENV)/.test
	$(BIN)/python tests/fuzz/campaign.py --minutes $(MINUTES)

# Always the same mutants, from the first on, for a minute of each harness, two at a time.
corpus: $(VENV)/.infold $(VENV)/.test
	rm -f build/corpus-*.json
	set -e; names=$$($(BIN)/python tests/fuzz/campaign.py --list); echo "$$names" | \
	  xargs -P 2 -I {} $(BIN)/python tests/fuzz/campaign.py --harness {} --state build/corpus-{}.json --round 60 --minutes 1

# Sessions under load, and whether the process grows; counts grow in build/soak.json. ONCE="forks=1000 interrupts=1000"
# runs single scenarios so many times instead.
soak: $(VENV)/.infold $(VENV)/.test
	$(BIN)/python tests/load/soak.py --minutes $(MINUTES) $(ONCE)

# The kernel tests on aarch64, cross-compiled and under qemu-user. Debian's packages are installed if there are none, which takes root.
aarch64: $(VENV)/.needs
	{ command -v qemu-aarch64 && command -v aarch64-linux-gnu-gcc; } || \
	  { apt-get -qq update && apt-get -qqy install --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; }
	$(BIN)/python tests/aarch64.py $(PYTEST)

# The sdist and the wheel: reproducible, clean to twine, auditwheel and abi3audit, and working without a compiler on every CPython
# there is. Debian's bubblewrap is installed if there is none, which takes root.
packages: $(VENV)/.packages
	$(BIN)/python tests/packages.py $(PYTEST)

clean:
	rm -rf build dist infold.egg-info $(VENV) .venv-serve engine/_native.*.so

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What pyproject.toml's [build-system] asks for: without build isolation the headers stay in place and objects are reused.
$(VENV)/.needs: pyproject.toml | $(BIN)/python
	$(PIP) $$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'])")
	touch $@

$(VENV)/.infold: $(NATIVE) $(VENV)/.needs
	$(PIP) --no-build-isolation -e .
	touch $@

$(VENV)/.demo: pyproject.toml engine/demo/requirements-nodeps.txt | $(VENV)/.infold
	$(PIP) --no-build-isolation -e '.[demo]'
	$(PIP) --no-deps -r engine/demo/requirements-nodeps.txt
	touch $@

# torch first: what depends on it would choose another build of it.
$(VENV)/.test: pyproject.toml bench/requirements.txt bench/requirements-nodeps.txt tests/requirements-nodeps.txt $(VENV)/.demo | $(VENV)/.infold
	$(PIP) $$(grep '^torch==' bench/requirements.txt)
	$(PIP) -r bench/requirements.txt
	$(PIP) --no-deps -r bench/requirements-nodeps.txt -r tests/requirements-nodeps.txt
	$(PIP) --no-build-isolation -e '.[test]'
	touch $@

$(VENV)/.browser: tests/requirements-browser.txt | $(VENV)/.test
	command -v chromium || { apt-get -qq update && apt-get -qqy install --no-install-recommends chromium; }
	$(PIP) -r tests/requirements-browser.txt
	touch $@

$(VENV)/.serving: pyproject.toml tests/requirements-serving.txt | $(VENV)/.infold
	$(PIP) -r tests/requirements-serving.txt
	$(PIP) --no-build-isolation -e '.[serve]'
	touch $@

$(VENV)/.packages: tests/requirements-packages.txt | $(VENV)/.needs
	command -v bwrap || { apt-get -qq update && apt-get -qqy install --no-install-recommends bubblewrap; }
	$(PIP) -r tests/requirements-packages.txt
	touch $@

$(VENV)/.ray: pyproject.toml | $(VENV)/.test
	$(PIP) --no-build-isolation -e '.[ray]'
	touch $@

$(VENV)/.bench: pyproject.toml | $(VENV)/.infold
	$(PIP) --no-build-isolation -e '.[bench,peers]'
	touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/.infold
	$(PIP) --no-build-isolation -e '.[docs]'
	touch $@

$(VENV)/.lint: | $(BIN)/python
	$(PIP) ruff
	touch $@
