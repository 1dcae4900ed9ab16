"""setup.py ends with one sentence where something is missing, and what it builds has no Python in it."""

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import torch_dwconv
from tests.packaging import symbols

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(torch_dwconv.__file__).parent / "lib" / "libtorch_dwconv_cpu.so"


def build_error(tmp_path, **environment):
    """What a build that must fail prints as its last line."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path / "lib")]
    environment = {**os.environ, **environment}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def put_in_front(tmp_path, files):
    """A PYTHONPATH on which these modules hide the installed ones."""
    for name, source in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return str(tmp_path)


def test_missing_torch(tmp_path):
    path = put_in_front(tmp_path, {"torch.py": "raise ImportError(\"No module named 'torch'\")"})
    assert build_error(tmp_path, PYTHONPATH=path) == (
        "torch_dwconv: building needs torch 2.10 or newer in this environment (No module named 'torch'); "
        "run: pip install torch setuptools ninja, then: pip install --no-build-isolation ."
    )


def test_old_torch(tmp_path):
    path = put_in_front(tmp_path, {"torch.py": "__version__ = '2.9.1+cpu'"})
    error = build_error(tmp_path, PYTHONPATH=path)
    assert error.startswith("torch_dwconv: torch 2.9.1+cpu is too old, 2.10 or newer is needed; run: ")


def test_old_setuptools(tmp_path):
    old = {"__init__.py": "__version__ = '65.5.0'", "command/build_ext.py": "class build_ext: pass"}
    path = put_in_front(tmp_path, {f"setuptools/{name}": source for name, source in old.items()})
    error = build_error(tmp_path, PYTHONPATH=path)
    assert error == "torch_dwconv: setuptools 65.5.0 is too old; run: pip install 'setuptools>=77'"


def test_missing_compiler(tmp_path):
    error = build_error(tmp_path, CXX="no-such-compiler -m64")
    assert error == (
        "torch_dwconv: no C++ compiler (no-such-compiler) found; "
        "install one (Debian, Ubuntu: apt install g++) or set CXX to it"
    )


def test_flags_of_the_user_come_last():
    script = "import setuptools; from distutils.core import run_setup; "
    script += "print(*run_setup('setup.py', stop_after='init').ext_modules[0].extra_compile_args)"
    environment = {**os.environ, "CXXFLAGS": "-O0 -march=x86-64-v2"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split()[-2:] == ["-O0", "-march=x86-64-v2"] and "-O2" in done.stdout


def ask_setup(expression: str, **environment) -> object:
    """What an expression is in setup.py, which builds nothing meanwhile."""
    script = "import json, sys, setuptools; setuptools.setup = lambda **options: None; import setup; "
    command = [sys.executable, "-c", f"{script}print(json.dumps({expression}))"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return json.loads(subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def test_only_the_linkers_of_linux_are_given_options_of_theirs():
    platforms = ("linux", "darwin", "win32")
    assert ask_setup(f"[setup.linker_flags(name) for name in {platforms}]") == [["-Wl,--wrap=exp"], [], []]
    assert ask_setup("setup.cpu_library().extra_link_args") == (["-Wl,--wrap=exp"] if sys.platform == "linux" else [])
    darwin = "[setattr(sys, 'platform', 'darwin'), setup.cpu_library().extra_link_args][1]"
    assert ask_setup(darwin) == []


def test_clang_is_known_by_what_it_says(tmp_path):
    """Apple's is called c++."""
    flags = {}
    for said in ("Apple clang version 17.0.0", "c++ (Debian 12.2.0) 12.2.0"):
        compiler = tmp_path / "some-c++"
        compiler.write_text(f"#!/bin/sh\necho '{said}'\n")
        compiler.chmod(0o755)
        flags[said.split()[0]] = ask_setup("setup.cpu_library().extra_compile_args", CXX=str(compiler), CXXFLAGS="")
    assert flags["Apple"] == [*flags["c++"], "-Wno-sign-conversion", "-Wno-pragma-clang-attribute"]
    assert {"-std=c++17", "-O2", "-ffp-contract=fast"} <= set(flags["c++"])


def test_a_platform_without_a_build_is_named():
    missing = "[setattr(sys, 'platform', 'win32'), setup.missing_tool()][1]"
    assert ask_setup(missing) == "there is no build for win32 yet, only for linux and darwin"


def test_library_imports_no_python_symbol_and_only_the_stable_abi_of_torch():
    assert symbols.binding(LIBRARY) == []
    assert any(name.startswith(("aoti_torch_", "torch_")) for name in symbols.imported(LIBRARY))


@pytest.mark.parametrize("name", ["PyList_New", "_Py_Dealloc", "_ZN3c105ErrorD1Ev", "_ZNK2at10TensorBase3dimEv"])
def test_a_name_that_binds_the_library_is_noticed(tmp_path, name):
    source, library = tmp_path / "f.c", tmp_path / "f.so"
    source.write_text(f"void {name}(void); void torch_f(void); void f(void) {{ {name}(); torch_f(); }}")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    assert symbols.binding(library) == [name]


def test_library_runs_on_the_systems_that_the_documentation_names(tmp_path):
    assert symbols.too_new(LIBRARY) == {}
    stated = re.findall(r"`(GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)`", (ROOT / "docs" / "packaging.md").read_text())
    allowed = {name: tuple(map(int, version.split("."))) for name, version in stated}
    assert allowed.keys() == symbols.MANYLINUX_2_28.keys()
    assert not {name for name, version in symbols.floor(LIBRARY).items() if version > allowed[name]}


def test_a_newer_symbol_is_noticed(tmp_path):
    source, library = tmp_path / "new.c", tmp_path / "new.so"
    source.write_text("void f(void); void g(void) { f(); }")
    script = tmp_path / "libc.map"
    script.write_text("GLIBC_9.9 { global: f; };")
    (tmp_path / "f.c").write_text("void f(void) {}")
    compiler = [*shlex.split(os.environ.get("CC", "cc")), "-shared", "-fPIC"]
    subprocess.run(
        [*compiler, f"-Wl,--version-script={script}", "-o", tmp_path / "libf.so", tmp_path / "f.c"], check=True
    )
    subprocess.run([*compiler, "-o", library, source, tmp_path / "libf.so"], check=True)
    assert symbols.too_new(library) == {"GLIBC": (9, 9)}


def test_the_version_is_in_one_place():
    """version.py has it; the metadata of the installed package and `torch_dwconv.__version__` follow."""
    version = (ROOT / "torch_dwconv" / "version.py").read_text().split('"')[1]
    assert torch_dwconv.__version__ == version
    spelled = [path for path in ROOT.glob("*.toml") if f'"{version}"' in path.read_text()]
    assert spelled == [] and version not in (ROOT / "setup.py").read_text()


def test_sdist_needs_no_torch_and_holds_what_a_build_needs(tmp_path):
    path = put_in_front(tmp_path / "front", {"torch.py": "raise ImportError('no torch')"})
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(tmp_path), "sdist"]
    command += ["--dist-dir", str(tmp_path), "--formats", "tar"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*")}
    assert sources | {"setup.py", "setup_cuda.py", "pyproject.toml", "LICENSE", "README.md", "Makefile"} <= names
    assert not [name for name in names if name.endswith(".so")]
