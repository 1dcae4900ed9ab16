"""A *model* of each layer's time on four devices: python -m tools.cuda_gate.roofline writes the table and the figure.

Nothing is measured. What the machine code executes and moves (counts.py, sass/replay.py) is divided by what the device
can do in a second; the slowest of four is the time, and each launch costs its latency. Caches between blocks, waiting
for memory, tails of waves and clocks that fall are not in it: it says what bounds a kernel, and what a plain one
wastes.
"""

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.kernels.shapes import from_layer
from tests.layers import distinct_geometries
from tools.cuda_gate.compile import ROOT, compiled, multiply_adds
from tools.cuda_gate.counts import MOST_BLOCKS, Layer, chosen, plain_counts
from tools.cuda_gate.gate import PLAIN, SOURCES
from tools.cuda_gate.run import Operation, Ran
from tools.cuda_gate.sass.machine import WARP
from tools.cuda_gate.sass.memory import size_of
from tools.cuda_gate.sass.replay import SECTOR

FIGURE = ROOT / "docs/figures/cuda-model.png"
LAUNCH = 2e-6  # seconds between the starts of two small kernels on a stream; an assumption, the same for all
BATCH = 32


class Device(NamedTuple):
    """Published numbers. ``lanes``: float32 multiply-adds of a multiprocessor in a cycle."""

    arch: str
    multiprocessors: int
    hertz: float
    lanes: int
    bytes_per_second: float
    source: str


DEVICES = {
    "A100": Device("sm_80", 108, 1.41e9, 64, 2.039e12, "A100 80GB SXM data sheet; GA100 architecture white paper"),
    "H100": Device("sm_90", 132, 1.98e9, 128, 3.35e12, "H100 SXM data sheet (67 TFLOPS); H100 white paper"),
    "B200": Device("sm_100", 148, 1.98e9, 128, 8e12, "HGX B200 data sheet (600 TFLOPS of eight); 148 multiprocessors"),
    "RTX 4090": Device("sm_89", 128, 2.52e9, 128, 1.008e12, "Ada GPU architecture white paper (82.6 TFLOPS)"),
}
ISSUED_PER_CYCLE, SHARED_PER_CYCLE = 4, 128  # warps' instructions, and bytes, of a multiprocessor


class Work(NamedTuple):
    """Of a call."""

    bytes: float
    instructions: float  # of warps
    multiply_adds: float  # of lanes
    shared_bytes: float
    blocks: int  # of the launch with the most instructions
    launches: int


def work(ran: list[Ran]) -> Work:
    def total(of) -> float:
        return sum(of(r) / r.share for r in ran)

    def shared(r: Ran) -> float:
        sizes = ((size_of(i), n) for i, n in zip(r.machine.instructions, r.machine.issued, strict=True)
                 if i.opcode in ("LDS", "STS"))  # fmt: skip
        return float(sum(size * n * WARP for size, n in sizes))

    def adds(r: Ran) -> float:
        return float(sum(multiply_adds(i.opcode) * n * WARP
                         for i, n in zip(r.machine.instructions, r.machine.issued, strict=True)))  # fmt: skip

    return Work(
        total(lambda r: (r.replay.read + r.replay.written) * SECTOR),
        total(lambda r: float(r.machine.issued.sum())),
        total(adds),
        total(shared),
        max(ran, key=lambda r: r.issued).blocks,
        len(ran),
    )


def bounds(work: Work, device: Device) -> dict[str, float]:
    """Seconds that each resource needs at least. Fewer blocks than multiprocessors leave some idle."""
    cycles = device.hertz * min(device.multiprocessors, work.blocks)
    return {
        "bytes": work.bytes / device.bytes_per_second,
        "issue": work.instructions / (ISSUED_PER_CYCLE * cycles),
        "multiply-adds": work.multiply_adds / (device.lanes * cycles),
        "shared memory": work.shared_bytes / (SHARED_PER_CYCLE * cycles),
    }


def seconds(work: Work, device: Device) -> float:
    return max(bounds(work, device).values()) + work.launches * LAUNCH


class Row(NamedTuple):
    layer: str
    operation: str
    kernel: str
    device: str
    microseconds: float
    bound: str
    plain: float  # microseconds


def rows(texts: dict[str, dict[str, str]]) -> list[Row]:
    """Contiguous float32 layers of layers.csv, forward and grad_weight, which have a plain kernel to compare with."""
    found = []
    for facts in distinct_geometries():
        square = facts.kernel_h == facts.kernel_w and facts.kernel_h in (3, 5, 7)
        if not square or facts.multiplier != 1 or facts.dilation_h != 1:
            continue
        for operation in ("forward", "grad_weight"):
            layer = Layer(operation, "nchw", "f32", from_layer(facts, BATCH))
            for name, device in DEVICES.items():
                capability, text = int(device.arch[3:]), texts[device.arch]
                ran = Operation(chosen(layer, capability), layer.shape).run(text, capability, MOST_BLOCKS)
                ours, plain = work(ran), work([plain_counts(layer, text, capability)])
                limits = bounds(ours, device)
                bound = max(limits, key=lambda limit: limits[limit])
                found.append(Row(facts.name, operation, max(ran, key=lambda r: r.issued).kernel, name,
                                 seconds(ours, device) * 1e6, bound, seconds(plain, device) * 1e6))  # fmt: skip
    return found


def table(found: list[Row]) -> str:
    """Markdown: on each device our time, what bounds it, and how much longer the plain kernel takes."""
    names = list(DEVICES)
    lines = [f"| layer, {BATCH} images | operation | {' | '.join(names)} |", f"| --- | --- |{' --- |' * len(names)}"]
    for layer, operation in dict.fromkeys((row.layer, row.operation) for row in found):
        cells = [
            f"{row.microseconds:.1f} us ({row.bound}), {row.plain / row.microseconds:.1f}x"
            for device in names
            for row in found
            if (row.layer, row.operation, row.device) == (layer, operation, device)
        ]
        lines.append(f"| {layer} | {operation} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 6), sharey=True, layout="constrained")
    for ax, operation in zip(axes, ("forward", "grad_weight"), strict=True):
        layers = list(dict.fromkeys(row.layer for row in found if row.operation == operation))
        for device, marker in zip(DEVICES, "osD^", strict=True):
            chosen_rows = [row for row in found if row.operation == operation and row.device == device]
            gains = [row.plain / row.microseconds for row in chosen_rows]
            ax.plot(gains, [layers.index(row.layer) for row in chosen_rows], marker, label=device, alpha=0.8)
        ax.set(title=f"{operation}, float32", xscale="log", xlabel="model: a plain kernel's time to ours")
        ax.set_yticks(range(len(layers)), layers, fontsize=7)
        ax.axvline(1, color="#999999", linewidth=0.7)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(DEVICES))
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    texts: dict[str, dict[str, str]] = {device.arch: {} for device in DEVICES.values()}
    with tempfile.TemporaryDirectory() as folder:
        for kernels in compiled([*SOURCES, PLAIN], set(texts), set(), Path(folder)):
            texts[kernels[0].arch] |= {code.name: code.text for code in kernels}
    found = rows(texts)
    draw(found, options.figure)
    print(table(found))


if __name__ == "__main__":
    main()
