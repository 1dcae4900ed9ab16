"""Progress bars are for terminals, and one function makes them all."""

import io
import re
from pathlib import Path

import pytest

from torch_dwconv.bench.progress import progress_bar

ROOT = Path(__file__).resolve().parents[2]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("disable", [False, True])
@pytest.mark.parametrize("output", [io.StringIO, Terminal])
def test_a_bar_is_seen_in_a_terminal_only(output, disable):
    file = output()
    with progress_bar(total=2, desc="counting", disable=disable, file=file) as bar:
        for _ in range(2):
            bar.set_postfix_str("loss 1")
            bar.update()
    assert list(progress_bar(range(3), desc="counting", disable=disable, file=file)) == [0, 1, 2]
    assert ("counting" in file.getvalue()) == (output is Terminal and not disable)
    assert output is Terminal or file.getvalue() == ""


def test_nothing_else_makes_bars():
    paths = [
        path for folder in ("torch_dwconv", "benchmarks", "tools", "examples") for path in (ROOT / folder).rglob("*.py")
    ]
    uses = {str(path.relative_to(ROOT)): re.findall(r"\btqdm\b.*", path.read_text()) for path in paths}
    assert {path for path, found in uses.items() if found} == {
        "torch_dwconv/bench/progress.py",
        "torch_dwconv/bench/runner.py",  # which asks whether there is one
    }
    assert uses["torch_dwconv/bench/runner.py"] == ["tqdm  # noqa: F401"]
