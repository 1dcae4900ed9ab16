"""What the documentation names exists: links, headings, figures, paths, environment variables, names and constants.

Inline code is read by its look: `csrc/shape.h` is a path, `is_plain` a name, `kTile = 7` a constant of the kernels.
"""

import fnmatch
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(path for folder in ("docs", "benchmarks", "tools") for path in (ROOT / folder).rglob("*.md")),
    )
)
CODE = ("csrc", "torch_dwconv", "tests", "benchmarks", "tools", "examples", "docs/figures")
SUFFIXES = (".py", ".h", ".cpp", ".cu", ".cuh", ".csv", ".toml", ".md", ".svg", ".png", ".json", ".txt")
# Kernels named in full, whose names no code spells: test_kernel_names.py looks them up in the registry.
KERNEL = r"(?:forward|grad_input|grad_weight)_(?:nchw|nhwc)_(?:f32|f64|bf16|f16)_\w+_(?:baseline|avx2|avx512|neon)"
# Names of other projects that no code here needs to spell.
FOREIGN = {"MAX_JOBS"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def inline_code(page: str) -> list[str]:
    prose = re.sub(r"^ *(```|~~~).*?^ *\1 *$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


def files() -> list[Path]:
    found = [path for folder in CODE for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in found if "__pycache__" not in path.parts] + [p for p in ROOT.iterdir() if p.is_file()]


def sources() -> str:
    """All code, this file excepted, which names things in order to look for them."""
    kept = (".py", ".h", ".cpp", ".cu", ".cuh", ".toml", ".csv")
    return "\n".join(
        p.read_text() for p in files() if (p.suffix in kept or p.name == "Makefile") and p != Path(__file__)
    )


@pytest.fixture(scope="module")
def code() -> str:
    return sources()


def anchors(page: str) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ +(.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: str) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", text_of(page)) + re.findall(r'(?:src|href|srcset)="([^"]+)"', text_of(page))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def generated(path: str) -> bool:
    """Whether the path is something that git ignores: it exists only after a build or a run."""
    patterns = [line.strip("/") for line in text_of(".gitignore").splitlines()]
    parts = Path(path).parts
    return any(fnmatch.fnmatch(part, pattern) for part in (parts[0], parts[-1]) for pattern in patterns)


def is_path(code: str) -> bool:
    if not re.fullmatch(r"[\w.\-/]+", code) or re.fullmatch(r"\.\w+", code):
        return False
    return code.endswith(SUFFIXES) or ("/" in code and code.split("/")[0] in {p.name for p in ROOT.iterdir()})


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    missing = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path if path else ROOT / page).resolve()
        there = target.is_relative_to(ROOT) and target.exists()
        if not there or (anchor and anchor not in anchors(target.relative_to(ROOT).as_posix())):
            missing.append(link)
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page, code):
    """From the root or beside the page; a bare name anywhere, or written in the code that makes the file."""
    names = {path.name for path in files()}
    missing = [
        path
        for path in filter(is_path, inline_code(page))
        if not ((ROOT / path).exists() or ((ROOT / page).parent / path).exists())
        and not (path in names or f'"{path}"' in code or generated(path))
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_environment_variables_are_read_somewhere(page, code):
    named = set(re.findall(r"\bTORCH_DWCONV_\w+", text_of(page)))
    assert named <= set(re.findall(r"\bTORCH_DWCONV_\w+", code))


def test_environment_variables_are_documented(code):
    read = set(re.findall(r"""(?:getenv\(|environ\.get\(|environ\[)["'](TORCH_DWCONV_\w+)""", code))
    assert read and read <= set(re.findall(r"\bTORCH_DWCONV_\w+", "".join(map(text_of, PAGES))))


@pytest.mark.parametrize("page", PAGES)
def test_names_exist(page, code):
    """Names that only code can have: with an underscore, a capital inside, or a dot."""
    words = set(re.findall(r"\w+", code))
    named = [
        name for name in inline_code(page) if re.fullmatch(r"[A-Za-z_][\w.:]*(\(.*\))?", name) and not is_path(name)
    ]
    telling = [name for name in named if re.search(r"[_.]|[a-z][A-Z]", name) and name not in FOREIGN]
    telling = [name for name in telling if not re.fullmatch(KERNEL, name)]
    assert [name for name in telling if re.sub(r"\(.*", "", name).replace("::", ".").split(".")[-1] not in words] == []


@pytest.mark.parametrize("page", PAGES)
def test_constants_have_the_value_given(page, code):
    constants = [c for c in inline_code(page) if re.fullmatch(r"k[A-Z]\w+ = [\w *]+", c)]
    assert [constant for constant in constants if not re.search(re.escape(constant) + r"\b", code)] == []


def excerpts(page: str) -> list[tuple[str, str]]:
    """(file, lines that stand together) of every block of code that names its file; `...` leaves lines out."""
    blocks = re.findall(r'^( *)```\w+ title="([^"]+)"\n(.*?)^\1```$', text_of(page), flags=re.DOTALL | re.MULTILINE)
    return [(path, stripped(part)) for _, path, block in blocks for part in re.split(r"(?m)^ *\.\.\.\n", block)]


def stripped(code: str) -> str:
    """Its lines, however far to the right they stand."""
    return "\n".join(line.strip() for line in code.strip().splitlines())


@pytest.mark.parametrize("page", [page for page in PAGES if 'title="' in text_of(page)])
def test_excerpts_stand_in_their_files(page):
    assert [(path, part) for path, part in excerpts(page) if part not in stripped(text_of(path))] == []


def test_missing_things_are_noticed(tmp_path, monkeypatch):
    """Or the tests above could not fail."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / ".gitignore").write_text("/build/\n")
    (tmp_path / "csrc").mkdir()
    (tmp_path / "page.md").write_text(
        "[a](b.md) [c](#d) `csrc/e.h` `f.py` `no_such_name` `kSize = 3` TORCH_DWCONV_G\n"
        '```cpp title="code.h"\nint a;\n...\nint c;\n```\n'
    )
    (tmp_path / "code.h").write_text("int a;\nint b;\n")
    code = "constexpr int kSize = 31;"
    for check in (test_links_resolve, test_excerpts_stand_in_their_files):
        with pytest.raises(AssertionError):
            check("page.md")
    for check in (
        test_paths_exist,
        test_environment_variables_are_read_somewhere,
        test_names_exist,
        test_constants_have_the_value_given,
    ):
        with pytest.raises(AssertionError):
            check("page.md", code)
