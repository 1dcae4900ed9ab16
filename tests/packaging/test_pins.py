"""What CI installs is pinned to the file."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("requirements.txt", "requirements-upgrade.txt")
PINNED = re.compile(r"([a-z0-9-]+)==([\w.]+) --hash=sha256:[0-9a-f]{64}")


def pins(file: str) -> dict[str, str]:
    lines = [line for line in (ROOT / ".ci" / file).read_text().splitlines() if not line.startswith("#")]
    matches = [PINNED.fullmatch(line) for line in lines]
    assert None not in matches, lines[matches.index(None)]
    return {match[1]: match[2] for match in matches}


@pytest.mark.parametrize("file", FILES)
def test_every_line_has_a_hash(file):
    assert len(pins(file)) > 50


def test_both_have_the_same_versions():
    first, second = map(pins, FILES)
    assert {name for name in first.keys() & second.keys() if first[name] != second[name]} == set()


def test_every_extra_is_pinned():
    tomllib = pytest.importorskip("tomllib")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {re.match(r"[\w-]+", need)[0] for needs in extras.values() for need in needs} - {"torch-depthwise"}
    assert named - pins(FILES[0]).keys() == set()


def test_what_the_makefile_installs_under_a_newer_torch_is_pinned():
    makefile = (ROOT / "Makefile").read_text()
    tools = re.search(r"^UPGRADE_TOOLS := (.*)$", makefile, re.MULTILINE)[1].split()
    torch = re.search(r"^UPGRADE_TORCH \?= torch==(\S+)$", makefile, re.MULTILINE)[1]
    assert set(tools) - pins(FILES[1]).keys() == set()
    assert pins(FILES[1])["torch"] == torch
