"""The steps of a block, and the integers that stand for them in a call of the operator."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from ..schemas import ACTIVATIONS

DENSE, DEPTHWISE, LAYER_NORM, SQUEEZE_EXCITE, MEAN = range(5)
KINDS = ("dense", "depthwise", "layer_norm", "squeeze_excite", "mean")
CONSTANTS = (2, 2, 0, 4, 0)  # how many tensors a step of each kind takes

# By their codes, as in enum Activation of csrc/kernel.h: those of the depthwise operator, and the gates.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **ACTIVATIONS,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": F.sigmoid,
}
NAMES = (None, *FUNCTIONS)
CODES = {name: code for code, name in enumerate(NAMES)}
GATES = (CODES["hardsigmoid"], CODES["sigmoid"])


class Step(NamedTuple):
    """One step of a block.

    Attributes:
        kind: DENSE, a convolution with groups=1; DEPTHWISE; LAYER_NORM over the channels of each pixel, without weight
            and bias; SQUEEZE_EXCITE; MEAN over height and width, which keeps both as 1.
        activation: the code of what happens to the result, of SQUEEZE_EXCITE to its hidden layer.
        channels: of the result; of SQUEEZE_EXCITE the hidden ones.
        gate: SQUEEZE_EXCITE's, one of GATES.

    Kernel size, stride, dilation and padding are those of the convolutions; the padding is of zeros.
    """

    kind: int
    activation: int
    channels: int
    kernel_h: int = 1
    kernel_w: int = 1
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    pad_top: int = 0
    pad_left: int = 0
    pad_bottom: int = 0
    pad_right: int = 0
    gate: int = 0

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right."""
        return self.pad_top, self.pad_left, self.pad_bottom, self.pad_right

    @property
    def is_pointwise(self) -> bool:
        """Whether each pixel of the result is made of the same pixel of the input alone."""
        return self.kind == LAYER_NORM or (self.kind in (DENSE, DEPTHWISE) and self[3:] == _POINTWISE)

    def out_channels(self, in_channels: Any) -> Any:
        return self.channels if self.kind in (DENSE, DEPTHWISE) else in_channels

    def output_size(self, height: Any, width: Any) -> tuple[Any, Any]:
        """Height and width of the result, from those of the step's input."""
        if self.kind == MEAN:
            return 1, 1
        if self.kind not in (DENSE, DEPTHWISE):
            return height, width
        reach_h, reach_w = self.dilation_h * (self.kernel_h - 1) + 1, self.dilation_w * (self.kernel_w - 1) + 1
        return (
            (height + self.pad_top + self.pad_bottom - reach_h) // self.stride_h + 1,
            (width + self.pad_left + self.pad_right - reach_w) // self.stride_w + 1,
        )


_POINTWISE = (*Step._field_defaults.values(),)


def encoded(steps: Sequence[Step]) -> list[int]:
    """The operator's `steps`."""
    return [number for step in steps for number in step]


def decoded(numbers: Sequence[int]) -> list[Step]:
    """The steps of a call.

    Raises:
        RuntimeError: the numbers are no steps.
    """
    size = len(Step._fields)
    if not numbers or len(numbers) % size:
        raise RuntimeError(f"torch_dwconv: steps must hold {size} integers for each step, got {len(numbers)}")
    steps = [Step(*numbers[at : at + size]) for at in range(0, len(numbers), size)]
    for step in steps:
        if not 0 <= step.kind < len(KINDS):
            raise RuntimeError(f"torch_dwconv: the kind of a step must be 0 to {len(KINDS) - 1}, got {step.kind}")
        if not 0 <= step.activation < len(NAMES):
            raise RuntimeError(f"torch_dwconv: activation must be 0 (none) to {len(NAMES) - 1}, got {step.activation}")
        if (step.kind == SQUEEZE_EXCITE) != (step.gate in GATES):
            raise RuntimeError(f"torch_dwconv: the gate of {KINDS[step.kind]} must not be {step.gate}")
    return steps
