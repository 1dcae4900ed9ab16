"""Builds ``torch_dwconv/lib/libtorch_dwconv_cpu.so``, and the CUDA library beside it where that can be (setup_cuda.py).

Everything static about the package is in pyproject.toml. The libraries are plain C++ against the LibTorch stable ABI,
without Python symbols, so one wheel serves every Python and every torch from 2.10 on. torch is imported for its headers
and libraries, and only by the step that compiles.
"""

import os
import shlex
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path

import setuptools
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
MIN_SETUPTOOLS = 77  # the first to read the PEP 639 licence fields in pyproject.toml
MIN_TORCH = (2, 10)
# The stable ABI of torch 2.10: what runs on it runs on every later torch.
MACROS = [("TORCH_TARGET_VERSION", "0x020a000000000000")]
INCLUDE = str(ROOT / "csrc")
PLATFORMS = ("linux", "darwin")
CXX = shlex.split(os.environ.get("CXX") or "c++")
# The torch of another kind of machine, a folder, to link with when CXX compiles for that (tools/aarch64).
CROSS_TORCH = os.environ.get("TORCH_DWCONV_CROSS_TORCH")


def stop(sentence: str) -> None:
    """End the build with one sentence instead of a traceback."""
    sys.exit(f"torch_dwconv: {sentence}")


if int(setuptools.__version__.split(".")[0]) < MIN_SETUPTOOLS:
    stop(f"setuptools {setuptools.__version__} is too old; run: pip install 'setuptools>={MIN_SETUPTOOLS}'")
from setuptools.command.bdist_wheel import bdist_wheel  # noqa: E402  (older setuptools does not have it)

sys.path.insert(0, str(ROOT))  # pip runs this file from elsewhere
import setup_cuda  # noqa: E402


def missing_tool() -> str | None:
    """What compiling needs and does not find, as a sentence; None if nothing is missing."""
    if sys.platform not in PLATFORMS:
        return f"there is no build for {sys.platform} yet, only for {' and '.join(PLATFORMS)}"
    how = "run: pip install torch setuptools ninja, then: pip install --no-build-isolation ."
    try:
        import torch
    except ImportError as error:
        return f"building needs torch {MIN_TORCH[0]}.{MIN_TORCH[1]} or newer in this environment ({error}); {how}"
    if tuple(map(int, torch.__version__.split(".")[:2])) < MIN_TORCH:
        return f"torch {torch.__version__} is too old, {MIN_TORCH[0]}.{MIN_TORCH[1]} or newer is needed; {how}"
    if shutil.which(CXX[0]) is None:
        return f"no C++ compiler ({CXX[0]}) found; install one (Debian, Ubuntu: apt install g++) or set CXX to it"
    return None


def is_clang() -> bool:
    """Whether the compiler is a clang, whatever it is called."""
    if shutil.which(CXX[0]) is None:
        return False
    return "clang" in subprocess.run([*CXX, "--version"], capture_output=True, text=True).stdout


def compiler_flags(clang: bool) -> list[str]:
    """Options of GCC, or of clang, for the CPU library."""
    flags = ["-std=c++17", "-O2", "-g0", "-fvisibility=hidden", "-ffp-contract=fast", "-Wextra", "-Wconversion"]
    # To GCC -Wconversion is not about signs. Nor does it mind a target for a part of a file without functions.
    return flags + (["-Wno-sign-conversion", "-Wno-pragma-clang-attribute"] if clang else [])


def linker_flags(platform: str) -> list[str]:
    """Options of the linker on a platform, in the words of sys.platform; only ELF's linkers know --wrap."""
    return ["-Wl,--wrap=exp"] if platform == "linux" else []  # csrc/binding/portable.cpp has the exp of older systems


def cuda_toolkit() -> setup_cuda.Toolkit | None:
    """What builds the CUDA library, ready to be used; None if it is to be left out. One sentence says why it is."""
    import torch

    try:
        choice = setup_cuda.choice()
    except ValueError as error:
        stop(str(error))
    if choice == "0":
        return None
    found = setup_cuda.find_toolkit(torch)
    if isinstance(found, setup_cuda.Toolkit):
        setup_cuda.select(found)
        return found
    if choice is not None:
        stop(f"the CUDA library cannot be built: {found}")
    if torch.version.cuda is not None:
        print(f"torch_dwconv: building without the CUDA library: {found}", file=sys.stderr)
    return None


class BuildLibrary(build_ext):
    """build_ext through torch's BuildExtension: parallel and incremental with ninja, setuptools' own loop without.

    Where something is missing, it is a command that says so when it is run: an sdist can be made without torch.
    """

    def __new__(cls, *args, **kwargs):
        os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)  # ninja, in an environment not activated
        if missing_tool():
            return super().__new__(cls)
        toolkit = cuda_toolkit()
        import torch
        from torch.utils.cpp_extension import BuildExtension, include_paths, library_paths

        class BuildAgainstTorch(BuildExtension):
            def finalize_options(self):
                cuda = [setup_cuda.library(toolkit, INCLUDE, MACROS)] if toolkit else []
                self.distribution.ext_modules = cuda if setup_cuda.choice() == "only" else [cpu_library(), *cuda]
                super().finalize_options()

            def build_extensions(self):
                for extension in self.extensions:
                    flags = extension.extra_compile_args
                    headers = [arg for path in include_paths() for arg in ("-isystem", path)]
                    (flags["cxx"] if isinstance(flags, dict) else flags).extend(headers)
                    extension.library_dirs += [f"{CROSS_TORCH}/lib"] if CROSS_TORCH else library_paths()
                (ROOT / "torch_dwconv" / "lib").mkdir(exist_ok=True)  # an editable install copies the result there
                super().build_extensions()

            def build_extension(self, extension):
                # A fixed place (pip's is a fresh temporary one), so that the next build compiles only what changed, and
                # one for each library, because ninja forgets what the file that it is given last does not name.
                library = extension.name.rpartition(".")[2]
                cpu = library == "libtorch_dwconv_cpu"
                kind = "-cross" if CROSS_TORCH else "" if cpu else "-cuda"
                self.build_temp = str(ROOT / "build" / f"torch-{torch.__version__}{kind}")
                super().build_extension(extension)
                if self.use_ninja and cpu and not CROSS_TORCH:
                    commands = subprocess.check_output(["ninja", "-t", "compdb"], cwd=self.build_temp)
                    (ROOT / "compile_commands.json").write_bytes(commands)

        return BuildAgainstTorch.with_options(no_python_abi_suffix=True)(*args, **kwargs)

    def run(self):
        stop(missing_tool())


class PlatformWheel(bdist_wheel):
    """Tags the wheel py3-none-<platform>: it holds a shared library but no Python extension."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


def cpu_library() -> setuptools.Extension:
    """The CPU library. Kernels that need AVX2 or AVX-512 say so in their source and are chosen at run time."""
    return setuptools.Extension(
        "torch_dwconv.lib.libtorch_dwconv_cpu",
        sources=sorted(path for path in glob("csrc/**/*.cpp", recursive=True) if not path.startswith("csrc/cuda")),
        depends=sorted(glob("csrc/**/*.h", recursive=True)),
        define_macros=MACROS,
        include_dirs=[INCLUDE],
        # The user's come last, as in make.
        extra_compile_args=[*compiler_flags(is_clang()), *shlex.split(os.environ.get("CXXFLAGS", ""))],
        # torch_cpu by name: the stable ABI's symbols are there, and a plain shared library gets nothing by default.
        libraries=["torch_cpu", "torch", "c10"],
        extra_link_args=linker_flags(sys.platform),
        language="c++",
    )


setuptools.setup(
    ext_modules=[cpu_library()],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
