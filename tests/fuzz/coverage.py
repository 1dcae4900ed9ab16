"""libFuzzer over the operators: bytes become calls (operators.cpp), what they reach decides which bytes come next.

    python -m tests.fuzz.coverage SECONDS [ISA] [DTYPE] [ARGUMENTS OF LIBFUZZER...]

Everything under test is built by clang with AddressSanitizer and UBSan, the vectorised kernels for one instruction set
and one dtype (today's, unless named), the reference kernels for all. What is found goes to build/fuzz/crash-*, and a
program given that file makes the call again. build/fuzz/corpus keeps what reached something new.
"""

import datetime
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from tests.kernels import parts

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "fuzz"
# Kernels compute addresses outside their buffers, of padding and of what is fetched ahead, and do not access them: not
# by the letter of C++, which these two checks go by; AddressSanitizer sees the accesses.
FLAGS = (
    "-std=c++17 -g1 -w -pthread -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize=pointer-overflow,bounds"
    " -fno-sanitize-recover=undefined"
)
# Memory is limited by the target itself.
OPTIONS = ("-timeout=20", "-rss_limit_mb=0", "-max_len=128", "-len_control=0", "-print_final_stats=1")


@functools.cache
def missing() -> str | None:
    """None, or what this machine lacks."""
    if shutil.which("clang++") is None:
        return "there is no clang++ here: Debian's packages clang and libclang-rt-dev have it and libFuzzer"
    empty = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }'
    command = ["clang++", "-fsanitize=fuzzer,address", "-x", "c++", "-", "-o", os.devnull]
    linked = subprocess.run(command, input=empty, capture_output=True, text=True)
    return None if linked.returncode == 0 else f"clang++ links no libFuzzer here: {linked.stderr[-300:]}"


def todays() -> tuple[str, str]:
    """The instruction set and the dtype whose turn it is."""
    choices = list(product(parts.DTYPES, parts.isas()))
    dtype, isa = choices[datetime.date.today().toordinal() % len(choices)]
    return isa, dtype


def compiled(source: Path, target: Path, *flags: str) -> Path:
    command = ["clang++", *FLAGS.split(), *flags, "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    return target


def torch_flags() -> list[str]:
    from torch.utils.cpp_extension import include_paths

    macro = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # setup.py's
    return [macro, *(argument for path in include_paths() for argument in ("-isystem", path))]


@functools.cache
def program(isa: str, dtype: str, planted: bool = False) -> Path:
    """The fuzzer; built again when a source has changed."""
    from torch.utils.cpp_extension import library_paths

    target = Path(__file__).with_name("operators.cpp")
    sources = [target, Path(__file__), *sorted(path for path in (ROOT / "csrc").glob("**/*.[ch]*") if path.is_file())]
    text = "\0".join([isa, dtype, *(path.read_text() for path in sources)])
    place = WORK / hashlib.sha256(text.encode()).hexdigest()[:12]
    if not (place / "done").exists():
        place.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [
                pool.submit(compiled, source, place / f"{i}.o", "-O0", *parts.flags([isa], [dtype]))
                for i, source in enumerate([*parts.sources(), *sorted((ROOT / "csrc/cpu/block").glob("*.cpp"))])
            ]
            for name, flags in (("operators", []), ("planted", ["-DPLANTED"])):
                arguments = (target, place / f"{name}.o.target", "-O1", f"-I{ROOT / 'csrc'}", *flags, *torch_flags())
                jobs.append(pool.submit(compiled, *arguments))
            objects = [job.result() for job in jobs]
        for name, own in (("operators", objects[-2]), ("planted", objects[-1])):
            command = ["clang++", "-fsanitize=fuzzer,address,undefined", "-pthread", own, *objects[:-2]]
            command += ["-ltorch_cpu", "-lc10", "-o", place / name]
            command += [argument for path in library_paths() for argument in (f"-L{path}", f"-Wl,-rpath,{path}")]
            subprocess.run(list(map(str, command)), check=True)
        (place / "done").touch()
    return place / ("planted" if planted else "operators")


def run(seconds: int, isa: str, dtype: str, *arguments: str, planted: bool = False) -> subprocess.CompletedProcess:
    """Fuzzes for so long, or until something is found: the exit status is 0 if nothing is."""
    corpus = WORK / ("corpus-planted" if planted else "corpus")
    corpus.mkdir(parents=True, exist_ok=True)
    command = [program(isa, dtype, planted), corpus, *OPTIONS, f"-max_total_time={seconds}"]
    command += [f"-artifact_prefix={WORK}/{'planted-' if planted else ''}", *arguments]
    environment = os.environ | {"TORCH_DWCONV_ISA": isa, "OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, errors="replace")


if __name__ == "__main__":
    if problem := missing():
        sys.exit(problem)
    seconds, *rest = sys.argv[1:] or ["60"]
    chosen = [word for word in rest if not word.startswith("-")]
    isa, dtype = [*chosen, *todays()[len(chosen) :]]
    print(f"python -m tests.fuzz.coverage {seconds} {isa} {dtype}", flush=True)
    done = run(int(seconds), isa, dtype, *(word for word in rest if word.startswith("-")))
    print(done.stderr[-6000:])
    sys.exit(done.returncode)
