"""docs/troubleshooting.md quotes messages as the code has them, and says cause and remedy of each."""

import ast
import re

import pytest

from .test_docs import ROOT, text_of

PAGE = "docs/troubleshooting.md"
FILES = [ROOT / "setup.py", ROOT / "setup_cuda.py", *sorted((ROOT / "torch_dwconv").rglob("*.py"))]
VALUE = "\0"  # in the place of what an f-string puts in


def strings_of(source: str) -> set[str]:
    """The texts of a file, neighbouring literals joined, as Python joins them; docstrings are not among them."""
    tree = ast.parse(source)
    described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.add("".join(v.value if isinstance(v, ast.Constant) else VALUE for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (described | parts):
            found.add(node.value)
    return found


def is_quoted_from(message: str, strings: set[str]) -> bool:
    """Whether the message is a whole line of one of the strings, with anything in the places of values."""
    lines = (line for string in strings for line in string.splitlines() if len(re.findall("[A-Za-z]", line)) >= 10)
    return any(re.fullmatch(re.escape(line).replace(VALUE, ".+"), message) for line in lines)


def messages() -> list[str]:
    blocks = re.findall(r"^```text\n(.*?)^```$", text_of(PAGE), flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def strings() -> set[str]:
    return set().union(*(strings_of(path.read_text()) for path in FILES))


@pytest.mark.parametrize("message", messages())
def test_the_message_is_the_codes(message, strings):
    assert is_quoted_from(message, strings)


def test_every_symptom_has_a_cause_and_a_remedy():
    sections = re.split(r"^#{2,3} ", text_of(PAGE), flags=re.MULTILINE)[1:]
    symptoms = [section for section in sections if "```text" in section]
    assert len(symptoms) >= 15
    bare = [s.splitlines()[0] for s in symptoms if s.count("\n**Cause.** ") != 1 or s.count("\n**Remedy.** ") != 1]
    assert bare == []


def said_by(path: str, function: str) -> list[str]:
    """The texts that a file hands to a function, or to an exception of this name."""
    calls = [node for node in ast.walk(ast.parse(text_of(path))) if isinstance(node, ast.Call)]
    return [max(strings_of(ast.unparse(call.args[0])), key=len) for call in calls if ast.unparse(call.func) == function]


def test_what_an_import_can_say_is_all_there():
    """Warnings of the package, and why it cannot be loaded."""
    warning = [str(path.relative_to(ROOT)) for path in FILES if "warnings.warn(" in path.read_text()]
    said = [text for path in warning for text in said_by(path, "warnings.warn")]
    said += said_by("torch_dwconv/operators/native.py", "ImportError")
    assert len(said) == 7
    assert [text for text in said if not any(is_quoted_from(message, {text}) for message in messages())] == []


def test_another_message_is_noticed():
    said = strings_of('raise ValueError(f"size must be {a}, got {b}: " "change it")')
    assert said == {f"size must be {VALUE}, got {VALUE}: change it"}
    assert is_quoted_from("size must be ..., got ...: change it", said)
    assert not is_quoted_from("size must be ..., but is ...: change it", said)
    assert not is_quoted_from("size must be ..., got ...", said)
    assert strings_of('def f():\n    """size must be"""') == set()
