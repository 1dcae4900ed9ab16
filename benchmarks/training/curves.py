"""What the loss does over many steps of MobileNetV2 at 224 on images that are made here, plain and with blocks.

Three models train on the same batches: the plain one, the one with blocks, and another plain one whose weights at first
differ in the last bit or so. Rounding grows from step to step, so the distance of the two plain ones is what the
distance to ours may be later on.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_dwconv import convert
from torch_dwconv.bench.models.find import example_mobilenet_v2
from torch_dwconv.bench.progress import progress_bar

from .targets import THREADS

BATCH, SIZE, CLASSES = 8, 224, 10
LEARNING_RATE = 0.02
NUDGE = 1e-7  # relative, to the weights of the second plain model


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Images of waves under noise, whose class is their direction and length; and the classes."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    angle = labels * (torch.pi / CLASSES)
    grid = torch.linspace(-1, 1, SIZE)
    along = grid * angle.cos()[:, None, None] + grid[:, None] * angle.sin()[:, None, None]
    phase = torch.rand(BATCH, 3, 1, 1, generator=generator) * (2 * torch.pi)
    waves = torch.sin(along[:, None] * (8 + 2 * labels)[:, None, None, None] + phase)
    return waves + torch.randn(BATCH, 3, SIZE, SIZE, generator=generator), labels


def _models() -> dict[str, nn.Module]:
    made = {}
    for name in ("plain", "blocks", "plain, nudged"):
        torch.manual_seed(0)
        made[name] = example_mobilenet_v2(num_classes=CLASSES, dropout=0.0)
    convert(made["blocks"], blocks=True)
    with torch.no_grad():
        for parameter in made["plain, nudged"].parameters():
            parameter.mul_(1 + NUDGE)
    return made


def losses(steps: int) -> dict[str, list[float]]:
    """Of each model, step by step."""
    models = _models()
    optimizers = {
        name: torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9) for name, model in models.items()
    }
    found: dict[str, list[float]] = {name: [] for name in models}
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        for step in progress_bar(range(steps), unit="step"):
            images, labels = batch(step)
            for name, model in models.items():
                optimizers[name].zero_grad(set_to_none=True)
                loss = F.cross_entropy(model(images), labels)
                loss.backward()
                optimizers[name].step()
                found[name].append(loss.item())
    finally:
        torch.set_num_threads(before)
    return found


def summary(found: dict[str, list[float]]) -> list[str]:
    """How far apart the losses are: at first, and on average over the last half."""
    plain = found["plain"]
    half = len(plain) // 2
    lines = [f"loss of the first and of the last 20 steps: {plain[0]:.4f}, {sum(plain[-20:]) / len(plain[-20:]):.4f}"]
    for name in ("blocks", "plain, nudged"):
        apart = [abs(a - b) for a, b in zip(plain, found[name], strict=True)]
        late = sum(apart[half:]) / max(1, len(apart[half:]))
        lines.append(f"plain and {name}: {apart[0]:.1e} apart in the first step, {late:.1e} in the last half")
    return lines


def draw(found: dict[str, list[float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, values), style in zip(found.items(), ("-", "-", ":"), strict=True):
        axes.plot(range(1, len(values) + 1), values, style, linewidth=1.2, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_title(f"MobileNetV2, {SIZE} x {SIZE}, batch {BATCH}, images of waves under noise", fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(path)


def main(steps: int, output: Path) -> int:
    output.mkdir(parents=True, exist_ok=True)
    found = losses(steps)
    (output / "curves.json").write_text(
        json.dumps({name: [round(v, 7) for v in values] for name, values in found.items()})
    )
    draw(found, output / "curves.svg")
    print("\n".join([*summary(found), f"written: {output / 'curves.svg'}"]))
    return 0
