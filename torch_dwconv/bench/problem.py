"""One cell of the benchmark and the tensors that it is about."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .layers import Layer

OPERATIONS = ("forward", "grad_input", "grad_weight")
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}


class Cell(NamedTuple):
    """What is timed: an operation ("forward"...) of a layer, in a dtype ("f32"...) and layout ("nchw", "nhwc")."""

    layer: Layer
    batch: int
    operation: str
    dtype: str
    layout: str
    threads: int

    @property
    def name(self) -> str:
        return f"{self.layer.name} N{self.batch} {self.operation} {self.dtype} {self.layout} t{self.threads}"


@dataclass
class Problem:
    """The operands of a cell, random and in its layout, and what it costs at least.

    Attributes:
        input (Tensor): (N, C, H, W).
        weight (Tensor): (C*M, 1, kernel_h, kernel_w).
        grad_output (Tensor): (N, C*M, OH, OW).
    """

    cell: Cell
    input: Tensor = field(init=False)
    weight: Tensor = field(init=False)
    grad_output: Tensor = field(init=False)

    def __post_init__(self):
        generator = torch.Generator().manual_seed(0)
        self.input, self.weight, self.grad_output = (
            torch.randn(size, generator=generator).to(self.dtype, memory_format=self.memory_format)
            for size in self.sizes
        )

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Those of input, weight and grad_output."""
        layer, batch = self.cell.layer, self.cell.batch
        out_channels = layer.channels * layer.multiplier
        return (
            (batch, layer.channels, layer.height, layer.width),
            (out_channels, 1, layer.kernel_h, layer.kernel_w),
            (batch, out_channels, *layer.output_size),
        )

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.cell.dtype]

    @property
    def memory_format(self) -> torch.memory_format:
        return LAYOUTS[self.cell.layout]

    @property
    def stride(self) -> tuple[int, int]:
        return self.cell.layer.stride_h, self.cell.layer.stride_w

    @property
    def padding(self) -> tuple[int, int]:
        return self.cell.layer.padding

    @property
    def dilation(self) -> tuple[int, int]:
        return self.cell.layer.dilation_h, self.cell.layer.dilation_w

    @property
    def groups(self) -> int:
        return self.cell.layer.channels

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """What the operation reads."""
        return {
            "forward": (self.input, self.weight),
            "grad_input": (self.grad_output, self.weight),
            "grad_weight": (self.input, self.grad_output),
        }[self.cell.operation]

    @property
    def result_like(self) -> Tensor:
        """A tensor with the size, dtype and strides of the operation's result."""
        return {"forward": self.grad_output, "grad_input": self.input, "grad_weight": self.weight}[self.cell.operation]

    def result_buffer(self) -> Tensor:
        """A new tensor for the result. It is written, since pages that never were are all one page of zeros."""
        return torch.full_like(self.result_like, float("nan"))

    @property
    def bytes_read(self) -> int:
        return sum(tensor.nbytes for tensor in self.operands)

    @property
    def bytes_written(self) -> int:
        return self.result_like.nbytes

    @property
    def flops(self) -> int:
        """Two for each tap inside the input: what no implementation can skip. All operations have the same taps."""
        layer = self.cell.layer
        taps = 1
        for size, out_size, kernel, stride, dilation, pad in zip(
            self.input.shape[2:],
            self.grad_output.shape[2:],
            self.weight.shape[2:],
            self.stride,
            self.dilation,
            self.padding,
            strict=True,
        ):
            positions = (out * stride + tap * dilation - pad for out in range(out_size) for tap in range(kernel))
            taps *= sum(0 <= position < size for position in positions)
        return 2 * self.cell.batch * layer.channels * layer.multiplier * taps
