"""No file tells a user to install the distribution that has our package's name: that one is another project's."""

import re

import pytest

from .test_docs import ROOT

SUFFIXES = {".py", ".md", ".toml", ".txt", ".yml", ".cfg", ".h", ".cpp", ".cu", ".cuh", ".sh", ".csv", ".in", ""}
SKIPPED = {"build", "dist", "runs", "site"}
# In strings of Python, and in TOML and prose, an argument ends where the quotes do.
SEPARATORS = re.compile(r"[\s'\"`,;()]+")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
WITH_EXTRA = re.compile(r"(?<![\w./-])torch[-_.]+dwconv *\[ *\w[\w, -]*\]", re.IGNORECASE)
ASKED = re.compile(r"\b(?:version|distribution|metadata|requires)\(\s*f?[\"']torch[-_.]+dwconv[\"']", re.IGNORECASE)


def is_ours(argument: str) -> bool:
    """Whether pip takes the argument for a distribution that is called like our package, in its spelling of names."""
    name = NAME.match(argument)
    if name is None or "/" in argument:  # an option, a path
        return False
    requirement = re.split(r"[<>=!~\[@#]", argument)[0]
    return re.sub(r"[-_.]+", "-", requirement).strip("-").lower() == "torch-dwconv"


def faults(text: str) -> list[str]:
    """What would fetch, or look up, the other distribution."""
    found = [match[0] for pattern in (WITH_EXTRA, ASKED) for match in pattern.finditer(text)]
    for line in text.replace("\\\n", " ").splitlines():
        for command in re.finditer(r"(?:\b(?:pip\d?|pipx|uv|poetry|conda)\b|\$\(PIP\))(.*)", line):
            words = command[1].split("`")[0].split(" #")[0]
            before, verb, after = words.partition("install")
            if not verb:
                before, verb, after = words.partition(" add ")
            if verb and not before.endswith("un") and any(map(is_ours, SEPARATORS.split(after))):
                found.append(line.strip())
    return found


def tracked():
    """Text files of the checkout, or of an sdist, that git does not ignore."""
    for top in ROOT.iterdir():
        if top.name in SKIPPED or top.suffix == ".egg-info" or (top.name.startswith(".") and top.name != ".ci"):
            continue
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                yield path


def test_nothing_installs_the_other_distribution():
    names = {str(path.relative_to(ROOT)) for path in tracked()}
    assert {"README.md", "Makefile", "pyproject.toml", ".ci/run", "torch_dwconv/bench/runner.py"} <= names
    found = {str(path.relative_to(ROOT)): faults(path.read_text()) for path in tracked()}
    assert {name: lines for name, lines in found.items() if lines} == {}


# {} is the package's name, in each of its spellings: spelled out, this file would be at fault.
SPELLINGS = [f"{torch}{mark}dwconv" for torch in ("torch", "Torch") for mark in ("-", "_", ".", "--")]


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize(
    "line",
    [
        "pip install {}",
        "pip3 install --user -U {}",
        "python -m pip install '{}[bench]'",
        'pip install "{}>=0.1"',
        "run pip install {}==0.1.0, then go on",
        "run `pip install torch {}` first",
        "$(PIP) install --quiet {}",
        "uv pip install {}",
        "uv add {}",
        '[sys.executable, "-m", "pip", "install", "{}"]',
        'test = ["pytest", "{}[bench,examples]"]',
        "importlib.metadata.version('{}')",
        "pip install --no-deps \\\n  {}",
    ],
)
def test_an_instruction_that_fetches_it_is_noticed(name, line):
    assert faults(line.format(name)) != []


@pytest.mark.parametrize(
    "line",
    [
        "pip uninstall {}",
        "pip install torch-depthwise",
        "pip install 'torch-depthwise[bench]'  # {} is the package",
        "pip install --no-build-isolation .",
        "pip install -e './{}[test]'",
        "pip install -e '.[test]'",
        "pip install dist/{}-0.1.0.tar.gz",
        "run `pip install -e .` in the checkout of {}",
        "import {}",
        "pip install {}-something-else",
    ],
)
def test_what_does_not_fetch_it_is_allowed(line):
    for mark in "-_":
        assert faults(line.format(f"torch{mark}dwconv")) == []
