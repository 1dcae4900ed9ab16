"""Draws the figures of this folder, one SVG each: ``python docs/figures/draw.py``. It needs nothing but Python.

What the pictures say about indices is computed from the definition of the operations, not drawn by hand.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import arithmetic  # noqa: E402
import engines  # noqa: E402
import glossary  # noqa: E402
import house  # noqa: E402
import kernels  # noqa: E402
import speed  # noqa: E402
from picture import Picture  # noqa: E402

FIGURES = {
    "speed": speed.speed,
    "house": house.house,
    "algorithm": arithmetic.algorithm,
    "lattice": arithmetic.lattice,
    "tile": arithmetic.tile,
    "kernels/sums": arithmetic.sums,
    "kernels/lanes": kernels.lanes,
    "kernels/strips": kernels.strips,
    "kernels/nhwc_tile": kernels.nhwc_tile,
    "kernels/phases": kernels.phases,
    "kernels/parities": kernels.parities,
    "kernels/chains": kernels.chains,
    "kernels/long_row": kernels.long_row,
    "kernels/transposed": kernels.transposed,
    "kernels/weight_tile": kernels.weight_tile,
    "glossary/operations": glossary.operations,
    "glossary/kernel_name": glossary.kernel_name,
    "glossary/sources": glossary.sources,
    "glossary/tap": glossary.tap,
    "glossary/memory": glossary.memory,
    "glossary/piece": glossary.piece,
    "glossary/pack": glossary.pack,
    "glossary/stages": glossary.stages,
    "glossary/block": glossary.block,
    "glossary/panel": glossary.panel,
}
if engines.published():
    FIGURES["engines"] = engines.engines


def draw(name: str) -> Picture:
    return FIGURES[name]()


def main() -> None:
    for name in FIGURES:
        draw(name).save(HERE / f"{name}.svg")
        print(HERE / f"{name}.svg")


if __name__ == "__main__":
    main()
