"""Two kinds of PNG: how close to the machine's limit (roofline), and how much faster than the others (bars)."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from .contestants import MODES
from .report import contestants_of, groups_of, ratio

_COLOURS = {"nchw": "#1f77b4", "nhwc": "#d62728"}


def save_all(records: list[dict], folder: Path) -> list[Path]:
    """Writes roofline.png, and a speedup-*.png for each map, dtype and number of threads that met a contestant."""
    if not records:
        return []
    paths = [_save(_roofline(records), folder / "roofline.png")]
    for (map, dtype, threads), group in groups_of(records, "map", "dtype", "threads").items():
        if contestants_of(group):
            path = folder / f"speedup-{map}-{dtype}-{threads}t.png"
            paths.append(_save(_speedup(group, f"{map}, {dtype}, {threads} thread{'s' * (threads > 1)}"), path))
    return paths


def _save(figure, path: Path) -> Path:
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path


def _roofline(records: list[dict]):
    """A column a map, a row a dtype and number of threads. Each call is a dot under its own limit, a short dash."""
    rows = groups_of(records, "dtype", "threads")
    maps = list(groups_of(records, "map"))
    size = (5 * len(maps), 4 * len(rows))
    figure, axes = plt.subplots(len(rows), len(maps), figsize=size, squeeze=False, sharex=True, layout="constrained")
    for axes_row, ((dtype, threads), group) in zip(axes, rows.items(), strict=True):
        columns = groups_of(group, "map")
        for ax, map in zip(axes_row, maps, strict=True):
            for record in columns.get(map, ()):
                _roofline_dot(ax, record)
            _roofs(ax, columns.get(map, ()))
            ax.set(xscale="log", yscale="log", title=f"{map[0]}, {dtype}, {threads} thread{'s' * (threads > 1)}")
            ax.set(xlabel="FLOPs per byte moved", ylabel="GFLOP/s")
            ax.grid(alpha=0.3, which="both", linewidth=0.4)
    layouts = [plt.Line2D([], [], marker="o", linestyle="", color=c, label=name) for name, c in _COLOURS.items()]
    limit = plt.Line2D([], [], marker="_", linestyle="", color="black", label="limit of the same call")
    figure.legend(handles=[*layouts, limit], loc="outside upper center", ncols=3)
    return figure


def _roofline_dot(ax, record: dict) -> None:
    limit = record["limit"]
    intensity = limit["flops"] / (limit["bytes_read"] + limit["bytes_written"])
    reached, possible = (
        limit["flops"] / seconds / 1e9 for seconds in (record["times"]["ours"]["reused"]["median"], limit["seconds"])
    )
    colour = _COLOURS[record["layout"]]
    ax.plot([intensity, intensity], [reached, possible], color=colour, linewidth=0.5, alpha=0.5)
    ax.plot(intensity, reached, "o", color=colour, markersize=4)
    ax.plot(intensity, possible, "_", color="black", markersize=6)


def _roofs(ax, records) -> None:
    """The FMA peak, and the slowest and fastest stream measured: memory and cache."""
    limits = [record["limit"] for record in records]
    if not limits:
        return
    ax.axhline(max(limit["fma_flops_per_second"] for limit in limits) / 1e9, color="black", linewidth=0.8)
    speeds = [(limit["bytes_read"] + limit["bytes_written"]) / limit["stream_seconds"] / 1e9 for limit in limits]
    for speed in (min(speeds), max(speeds)):
        ax.axline((1, speed), (10, 10 * speed), color="black", linewidth=0.8, linestyle=":")


def _speedup(records: list[dict], title: str):
    """A column a layout, a bar a layer and contestant, reused results where both have them; the line is our time."""
    names, layers, layouts = contestants_of(records), groups_of(records, "name", "batch"), groups_of(records, "layout")
    size = (2 + 5 * len(layouts), 1.5 + len(layers) * (0.15 + 0.15 * len(names)))
    figure, axes = plt.subplots(1, len(layouts), figsize=size, squeeze=False, sharey=True, layout="constrained")
    positions = {layer: position for position, layer in enumerate(layers)}
    height = 0.8 / len(names)
    for ax, ((layout,), group) in zip(axes[0], layouts.items(), strict=True):
        for index, name in enumerate(names):
            bars = {
                positions[record["name"], record["batch"]]: value
                for record in group
                for mode in MODES
                if (value := ratio(record, name, mode)) is not None
            }
            offset = (index - (len(names) - 1) / 2) * height
            widths = [value - 1 for value in bars.values()]
            ax.barh([position + offset for position in bars], widths, height, left=1, color=f"C{index}", label=name)
        ax.axvline(1, color="black", linewidth=0.8)
        ax.set(xlabel="time of the other / time of torch_dwconv", title=f"{title}, {layout.upper()}")
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.grid(axis="x", alpha=0.3, which="both", linewidth=0.4)
        ax.margins(y=0.01)
    axes[0][0].set_yticks(range(len(layers)), [f"{name} N{batch}" for name, batch in layers])
    axes[0][0].invert_yaxis()
    axes[0][-1].legend(fontsize="small")
    return figure
