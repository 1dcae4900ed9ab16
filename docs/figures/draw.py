"""Draws the figures of this folder, one SVG each: ``python docs/figures/draw.py`` (needs matplotlib).

What the pictures say about indices is computed here from the definition of the operations, not drawn by hand.
"""

import math
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

TAPS = (
    "#4477aa",
    "#ee6677",
    "#228833",
)  # of taps 0, 1, 2: Paul Tol's bright scheme, safe for the colour-blind
LIGHT = ("#77aadd", "#ee8866", "#bbcc33")  # of channels, and under text: his light scheme
INK, GREY, PALE = "#222222", "#999999", "#f2f2f2"

plt.rcParams.update(
    {
        "svg.hashsalt": "torch_dwconv",  # the same file from the same code
        "font.size": 9,
        "text.color": INK,
        "savefig.facecolor": "white",
    }
)


def canvas(width: float, height: float, columns: tuple[float, ...] = (1,)):
    """A figure with axes side by side, in which one unit is the same length both ways and y goes down."""
    shape = {"ncols": len(columns), "width_ratios": columns, "squeeze": False}
    figure, axes = plt.subplots(**shape, figsize=(width, height), layout="constrained")
    for ax in axes[0]:
        ax.set_aspect("equal")
        ax.axis("off")
        ax.invert_yaxis()
    return figure, axes[0]


def box(ax: Axes, x: float, y: float, text="", face="white", edge=INK, size=1.0, **style):
    ax.add_patch(Rectangle((x, y), size, size, facecolor=face, edgecolor=edge, linewidth=0.7, **style))
    if text:
        ax.text(x + size / 2, y + size / 2, text, ha="center", va="center", fontsize=7.5)


def grid(ax: Axes, x: float, y: float, rows: int, columns: int, face: str, border: int = 0, cell: float = 0.5):
    """A map of pixels; the outermost `border` of them are padding."""
    for r in range(rows):
        for c in range(columns):
            inner = border <= r < rows - border and border <= c < columns - border
            style = {} if inner else {"linestyle": ":"}
            box(ax, x + c * cell, y + r * cell, "", face if inner else "white", INK if inner else GREY, cell, **style)


def arrow(ax: Axes, start, end):
    ax.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, color=INK, arrowstyle="-|>", mutation_scale=9))


def algorithm():
    """Split by channel, multiply, merge: three channels of 4x4, filters of 3x3, padding 1."""
    figure, (ax,) = canvas(8.6, 4.4)
    for c, colour in reversed(list(enumerate(LIGHT))):
        grid(ax, 0.35 * c, 4.6 - 0.35 * c, 4, 4, colour)
        grid(ax, 16.4 + 0.35 * c, 4.6 - 0.35 * c, 4, 4, colour)
        y = 0.4 + 3.6 * c
        grid(ax, 5.4, y, 6, 6, colour, border=1)
        ax.add_patch(Rectangle((5.4, y), 1.5, 1.5, facecolor="none", edgecolor=INK, linewidth=2))
        grid(ax, 9.7, y + 0.75, 3, 3, colour)
        ax.text(9.05, y + 1.5, "\N{MULTIPLICATION SIGN}", ha="center", va="center", fontsize=15)
        grid(ax, 12.7, y + 0.5, 4, 4, colour)
        ax.text(11.95, y + 1.5, "=", ha="center", va="center", fontsize=15)
        ax.add_patch(Rectangle((12.7, y + 0.5), 0.5, 0.5, facecolor="none", edgecolor=INK, linewidth=2))
        arrow(ax, (3.2, 5.4), (5.2, y + 1.5))
        arrow(ax, (14.85, y + 1.5), (16.2, 5.4))
    for x, y, text in (
        (1.4, 7.1, "input\n(C, H, W)"),
        (6.0, 11.2, "1. split: one channel\nwith its padding, k//2"),
        (12.4, 11.2, "2. multiply: a window by the channel's\nfilter, for every pixel of the output"),
        (17.8, 7.1, "3. merge\n(C, OH, OW)"),
    ):
        ax.text(x, y, text, ha="center", va="top")
    ax.set_xlim(-0.4, 19.6)
    ax.set_ylim(12.2, 0.2)
    return figure


def reads(transposed: bool, results: int, sources: int, kernel: int, stride: int, dilation: int, pad: int):
    """(result, source, tap) of one axis, by the definition in csrc/shape.h."""
    outputs, inputs = (sources, results) if transposed else (results, sources)
    triples = []
    for output in range(outputs):
        for tap in range(kernel):
            position = output * stride + tap * dilation - pad
            if 0 <= position < inputs:
                triples.append((position, output, tap) if transposed else (output, position, tap))
    return triples


def lattice():
    """Who reads whom along an axis, split into the lattices in which neighbours share sources."""
    panels = (
        ("forward, stride 1", dict(transposed=False, results=8, sources=8, kernel=3, stride=1, dilation=1, pad=1)),
        ("forward, stride 2", dict(transposed=False, results=4, sources=8, kernel=3, stride=2, dilation=1, pad=1)),
        (
            "forward, dilation 2\ntwo lattices: even and odd results",
            dict(transposed=False, results=8, sources=8, kernel=3, stride=1, dilation=2, pad=2),
        ),
        (
            "grad_input, stride 2\ntwo lattices: even results have one tap, odd ones two",
            dict(transposed=True, results=8, sources=4, kernel=3, stride=2, dilation=1, pad=1),
        ),
    )
    figure, axes = plt.subplots(2, 2, figsize=(8.6, 5.0), layout="constrained")
    for ax, (title, axis) in zip(axes.flat, panels, strict=True):
        results, sources = axis["results"], axis["sources"]
        step = (8 / results, 8 / sources)
        lattices = math.lcm(axis["stride"] if axis["transposed"] else 1, axis["dilation"])
        for result, source, tap in reads(**axis):
            style = "-" if result % lattices == 0 else (0, (3, 1.5))
            ends = ((result + 0.5) * step[0], (source + 0.5) * step[1])
            ax.plot(ends, (0.9, 3.1), color=TAPS[tap], linewidth=1.5, linestyle=style)
        for count, spacing, y in ((results, step[0], 0), (sources, step[1], 3.1)):
            for i in range(count):
                shade = "white" if y or i % lattices == 0 else "#dddddd"
                box(ax, (i + 0.5) * spacing - 0.45, y, str(i), shade if y == 0 else PALE, size=0.9)
        ax.text(-0.3, 0.45, "results", ha="right", va="center")
        ax.text(-0.3, 3.55, "sources", ha="right", va="center")
        ax.set_title(title, fontsize=9)
        ax.set(xlim=(-2.2, 8.2), ylim=(4.2, -0.2), aspect="equal")
        ax.axis("off")
    for tap, colour in enumerate(TAPS[:3]):
        axes[0, 0].plot([], [], color=colour, label=f"tap {tap}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def tile():
    """Seven results and three taps: which position feeds which accumulator, at stride 1 and 2."""
    figure, axes = canvas(8.6, 3.2, (11.8, 17.8))
    for ax, reuse in zip(axes, (1, 2), strict=True):
        results, taps = 7, 3
        positions = reuse * (results - 1) + taps
        for r in range(results):
            ax.text(-0.3, r + 0.5, f"acc[{r}]", ha="right", va="center", family="monospace", fontsize=7.5)
            for i in range(positions):
                tap = i - reuse * r
                if 0 <= tap < taps:
                    box(ax, i, r, f"w{tap}", LIGHT[tap], zorder=2)
                else:
                    box(ax, i, r, edge="#e5e5e5")
        for i in range(positions):
            box(ax, i, results + 0.7, str(i), PALE)
        ax.text(-0.3, results + 1.2, "load", ha="right", va="center")
        ax.set_title(f"S = {reuse}: {results * taps} FMAs on {positions} loads", fontsize=9)
        ax.set_xlim(-2.6, positions + 0.2)
        ax.set_ylim(results + 1.9, -0.2)
    return figure


def lanes():
    """The 16 lanes of an AVX-512 vector of f32 on a 7x7 map, in the three ways the NCHW kernels fill it."""
    figure, (ax,) = canvas(8.6, 3.1)
    rows = (
        ("any", [("row of plane 0", LIGHT[0], 7), ("empty", "white", 9)]),
        (
            "pairs",
            [("row of plane 0", LIGHT[0], 7), ("row of plane 1", LIGHT[1], 7), ("empty", "white", 2)],
        ),
        ("blocked", [("the same pixel of 16 channels", LIGHT[2], 16)]),
    )
    for y, (name, parts) in enumerate(rows):
        ax.text(-0.4, 2 * y + 0.5, name, ha="right", va="center", family="monospace")
        lane = 0
        for text, colour, count in parts:
            for i in range(count):
                box(ax, lane + i, 2 * y, "", colour, INK if colour != "white" else GREY)
            ax.text(lane + count / 2, 2 * y + 1.35, text, ha="center", va="center", fontsize=8)
            lane += count
    ax.set_xlim(-3, 16.3)
    ax.set_ylim(5.8, -0.3)
    return figure


FIGURES = (algorithm, lattice, tile, lanes)


def main() -> None:
    for draw in FIGURES:
        path = Path(__file__).with_name(f"{draw.__name__}.svg")
        draw().savefig(path, metadata={"Date": None})
        print(path)


if __name__ == "__main__":
    main()
