"""Every block of docs/clients.md is run by a test here, and by one that looks at what came out."""

import ast
import re
from pathlib import Path

from . import page


def claimed() -> list[tuple[str, int]]:
    """The blocks that tests ask the fixture `recipe` for."""
    found = []
    for path in Path(__file__).parent.glob("test_*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "recipe":
                heading, number = [ast.literal_eval(argument) for argument in (*call.args, ast.Constant(0))][:2]
                found.append((heading, number))
    return found


def test_every_block_is_run_once():
    assert sorted(claimed()) == sorted(page.blocks(page.PAGE.read_text()))


def test_every_client_of_the_page_is_installed_for_ci():
    """Or has been there before: torch, torchvision and timm."""
    root = page.PAGE.parents[1]
    listed = re.sub(r"[-_.]+", "_", (root / ".ci/requirements-clients.txt").read_text().lower())
    there = {"copy", "torch", "torchvision", "timm", "torch_dwconv"}
    named = {
        name.partition(".")[0] for code in page.blocks(page.PAGE.read_text()).values() for name in page.packages(code)
    }
    assert [
        name for name in sorted(named - there) if not re.search(rf"^(ultralytics_)?{name}==", listed, re.MULTILINE)
    ] == []


def test_missing_tests_are_noticed():
    text = "# A\n```python\nimport a, b.c as x\n```\n## B\ntext\n```python\nfrom d.e import f\n```\n```sh\nls\n```\n"
    found = page.blocks(text)
    assert found == {("A", 0): "import a, b.c as x\n", ("B", 0): "from d.e import f\n"}
    assert [page.packages(code) for code in found.values()] == [["a", "b.c"], ["d.e"]]
