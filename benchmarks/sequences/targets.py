"""What is measured of sequences, and what is wanted: means over all sizes, and of the worst size."""

from typing import NamedTuple

import torch

WIDTH = 4
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
LAYOUTS = ("ncl", "nlc")  # channels next to each other in the second


class Size(NamedTuple):
    """Of a causal convolution's input."""

    batch: int
    channels: int
    length: int

    @property
    def name(self) -> str:
        return "x".join(map(str, self))


# Prompts of Mamba 130m to 2.8b, of Jamba and of Qwen3-Next's short convolutions.
SIZES = (
    Size(1, 1536, 2048),
    Size(1, 8192, 128),
    Size(4, 5120, 512),
    Size(1, 2560, 777),
    Size(2, 768, 8192),
    Size(1, 8192, 1024),
)
STEPS = ((1, 1536), (1, 5120), (8, 1536), (8, 8192))  # batch and channels in decoding
LAYERS = ("conformer", "tcn")  # models of the list of layers: long and dilated filters


class Target(NamedTuple):
    """A line of the result: the time of `over` / that of `under`, and what is wanted of it.

    `mean` and `worst` have a value for float32 and one for the 16-bit types. If `less`, less is better.
    """

    words: str
    over: str
    under: str
    mean: tuple[float, float]
    worst: tuple[float, float] | None = None
    less: bool = False

    def wanted(self, dtype: str) -> tuple[float, float | None]:
        which = int(dtype != "f32")
        return self.mean[which], None if self.worst is None else self.worst[which]


TARGETS = (
    Target("forward, share of a copy", "copy", "plain", (0.65, 0.5), (0.45, 0.3)),
    Target("forward with bias and SiLU, share of a copy", "copy", "silu", (0.45, 0.25), (0.3, 0.15)),
    Target("forward and backward, times faster than PyTorch", "torch", "training", (10, 8), (3, 3)),
    Target("gradients, times the forward", "gradients", "silu", (3, 3), None, less=True),
)
STEP_US = {(1, 1536): 5.0}  # microseconds of a step, at most
STEP_RATIO = 6.0  # times faster than roll and sum, in the mean
LAYER_SHARE = 0.5  # of the machine's limit, in the mean
