"""Builds the emulated kernels with ninja: a Python extension, and ``checker`` under two sanitizers.

Each source of csrc/cuda is compiled as C++20 by the host's compiler. Builds live in ``build/cuda_tests``; ninja redoes
what has changed. One process builds at a time.
"""

import fcntl
import functools
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = Path(__file__).with_name("emulator")
WORK = ROOT / "build" / "cuda_tests"
# Flags of each build, and those of the emulator's own sources: it is not instrumented, since it is what orders fibers.
BUILDS = {
    "plain": ("-O1 -fPIC -fvisibility=hidden", ""),
    "asan": ("-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all", "-DEMULATOR_ASAN"),
    "tsan": ("-O1 -g1 -fsanitize=thread", "-DEMULATOR_TSAN"),
}
TEXTBOOK = [f"../../kernels/checker/textbook{part}.cpp" for part in ("", "_batch_norm", "_sequence")]
CHECKER = ("checker.cpp", "planted.cu", *TEXTBOOK)
PROGRAMS = {
    "plain": ("cuda_extension.so", ("extension.cpp", "registered.cpp", "planted.cu")),
    "asan": ("checker", CHECKER),
    "tsan": ("checker", CHECKER),
}
EMULATOR_SOURCES = [EMULATOR / "emulator.cpp", EMULATOR / "record.cpp"]


def _ninja_file() -> str:
    includes = f"-I{EMULATOR} -I{ROOT / 'csrc'} -I{ROOT / 'tests/kernels/checker'}"
    python = f"-isystem {pybind11.get_include()} -isystem {sysconfig.get_path('include')}"
    lines = [
        "cxx = c++ -std=c++20 -DDWCONV_EMULATED -Wall -Wextra -Werror -Wno-unknown-pragmas "
        + f"-ffp-contract=off -fno-strict-aliasing {includes} {python}",
        "rule compile",
        "  command = $cxx $flags -MMD -MF $out.d -x c++ -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        "  command = c++ $flags $in -o $out",
    ]
    for build, (flags, emulator_flags) in BUILDS.items():
        program, tests = PROGRAMS[build]
        kernels = [ROOT / "csrc/cuda/registry.cpp", *sorted((ROOT / "csrc/cuda").glob("*/kernels.cu"))]
        objects = []
        for source in [*kernels, *(EMULATOR / name for name in tests), *EMULATOR_SOURCES]:
            objects.append(f"{build}/{source.parent.name}_{source.name}.o")
            own = f"-O2 -fPIC {emulator_flags}" if source in EMULATOR_SOURCES else f"{flags} {emulator_flags}"
            lines += [f"build {objects[-1]}: compile {source}", f"  flags = {own}"]
        lines += [f"build {build}/{program}: link {' '.join(objects)}"]
        lines += [f"  flags = {'-shared' if program.endswith('.so') else flags}"]
    return "\n".join(lines) + "\n"


def build(name: str) -> Path:
    """Path of what ``BUILDS[name]`` makes, up to date."""
    WORK.mkdir(parents=True, exist_ok=True)
    with open(WORK / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ninja_file, text = WORK / "build.ninja", _ninja_file()
        if not ninja_file.exists() or ninja_file.read_text() != text:
            ninja_file.write_text(text)
        target = f"{name}/{PROGRAMS[name][0]}"
        command = [sys.executable, "-m", "ninja", "-C", str(WORK), target]
        built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if built.returncode:
            raise RuntimeError(f"building the emulated CUDA kernels failed:\n{built.stdout}")
    return WORK / target


@functools.cache
def extension():
    """The module ``cuda_extension``, built if need be."""
    spec = importlib.util.spec_from_file_location("cuda_extension", build("plain"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
