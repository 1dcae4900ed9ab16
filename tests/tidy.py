"""clang-tidy over the C++ and CUDA sources, with the checks of `.clang-tidy`: python -m tests.tidy [FILE...]

CUDA sources are read as the emulator compiles them (tests/cuda). The analyzer looks at fewer paths of a function than
it would by default, which takes 22 CPU-seconds for the reference kernels alone.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ANALYZER = "-w -Xclang -analyzer-config -Xclang max-nodes=20000"
EMULATED = "-x c++ -std=c++20 -DDWCONV_EMULATED -Itests/cuda/emulator -Icsrc -Itests/kernels/checker"
# Where sources are, and what the compiler must know of them; what PYTHON and TORCH stand for is not checked itself.
FLAGS = {
    "csrc/binding/*.cpp": "-std=c++17 -Icsrc TORCH",
    "csrc/probe/*.cpp": "-std=c++17 -Icsrc",
    "csrc/cpu/**/*.cpp": "-std=c++17 -Icsrc",
    "csrc/cuda/*.cpp": EMULATED,
    "csrc/cuda/*/kernels.cu": EMULATED,
    "csrc/cuda/binding/*.cpp": "-std=c++17 -Icsrc TORCH",
    "tests/kernels/calls/*.cpp": "-std=c++17 -Icsrc",
    "tests/kernels/checker/*.cpp": "-std=c++17 -Icsrc PYTHON",
    "tests/cuda/emulator/*.cpp": f"{EMULATED} PYTHON",
}
PLANTED = ROOT / "tests/kernels/checker/planted.cpp"  # has faults, on purpose


def headers() -> dict[str, str]:
    import pybind11
    import torch.utils.cpp_extension

    torch_paths = torch.utils.cpp_extension.include_paths()
    return {
        "TORCH": "-DTORCH_TARGET_VERSION=0x020a000000000000 " + " ".join(f"-isystem {path}" for path in torch_paths),
        "PYTHON": f"-isystem {pybind11.get_include()} -isystem {sysconfig.get_path('include')}",
    }


def commands() -> dict[Path, list[str]]:
    """By source; what takes longest comes first."""
    tidy = Path(sys.executable).with_name("clang-tidy")
    if not tidy.exists() and not shutil.which("clang-tidy"):
        sys.exit("clang-tidy is missing: python -m pip install clang-tidy==20.1.0")
    replaced = headers()
    found = {}
    for pattern, flags in FLAGS.items():
        words = [replaced.get(word, word) for word in f"{flags} {ANALYZER}".split()]
        for path in sorted(ROOT.glob(pattern)):
            name = str(tidy) if tidy.exists() else "clang-tidy"
            found[path] = [name, "--quiet", str(path), "--", *" ".join(words).split()]
    return dict(sorted(found.items(), key=lambda item: "csrc/cpu" not in str(item[0])))


def run(command: list[str]) -> str:
    """What it found, or nothing."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    files = [path.resolve() for path in parser.parse_args().files]
    chosen = {path: command for path, command in commands().items() if (path in files if files else path != PLANTED)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [text for text in pool.map(run, chosen.values()) if text]
    print("".join(found), end="")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    print(f"clang-tidy: {len(chosen)} sources, {len(found)} with findings, {seconds:.0f} CPU-seconds")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())
