"""What is timed and what is wanted: time (or memory) of the plain model / ours, two threads for whole models."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from torch_dwconv.bench.models.cells import ModelCell
from torch_dwconv.bench.models.find import Model, example_mobilenet_v2

THREADS = 2
OURS = "blocks"
LAYOUTS = ("nchw", "nhwc")
MEMORY = 0.8  # peak of a step of ours / of the plain model's, at most
COMPILED = 1.15  # against torch.compile of the plain model


class Case(NamedTuple):
    """A model, its images, and the ratio that is wanted in each of LAYOUTS; None if nothing is."""

    name: str
    make: Callable[[], nn.Module]
    batch: int
    image_size: int
    wanted: tuple[float | None, float | None]

    def cell(self, layout: str) -> ModelCell:
        return ModelCell(Model(self.name, self.make), self.batch, self.image_size, "training", "f32", layout, THREADS)


def _demo() -> nn.Module:
    """The model of `make demo`."""
    return example_mobilenet_v2(num_classes=10, width=0.5, small_images=True)


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None)

    return make


CASES = {
    case.name: case
    for case in (
        Case("demo", _demo, 32, 32, (1.6, None)),
        Case("mobilenet_v2", _torchvision("mobilenet_v2"), 16, 224, (1.7, 1.4)),
        Case("mobilenet_v3_large", _torchvision("mobilenet_v3_large"), 16, 224, (1.7, 1.4)),
        Case("efficientnet_b0", _torchvision("efficientnet_b0"), 8, 224, (1.4, 1.3)),
    )
}


class Norm(NamedTuple):
    """BatchNorm with the activation behind it, on (N, C, H, H)."""

    batch: int
    channels: int
    height: int
    activation: str | None


# Of mobilenet_v2 at 224, batch 16; of the demo; of mobilenet_v3_large and efficientnet_b0.
NORMS = (
    Norm(16, 96, 112, "relu6"),
    Norm(16, 144, 56, "relu6"),
    Norm(16, 192, 28, "relu6"),
    Norm(16, 576, 14, "relu6"),
    Norm(16, 960, 7, "relu6"),
    Norm(16, 24, 56, None),
    Norm(32, 48, 32, "relu6"),
    Norm(32, 192, 8, "relu6"),
    Norm(16, 184, 14, "hardswish"),
    Norm(8, 240, 28, "silu"),
)
NORMS_WANTED = {
    ("nchw", "forward"): 6.0,
    ("nchw", "backward"): 2.0,
    ("nhwc", "forward"): 4.0,
    ("nhwc", "backward"): 2.0,
}
