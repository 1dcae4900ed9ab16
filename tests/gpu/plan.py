"""The steps that `check` and `short_run` are made of. Nothing here needs torch."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tests.gpu.steps import SECONDS, Step, find_tool

MIN_TORCH = (2, 11)
MIN_VERSIONS = {"pytest": 9, "setuptools": 77}
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
PROFILE = ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "WarpStateStats")


def missing(torch, version_of=metadata.version) -> str | None:
    """Why nothing of this can be done here, in a sentence."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < MIN_TORCH:
        return f"torch {torch.__version__} is too old, {'.'.join(map(str, MIN_TORCH))} or newer is needed"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    for package, oldest in MIN_VERSIONS.items():
        try:
            version = version_of(package)
        except metadata.PackageNotFoundError:
            return f"{package} is missing, {oldest} or newer is needed"
        if int(version.split(".")[0]) < oldest:
            return f"{package} {version} is too old, {oldest} or newer is needed"
    return None


def build(python: str, capability: str, build_cpu: bool) -> Step:
    """The library for the device, and the CPU library if it is missing."""
    cuda = {"TORCH_DWCONV_CUDA": "1" if build_cpu else "only", "TORCH_CUDA_ARCH_LIST": capability}
    command = [python, "setup.py", "--quiet", "build_ext", "--inplace"]
    return Step("build", command, 240 if build_cpu else 120, cuda, essential=True)


def self_test(python: str) -> Step:
    return Step("self-test", [python, "-m", "torch_dwconv"], 20)


def smoke(python: str, output: Path) -> Step:
    """Every kernel once."""
    return Step("smoke", [python, "-m", "tests.gpu.smoke", "--output", str(output), "--seconds", SECONDS], 25)


def tests(python: str, seconds: int) -> Step:
    """tests/gpu, each name printed; a test that hangs prints its stacks and fails."""
    options = ["-v", "-p", "no:cacheprovider", "-o", f"faulthandler_timeout={seconds // 2}", "--maxfail=40"]
    return Step("tests", [python, "-m", "tests.gpu.run_tests", *options, "tests/gpu"], seconds)


def benchmark(python: str, output: Path, seconds: int) -> Step:
    command = [python, "-m", "benchmarks.cuda", "--seconds", SECONDS, "--output", str(output)]
    return Step("benchmark", command, seconds)


def sanitizers(python: str, output: Path, seconds: int, tools: Sequence[str] = SANITIZERS) -> list[Step]:
    """The smoke script, with the kernels of every family, under each tool of compute-sanitizer, beside each other."""
    program = find_tool("compute-sanitizer")
    steps = []
    for tool in tools:
        script = ["-m", "tests.gpu.smoke", "--in-process", "--output", str(output / tool), "--seconds", SECONDS]
        command = [str(program), "--tool", tool, "--error-exitcode", "9", python, *script]
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        step = Step(tool, command if program else None, seconds, environment, together="compute-sanitizer")
        steps.append(step._replace(missing="compute-sanitizer is not installed"))
    return steps


def profile(python: str, cell: str, name: str, seconds: int) -> Step:
    """Nsight Compute's text about the kernels of a cell of the benchmark."""
    program = find_tool("ncu")
    sections = [word for section in PROFILE for word in ("--section", section)]
    options = ["--target-processes", "all", "--profile-from-start", "off", "--clock-control", "none", *sections]
    command = [str(program), *options, python, "-m", "benchmarks.cuda", "--once", cell]
    return Step(name, command if program else None, seconds, missing="ncu is not installed")
