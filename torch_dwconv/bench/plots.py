"""PNGs: how much faster than the others (bars), all of that at a glance, and how close to the limit (roofline)."""

import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from .contestants import MODES
from .report import contestants_of, groups_of, ratio, share

_LAYOUTS = {"nchw": "NCHW (contiguous)", "nhwc": "NHWC (channels_last)"}
_COLOURS = {"nchw": "#1f77b4", "nhwc": "#d95f02"}
_FASTER, _SLOWER = "#2a9d5c", "#c0392b"
_MARKERS = "osD^vPX"
_KERNELS = ((1, 4, "up to 4x4"), (5, 9, "5x5 to 9x9"), (10, 10**9, "larger"))


def save_all(results: dict, folder: Path) -> list[Path]:
    """Writes a roofline-*.png for each dtype and number of threads, a speedup-*.png for each operation that met a
    contestant, and glance.png if PyTorch took part."""
    records = results["cells"]
    paths = []
    for (dtype, threads), group in groups_of(records, "dtype", "threads").items():
        path = folder / f"roofline-{dtype}-{threads}t.png"
        paths.append(_save(_roofline(group, f"{dtype}, {_threads(threads)}"), path))
    if "torch" in contestants_of(records):
        paths.append(_save(_glance(records), folder / "glance.png"))
    for (operation, dtype, threads), group in groups_of(records, "operation", "dtype", "threads").items():
        if contestants_of(group):
            path = folder / f"speedup-{operation}-{dtype}-{threads}t.png"
            paths.append(_save(_speedup(group, f"{operation}, {dtype}, {_threads(threads)}"), path))
    return paths


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _save(figure, path: Path) -> Path:
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def _roofline(records: list[dict], title: str):
    """A column an operation. A dot is a call of ours, a dash its own limit."""
    operations = groups_of(records, "operation")
    figure, axes = plt.subplots(
        1,
        len(operations),
        figsize=(5.2 * len(operations), 4.4),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for ax, ((operation,), group) in zip(axes[0], operations.items(), strict=True):
        _roofline_axes(ax, group, f"{operation}, {title}")
        ax.set(xlabel="FLOPs per byte moved")
    peak = max(record["limit"]["fma_flops_per_second"] for record in records)
    slowest = min(record["limit"]["flops"] / record["times"]["ours"]["reused"]["median"] for record in records)
    axes[0][0].set(ylabel="GFLOP/s", ylim=(slowest / 1.5e9, 2 * peak / 1e9))
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", color=_COLOURS[key], label=_LAYOUTS[key]) for key in _LAYOUTS
    ]
    handles += [
        plt.Line2D([], [], marker="_", linestyle="", color="black", label="the machine's limit for that call"),
        plt.Line2D([], [], color="black", linestyle=":", label="slowest and fastest copy"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


def _roofline_axes(ax, records: list[dict], title: str) -> None:
    ax.set(xscale="log", yscale="log")
    ax.grid(alpha=0.25, linewidth=0.4)
    for record in records:
        limit = record["limit"]
        intensity = limit["flops"] / (limit["bytes_read"] + limit["bytes_written"])
        ours = record["times"]["ours"]["reused"]["median"]
        ax.plot(intensity, limit["flops"] / limit["seconds"] / 1e9, "_", color="black", markersize=7, alpha=0.6)
        ax.plot(intensity, limit["flops"] / ours / 1e9, "o", color=_COLOURS[record["layout"]], markersize=4, alpha=0.8)
    peak = max(record["limit"]["fma_flops_per_second"] for record in records) / 1e9
    ax.axhline(peak, color="black", linewidth=0.8)
    words = f"FMA peak {peak:.0f}"
    ax.text(0.99, peak, words, ha="right", va="bottom", fontsize=7, transform=ax.get_yaxis_transform())
    speeds = [(r["limit"]["bytes_read"] + r["limit"]["bytes_written"]) / r["limit"]["stream_seconds"] for r in records]
    for speed in (min(speeds), max(speeds)):
        ax.axline((1, speed / 1e9), (10, speed / 1e8), color="black", linewidth=0.8, linestyle=":")
    shares = [
        f"{layout.upper()} {statistics.geometric_mean(share(r, 'reused') for r in group):.0%}"
        for (layout,), group in groups_of(records, "layout").items()
    ]
    title += f"\nof the limit, in the mean: {', '.join(shares)}"
    ax.set_title(title, fontsize=10)


def _glance(records: list[dict]):
    """A panel a dtype and number of threads: the mean ratio to PyTorch by operation and kernel size, a bar a layout."""
    panels = groups_of(records, "dtype", "threads")
    figure, axes = plt.subplots(
        1, len(panels), figsize=(1 + 4.2 * len(panels), 4), squeeze=False, sharey=True, layout="constrained"
    )
    kinds = [(operation, *size) for (operation,) in groups_of(records, "operation") for size in _KERNELS]
    kinds = [kind for kind in kinds if any(_is(record, *kind) for record in records)]
    for ax, ((dtype, threads), group) in zip(axes[0], panels.items(), strict=True):
        for index, (layout,) in enumerate(groups_of(group, "layout")):
            for position, kind in enumerate(kinds):
                values = [
                    v for r in group if r["layout"] == layout and _is(r, *kind) and (v := ratio(r, "torch", "fresh"))
                ]
                if not values:
                    continue
                mean, y = statistics.geometric_mean(values), position + (index - 0.5) * 0.38
                ax.barh(y, mean - 1, 0.36, left=1, color=_COLOURS[layout])
                ax.plot([min(values), max(values)], [y, y], color="black", linewidth=0.8, alpha=0.5)
                ax.text(1.04 * max(mean, *values), y, f"{_number(mean)}x", va="center", fontsize=8)
        ax.axvline(1, color="black", linewidth=0.8)
        _ratio_axis(ax, f"{dtype}, {_threads(threads)}")
    axes[0][0].set_yticks(range(len(kinds)), [f"{operation}, {words}" for operation, _, _, words in kinds])
    axes[0][0].invert_yaxis()
    bars = [plt.Rectangle((0, 0), 1, 1, color=_COLOURS[key], label=_LAYOUTS[key]) for key in _LAYOUTS]
    bars.append(plt.Line2D([], [], color="black", alpha=0.5, label="slowest to fastest layer"))
    figure.legend(handles=bars, loc="outside upper center", ncols=3)
    return figure


def _is(record: dict, operation: str, smallest: int, largest: int, _words: str) -> bool:
    return (
        record["operation"] == operation
        and smallest <= max(record["layer"]["kernel_h"], record["layer"]["kernel_w"]) <= largest
    )


def _ratio_axis(ax, title: str) -> None:
    ax.set(xlabel="time of the other / time of torch_dwconv")
    ax.set_title(title, fontsize=10)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.grid(axis="x", alpha=0.25, linewidth=0.4)
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.7), max(high * 1.35, 2))  # room for the figures beside the bars


def _speedup(records: list[dict], title: str):
    """A column a layout, a row a layer: a bar for PyTorch (or whoever comes first), a marker for each of the others.

    Reused results where both have them. Right of the line, at 1, we are faster.
    """
    names, layers, layouts = contestants_of(records), groups_of(records, "name", "batch"), groups_of(records, "layout")
    size = (3.2 + 4.6 * len(layouts), 1.6 + 0.23 * len(layers))
    figure, axes = plt.subplots(
        1, len(layouts), figsize=size, squeeze=False, sharey=True, sharex=True, layout="constrained"
    )
    positions = {layer: position for position, layer in enumerate(layers)}
    bar, *others = sorted(names, key=lambda name: name != "torch")
    for ax, ((layout,), group) in zip(axes[0], layouts.items(), strict=True):
        values = _ratios(group, bar)
        for layer, value in values.items():
            y = positions[layer]
            ax.barh(y, value - 1, 0.8, left=1, color=_FASTER if value >= 1 else _SLOWER, alpha=0.75)
            ax.text(1.04 * max(value, 1), y, _number(value), va="center", fontsize=7)
        for index, name in enumerate(others):
            dots = _ratios(group, name)
            marker = _MARKERS[index % len(_MARKERS)]
            ax.plot(
                list(dots.values()), [positions[layer] for layer in dots], marker, color=f"C{index}", markersize=4.5
            )
        ax.axvline(1, color="black", linewidth=1)
        mean = f", mean {_number(statistics.geometric_mean(values.values()))}x {bar}" if values else ""
        _ratio_axis(ax, f"{title}, {layout.upper()}{mean}")
        ax.margins(y=0.01)
    axes[0][0].set_yticks(range(len(layers)), [_layer_words(group[0]) for group in layers.values()], fontsize=8)
    axes[0][0].invert_yaxis()
    handles = [plt.Rectangle((0, 0), 1, 1, color=_FASTER, alpha=0.75, label=f"{bar} (red: it is faster)")]
    for index, name in enumerate(others):
        handles.append(
            plt.Line2D([], [], marker=_MARKERS[index % len(_MARKERS)], linestyle="", color=f"C{index}", label=name)
        )
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 7), fontsize=9)
    return figure


def _ratios(records: list[dict], name: str) -> dict[tuple, float]:
    """By layer and batch: the ratio to a contestant, of reused results where both have them."""
    return {
        (record["name"], record["batch"]): value
        for record in records
        for mode in MODES
        if (value := ratio(record, name, mode)) is not None
    }


def _layer_words(record: dict) -> str:
    name = record["name"].replace("-s1x1", "").replace("-", " ")
    return name + (f"  N{record['batch']}" if record["batch"] > 1 else "")
