"""The README's support matrix against the registry: the kinds of kernel of each operation, layout and dtype."""

from pathlib import Path

from torch_dwconv import kernels
from torch_dwconv.operators import native

README = Path(__file__).resolve().parents[2] / "README.md"
LAYOUTS = {"nchw": "contiguous", "nhwc": "channels_last"}
DTYPES = ("f32", "f64", "bf16", "f16")


def matrix() -> str:
    """The rows of the matrix, from this machine's registry without the reference kernels, which are everywhere."""
    kinds: dict[tuple[str, str, str], dict[str, None]] = {}
    for kernel in kernels("cpu"):
        kind = kernel.name.split("_")[-2]
        if not kernel.name.endswith("_reference"):
            kinds.setdefault((kernel.operation, kernel.layout, kernel.dtype), {})[kind] = None
    rows = []
    for operation in ("forward", "grad_input", "grad_weight"):
        for layout, format in LAYOUTS.items():
            cells = (", ".join(kinds.get((operation, layout, dtype), ("reference only",))) for dtype in DTYPES)
            rows.append(f"| {operation} | {format} | {' | '.join(cells)} |")
    return "\n".join(rows)


def test_readme_shows_the_registry():
    text = README.read_text()
    shown = text.split("checked against the registry")[1].split("<!-- end")[0].split("| --- |\n")[-1].strip()
    expected = matrix()
    if native.cpu_library.dwconv_isa() != b"avx512":  # the only ISA with kinds of its own
        shown = shown.replace("small, dilated, ", "").replace("pairs, ", "").replace("stride2, ", "")
    assert shown == expected, f"the rows in README.md should be:\n{expected}"
