"""The README's figure: how many times as fast as PyTorch, from the published results."""

import json
import math
import statistics
from pathlib import Path

from picture import GREY, LIGHT, Picture

RESULTS = Path(__file__).parents[2] / "benchmarks/results/2026-11-24-published.json"
OPERATIONS = {"forward": "output", "grad_input": "input gradient", "grad_weight": "weight gradient"}
LAYOUTS = {"nchw": "contiguous", "nhwc": "channels_last"}


def ratios(operation: str, layout: str, large: bool) -> list[float]:
    """Time of PyTorch / time of torch_dwconv, of each layer: float32, batch 1, one thread, results allocated anew.

    Args:
        large: kernels with a side of five or more, or all others.
    """
    found = []
    for cell in json.loads(RESULTS.read_text())["cells"]:
        same = (cell["operation"], cell["layout"]) == (operation, layout)
        same = same and (cell["dtype"], cell["threads"], cell["batch"]) == ("f32", 1, 1)
        layer, times = cell["layer"], cell["times"]
        if same and (max(layer["kernel_h"], layer["kernel_w"]) > 4) == large and "torch" in times:
            found.append(times["torch"]["fresh"]["median"] / times["ours"]["fresh"]["median"])
    return found


def speed() -> Picture:
    """Geometric means for small and for large kernels, each operation, both memory formats; logarithmic bars."""
    picture = Picture(
        860, 300, "How many times as fast as PyTorch: geometric means over the 38 layers of the benchmark"
    )
    left, unit, top = 290, 110, 44
    for number, words in enumerate(LAYOUTS.values()):
        picture.rectangle(left + 150 * number, 12, 14, 14, LIGHT[number], "none")
        picture.text(left + 22 + 150 * number, 19, words, 12, "start")
    for row, (large, size) in enumerate(((False, "kernels up to 4x4"), (True, "kernels 5x5 to 31x31"))):
        for place, (operation, name) in enumerate(OPERATIONS.items()):
            y = top + (3 * row + place) * 37 + 10 * row
            picture.text(left - 12, y + 15, f"{name}, {size}", 12, "end")
            for number, layout in enumerate(LAYOUTS):
                mean = statistics.geometric_mean(ratios(operation, layout, large))
                width = unit * math.log2(mean)
                picture.rectangle(left, y + 15 * number, width, 15, LIGHT[number], "none")
                picture.text(left + width + 6, y + 15 * number + 8, f"{mean:.3g}\N{MULTIPLICATION SIGN}", 11, "start")
    bottom = top + 6 * 37 + 8
    picture.line(left, top - 4, left, bottom)
    for times in (1, 2, 4, 8, 16, 32):
        x = left + unit * math.log2(times)
        picture.line(x, bottom, x, bottom + 4, GREY if times > 1 else "#222222")
        picture.text(x, bottom + 13, "PyTorch" if times == 1 else f"{times}\N{MULTIPLICATION SIGN}", 10)
    return picture
