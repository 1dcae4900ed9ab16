"""docs/clients.md as programs: the blocks of Python of each section, which the tests beside this file run."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/clients.md"


def blocks(text: str) -> dict[tuple[str, int], str]:
    """The Python blocks of a page by (heading of their section, number within it)."""
    found: dict[tuple[str, int], str] = {}
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```$", body, flags=re.DOTALL | re.MULTILINE)):
            found[heading.strip(), number] = code
    return found


def packages(code: str) -> list[str]:
    """What a block imports, for pytest.importorskip."""
    names: list[str] = []
    for line in code.splitlines():
        if match := re.match(r"from ([\w.]+) import", line):
            names.append(match[1])
        elif line.startswith("import "):
            names += [name.split()[0] for name in line.removeprefix("import ").split(",")]
    return names
