"""``python -m torch_dwconv.flops MODEL``: what each depthwise layer of a model costs, and the saving."""

import argparse

import torch

from ..bench.models.find import find_model
from .model import LayerCost, layer_costs


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m torch_dwconv.flops",
        description="FLOPs of a model's depthwise layers: as ordinary convolutions (standard), by themselves "
        "(depthwise), and with the 1x1 convolution that follows (separable). One multiply-add is two FLOPs.",
    )
    parser.add_argument("model", help="a model of timm or torchvision, or mobilenet_v2 of examples")
    parser.add_argument("--image-size", type=int, default=224, metavar="PIXELS", help="height and width (default: 224)")
    parser.add_argument("--batch", type=int, default=1, help="images (default: 1)")
    options = parser.parse_args()
    if options.image_size < 1 or options.batch < 1:
        parser.error("--image-size and --batch must be positive")
    try:
        model = find_model(options.model).make()
    except ValueError as error:
        parser.error(str(error))
    images = torch.empty(options.batch, 3, options.image_size, options.image_size, device="meta")
    print(table(layer_costs(model.to("meta"), images)))


def table(costs: list[LayerCost]) -> str:
    """One line a layer and one for all of them; costs in millions of FLOPs."""
    head = ("layer", "channels", "kernel", "output", "standard", "depthwise", "separable", "saving")
    rows: list[tuple[str, ...]] = [head]
    for cost in costs:
        rows.append(
            (
                cost.name,
                f"{cost.in_channels}>{cost.out_channels}",
                "x".join(map(str, cost.kernel_size)),
                "x".join(map(str, cost.output_size)),
                *map(_millions, (cost.standard, cost.depthwise, cost.separable)),
                f"{cost.saving:.1f}x",
            )
        )
    if costs:
        sums = [sum(values) for values in ([c.standard for c in costs], [c.depthwise for c in costs])]
        paired = sum(cost.separable or cost.depthwise for cost in costs)
        rows.append((f"{len(costs)} layers", "", "", "", *map(_millions, (*sums, paired)), f"{sums[0] / paired:.1f}x"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def _millions(flops: int | None) -> str:
    return "-" if flops is None else f"{flops / 1e6:,.2f} M"


if __name__ == "__main__":
    main()
