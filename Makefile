# make demo    train MobileNetV2 on scanned digits and compare with nn.Conv2d (about 5 minutes on 2 cores)
# make test    every test that is not marked slow or full
# make check   the tests marked slow              make full    all tests: mutants, sanitizers and sizes take long
# make fuzz    calls drawn at random, others each time, for some 15 minutes; FUZZ_SEED=, FUZZ_EXAMPLES= and FUZZ_SECONDS= repeat and lengthen
# make lint    ruff, clang-format, mypy, pyright, the compiler's warnings, clang-tidy    make format  the first two, rewriting
# make docs    the documentation as a site, in site/; a warning is an error
# make package sdist and wheel in dist/, each installed into a fresh environment and used there
# make release-check    make package, then version, changelog and tag, twine check and auditwheel show: ready for an index?
# make check-cuda    the CUDA library for one architecture (CUDA_ARCHS=), loaded into the newer torch, without a GPU (needs nvcc 13)
# make wheel-cuda   the CUDA library of make check-cuda as a wheel of its own, used beside that of make package
# make cuda-gate    the CUDA kernels through nvcc, and their machine code against budgets (needs nvcc 13)
# make gpu-check    on a machine with a GPU: the CUDA library for it, its tests, its benchmark; downloads nothing (GPU_PYTHON=, GPU_ARGS=)
# make build   only the environment and the library
# make check-isa    make test on the kernels of older machines, one after the other (ISAS=)
# make checker  build/checker/plain/program, the kernels against a textbook without torch or Python (--help)
# make check-neon    the kernels of 64-bit Arm, compiled here and run by an emulator: needs aarch64-linux-gnu-g++ and qemu-aarch64
# make wheel-aarch64    the wheel for 64-bit Arm in dist/aarch64, by a cross compiler; needs mmdebstrap too
# make check-aarch64    the same, then the package used from it under an emulated Python: hours; ARM_STEP=slice takes minutes
# make check-clang    the kernels as clang compiles them, part by part, a part a day: needs CLANG=, such as clang++-19
# make check-upgrade    tests of the same library, not built again, under a newer torch in .venv-upgrade (UPGRADE_TORCH=)
# make check-clients    docs/clients.md inside other people's projects, which it installs into .venv-upgrade (1.2 GB)
#
# The first run of any of them creates .venv, installs torch and what else is needed there, and builds the library;
# later runs redo only what changed. PYTHON= chooses the interpreter, TORCH= what pip is asked for, for example
#     make demo TORCH='torch==2.10.0'
# The default is a CPU build; without an --index-url, PyPI's torch for Linux on x86-64 is the CUDA build of several GB.
# The choice is remembered in .venv: no later command installs another torch unless TORCH= asks for it.

PYTHON ?= python3
VENV ?= .venv
DEFAULT_TORCH := torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
TORCH ?= $(or $(shell cat $(VENV)/torch.request 2>/dev/null),$(DEFAULT_TORCH))

NEON_CXX ?= aarch64-linux-gnu-g++
NEON_RUN ?= qemu-aarch64

UPGRADE_VENV ?= .venv-upgrade
UPGRADE_TORCH ?= torch==2.14.1
# What these tests import, by name: '.[test]' would build the library again, against the newer torch.
UPGRADE_TOOLS := expecttest pybind11 pytest pytest-xdist timm torchvision
# Not tests/packaging, which builds, nor bench and examples: their tools, and torch only through what is tested here. Nor
# tests/kernels: the same machine code between raw pointers, whatever torch stands beside it.
UPGRADE_TESTS ?= $(addprefix tests/,operators functional gradients modules convert fuse flops ecosystem)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LIBRARY := torch_dwconv/lib/libtorch_dwconv_cpu.so
SOURCES := $(shell find csrc -type f)
FORMATTED := $(shell find csrc tests tools benchmarks -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

# The kernels without a warning; -Wpsabi is about calls between files, which pass no vectors.
STRICT := -std=c++17 -O0 -S -o /dev/null -Icsrc -Wall -Wextra -Wconversion -Werror -Wno-psabi

# $(call pytest,PYTHON,MARKERS,FILES): the tests in WORKERS processes, then those marked serial one after the other. pytest's
# status 5 says that there were none.
WORKERS ?= $(shell nproc 2>/dev/null || echo 1)
define pytest
	@together=0; alone=0; \
	  $(1) -m pytest -n $(WORKERS) --dist worksteal -m "($(2)) and not serial" $(3) $(PYTEST_ARGS) || together=$$?; \
	  $(1) -m pytest -m "($(2)) and serial" $(3) $(PYTEST_ARGS) || alone=$$?; \
	  case $$together,$$alone in 0,0 | 0,5 | 5,0) ;; *) exit 1 ;; esac
endef

.PHONY: wheel-aarch64 check-aarch64 check-clang wheel-cuda check-cuda check-isa cuda-gate gpu-check demo fuzz test check check-clients checker check-neon check-upgrade docs package full lint format build clean python-headers release-check FORCE
.DELETE_ON_ERROR:

demo: build
	$(BIN)/python examples/train_mobilenetv2.py --compare --output runs/demo

test: build python-headers
	$(call pytest,$(BIN)/python,not slow and not full)

check: build python-headers
	$(call pytest,$(BIN)/python,slow and not full)

full: build python-headers
	$(call pytest,$(BIN)/python,slow or not slow)

# In a process that is capped, the layers above see the kernels of one instruction set only.
ISAS ?= baseline avx2
check-isa:
	for isa in $(ISAS); do echo "== TORCH_DWCONV_ISA=$$isa"; TORCH_DWCONV_ISA=$$isa $(MAKE) --no-print-directory test || exit; done

# Prints the seed that makes the same calls again.
FUZZ_SEED ?= $(shell date +%s)
FUZZ_EXAMPLES ?= 10000
FUZZ_SECONDS ?= 300
fuzz: build
	@echo "make fuzz FUZZ_SEED=$(FUZZ_SEED) FUZZ_EXAMPLES=$(FUZZ_EXAMPLES)"
	TORCH_DWCONV_FUZZ_SEED=$(FUZZ_SEED) TORCH_DWCONV_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) TORCH_DWCONV_TEST_SEED=$(FUZZ_SEED) \
	  TORCH_DWCONV_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/fuzz -o faulthandler_timeout=0 $(PYTEST_ARGS)

# build/checker/cases.csv is what the program runs unless it is told otherwise, layers.csv what --bench may be given.
checker: $(VENV)/installed
	$(MAKE) --no-print-directory -C tests/kernels/checker
	$(BIN)/python -m tests.kernels.cases > build/checker/cases.csv
	$(BIN)/python -m tests.kernels.cases --whole --edges '' --random 0 > build/checker/layers.csv

# The edges and random shapes, of small work: the emulator is slow. Two parts at a time, since it has one thread, the
# longest first. The names of kernels end in their ISA, and a pattern that no kernel matches is an error.
check-neon: $(VENV)/installed
	@command -v $(NEON_CXX) >/dev/null && command -v $(NEON_RUN) >/dev/null || \
	  { echo "$(NEON_CXX) or $(NEON_RUN) is missing: install them (Debian: apt install g++-aarch64-linux-gnu qemu-user)."; exit 1; }
	$(MAKE) --no-print-directory -C tests/kernels/checker -j2 KIND=neon CXX=$(NEON_CXX)
	$(BIN)/python -m tests.kernels.cases --layers '' --max-work 20000 --random 40 > build/checker/neon/cases.csv
	printf '%s\n' '*_reference' '*_nchw_*_neon' '*_nhwc_*_neon' | \
	  xargs -P2 -I{} $(NEON_RUN) build/checker/neon/program --cases build/checker/neon/cases.csv --all --kernel {}

# The torch of PyPI for this machine, and Debian's Python (tools/aarch64).
ARM_STEP ?= check
wheel-aarch64: $(VENV)/installed
	$(BIN)/python -m tools.aarch64 wheel

check-aarch64: $(VENV)/installed
	$(BIN)/python -m tools.aarch64 $(ARM_STEP)

# One compiler a day, of Debian's. To clang -Wconversion is about signs, and a target for a part of a file needs functions.
CLANG ?= $(word $(shell expr $$(date +%j) % 2 + 1),clang++-16 clang++-19)
CLANG_ARGS ?=
check-clang: build
	@command -v $(CLANG) >/dev/null || { echo "$(CLANG) is missing: install it (Debian: apt install clang-16 clang-19)."; exit 1; }
	find csrc/cpu -name '*.cpp' | xargs -P $(WORKERS) -I{} $(CLANG) $(STRICT) -Wno-sign-conversion -Wno-pragma-clang-attribute {}
	$(BIN)/python -m tests.kernels.clang $(CLANG) $(CLANG_ARGS)

check-upgrade: build python-headers
	$(MAKE) --no-print-directory VENV=$(UPGRADE_VENV) TORCH='$(UPGRADE_TORCH)' $(UPGRADE_VENV)/constraints.txt
	$(UPGRADE_VENV)/bin/python -m pip install --quiet --constraint $(UPGRADE_VENV)/constraints.txt $(UPGRADE_TOOLS)
	@echo "Built against $$(cat $(VENV)/constraints.txt), run under $$(cat $(UPGRADE_VENV)/constraints.txt):"
	$(call pytest,$(UPGRADE_VENV)/bin/python,not slow and not full,$(UPGRADE_TESTS))

# With --no-deps, or some of them would bring another torch. They are for the torch of UPGRADE_TORCH as it stands above.
CLIENTS := .ci/requirements-clients.txt
check-clients: build
	$(MAKE) --no-print-directory VENV=$(UPGRADE_VENV) TORCH='$(UPGRADE_TORCH)' $(UPGRADE_VENV)/constraints.txt
	$(UPGRADE_VENV)/bin/python -m pip install --quiet --constraint $(UPGRADE_VENV)/constraints.txt $(UPGRADE_TOOLS)
	$(UPGRADE_VENV)/bin/python -m pip install --quiet --no-compile --no-deps --requirement $(CLIENTS)
	$(call pytest,$(UPGRADE_VENV)/bin/python,not slow and not full,tests/clients)

# The operators, explain and the build with the CUDA library there, which the newer torch alone loads: it is a CUDA build.
CUDA_ARCHS ?= 9.0
CUDA_TESTS ?= tests/operators tests/functional tests/packaging/test_setup_cuda.py
check-cuda: build python-headers
	$(MAKE) --no-print-directory VENV=$(UPGRADE_VENV) TORCH='$(UPGRADE_TORCH)' $(UPGRADE_VENV)/constraints.txt
	$(UPGRADE_VENV)/bin/python -m pip install --quiet --constraint $(UPGRADE_VENV)/constraints.txt $(UPGRADE_TOOLS)
	TORCH_DWCONV_CUDA=only TORCH_CUDA_ARCH_LIST='$(CUDA_ARCHS)' $(UPGRADE_VENV)/bin/python setup.py --quiet build_ext --inplace
	$(call pytest,$(UPGRADE_VENV)/bin/python,not slow and not full,$(CUDA_TESTS))

wheel-cuda:
	rm -rf dist/cuda
	$(UPGRADE_VENV)/bin/python -m tools.cuda_wheel dist/cuda

# What nvcc makes of the CUDA kernels: one architecture in full, of another one, each day another, what the compiler reports.
# GATE_ARGS= asks for more.
GATE_ARGS ?= --arch sm_90 --compile-only today
cuda-gate: $(VENV)/installed
	$(BIN)/python -m tools.cuda_gate $(GATE_ARGS)

# GPU_PYTHON has torch 2.11 or newer of CUDA, setuptools 77 and pytest 9; ninja makes the build faster, pytest-xdist the tests.
# GPU_ARGS='--dry-run' lists the steps, GPU_ARGS='--output FOLDER' names where results go.
GPU_PYTHON ?= $(PYTHON)
gpu-check:
	$(GPU_PYTHON) -m tests.gpu.check $(GPU_ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(FORMATTED)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python tests/packaging/typed_use.py
	find csrc/cpu -name '*.cpp' | xargs -P $(WORKERS) -I{} $(CXX) $(STRICT) {}
	$(BIN)/python -m tests.headers
	$(BIN)/python -m tests.tidy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(FORMATTED)

docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

package: build
	rm -rf dist
	$(BIN)/python -m tests.packaging.distributions dist

# Tools of a release alone, in an environment of their own.
RELEASE_TOOLS := auditwheel==6.8.2 twine==7.0.0
RELEASE_VENV := build/release
release-check: package $(RELEASE_VENV)/installed
	$(BIN)/python tests/packaging/release.py dist $(RELEASE_VENV)/bin

build: $(LIBRARY)

clean:
	rm -rf $(VENV) $(UPGRADE_VENV) build dist runs site compile_commands.json *.egg-info torch_dwconv/lib

$(LIBRARY): $(VENV)/installed $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

# Everything after torch is installed under the constraint that torch stays as it is.
$(VENV)/installed: $(VENV)/constraints.txt pyproject.toml setup.py
	$(PIP) install --quiet --constraint $(VENV)/constraints.txt --no-build-isolation --editable '.[dev,tensorflow,onednn]'
	@touch $@

$(VENV)/docs-installed: $(VENV)/installed
	$(PIP) install --quiet --constraint $(VENV)/constraints.txt 'mkdocs-material>=9.5' 'mkdocstrings[python]>=0.26'
	@touch $@

$(RELEASE_VENV)/installed: Makefile | $(BIN)/python
	$(BIN)/python -m venv $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python -m pip --disable-pip-version-check install --quiet $(RELEASE_TOOLS)
	@touch $@

$(VENV)/constraints.txt: $(VENV)/torch.request
	$(PIP) install --quiet --retries 2 --no-deps $(TORCH)
	@$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' > $@
	$(PIP) install --quiet --constraint $@ torch 'setuptools>=77' ninja

# Written only when the request changes, so that what follows from it is redone only then.
$(VENV)/torch.request: FORCE | $(BIN)/python
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "No $(PYTHON) found: install Python 3.10 or newer (Debian, Ubuntu: apt install python3)."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$$($(PYTHON) --version) is too old: make needs PYTHON= to name Python 3.10 or newer."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: apt install python3-venv)."; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "No C++ compiler found: install one (Debian, Ubuntu: apt install g++) or set CXX."; exit 1; }
	$(PYTHON) -m venv $(VENV)

python-headers: $(BIN)/python
	@$(BIN)/python -c 'import os, sys, sysconfig; \
	  sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || \
	  { echo "Python.h, which the tests' extension needs, is missing: install it (Debian, Ubuntu: apt install python3-dev)."; exit 1; }
