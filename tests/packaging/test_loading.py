"""Nothing that the package or the examples read is run as code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("torch_dwconv", "examples") for path in (ROOT / folder).rglob("*.py"))
# Modules that make objects of any class from what they read, and functions that run text.
LOADERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
RUNNERS = {"eval", "exec", "compile", "__import__"}


# Code that torch.fx and torch.export's printer write, of a graph in this process, as torch.fx.GraphModule runs it.
OF_A_GRAPH = {
    "torch_dwconv/compile/backend/compiled.py": {"exec", "compile"},
    "torch_dwconv/models/fuse/capture.py": {"compile"},
    "torch_dwconv/models/fuse/inputs.py": {"eval"},
    "torch_dwconv/models/fuse/module.py": {"exec", "compile"},
}


def objections(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LOADERS:
            found.append(f"line {node.lineno}: {node.module}")
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        module = called.split(".")[0]
        if module in LOADERS or called in RUNNERS or (called == "torch.load" and given.get("weights_only") != "True"):
            found.append(f"line {node.lineno}: {called}")
        if given.get("allow_pickle", "False") != "False":
            found.append(f"line {node.lineno}: allow_pickle")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_reads_data_only(path):
    allowed = OF_A_GRAPH.get(str(path.relative_to(ROOT)), set())
    found = [objection for objection in objections(path.read_text()) if objection.split()[-1] not in allowed]
    assert found == []


@pytest.mark.parametrize(
    "source",
    ["pickle.loads(b)", "from yaml import load", "torch.load(p)", "torch.load(p, weights_only=False)", "eval(text)",
     "numpy.load(p, allow_pickle=True)"],
)  # fmt: skip
def test_sees_what_is_not_data(source):
    assert objections(source)
