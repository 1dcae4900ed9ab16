"""What the right answer is: F.conv2d and its autograd gradients in float64, and how close a kernel must come.

The library's own reference kernel is a kernel under test like any other, never the oracle.
"""

import functools
import zlib

import torch
import torch.nn.functional as F

from tests.kernels.harness import DTYPES, Kernel
from tests.kernels.shapes import Shape

# Relative norm of the error against float64, for dtypes that accumulate in themselves.
NORM_BOUND = {"f32": 2e-6, "f64": 1e-14}
# Share of the largest result that a sum kept in float32 may be off by, before it is rounded to a 16-bit dtype.
ACCUMULATION_BOUND = 4e-6
# PyTorch adds the weight gradients of images one after the other: more of them lose digits even in float64.
IMAGES_AT_ONCE = 512


def _integers(generator: torch.Generator, *sizes: int) -> torch.Tensor:
    """-4 to 4: exact in every dtype, and so are their sums of a million products in float32, in any order."""
    return torch.randint(-4, 5, sizes, generator=generator).double()


def _normal(generator: torch.Generator, *sizes: int) -> torch.Tensor:
    """Exact in float32 but not in less; sums need float64."""
    return torch.randn(sizes, generator=generator).double()


def _eight_bits(generator: torch.Generator, *sizes: int) -> torch.Tensor:
    """Normal, but exact in bfloat16 and in float16: multiples of 1/64 up to 4."""
    return torch.randn(sizes, generator=generator).double().clamp(-4, 4).mul(64).round().div(64)


def _positive(generator: torch.Generator, *sizes: int) -> torch.Tensor:
    """0 to 1, exact in float32: long sums grow large, so that plain float32 summation loses digits."""
    return torch.rand(sizes, generator=generator).double()


DATA = {"integers": _integers, "normal": _normal, "eight_bits": _eight_bits, "positive": _positive}


class Problem:
    """Operands and right results for one shape. Everything is float64 and NCHW; ``operands`` gives a kernel's view.

    ``data`` names one of DATA, and with the shape determines every number. The results come from one forward and one
    backward call of PyTorch's convolution, whatever the number of kernels that are compared with them.
    """

    def __init__(self, shape: Shape, data: str):
        self.shape, self.data = shape, data
        generator = torch.Generator().manual_seed(zlib.crc32(f"{data} {shape}".encode()))
        draw = functools.partial(DATA[data], generator)
        self.operands_f64 = {
            "input": draw(shape.N, shape.C, shape.H, shape.W),
            "weight": draw(shape.out_channels, shape.KH, shape.KW),
            "bias": draw(shape.out_channels),
            "grad_output": draw(shape.N, shape.out_channels, shape.OH, shape.OW),
        }
        self._operands = functools.cache(self._convert_operands)

    @functools.cached_property
    def results_f64(self) -> dict[str, torch.Tensor]:
        """By operation, and grad_bias."""
        return convolve(self.shape, **self.operands_f64)

    def operands(self, dtype: str, layout: str) -> dict[str, torch.Tensor]:
        """The operands in a dtype, dense in a layout; weight and bias are the same in both."""
        return self._operands(dtype, layout)

    def _convert_operands(self, dtype: str, layout: str) -> dict[str, torch.Tensor]:
        return {name: in_layout(value, layout).to(DTYPES[dtype]) for name, value in self.operands_f64.items()}

    def expected(self, kernel: Kernel, with_bias: bool = True) -> dict[str, torch.Tensor]:
        """What the kernel should return, in float64 and the kernel's layout."""
        if kernel.operation == "forward":
            plain, bias = self.results_f64["forward"], self.operands_f64["bias"]
            return {"result": in_layout(plain + bias.view(-1, 1, 1) if with_bias else plain, kernel.layout)}
        expected = {"result": in_layout(self.results_f64[result_of(kernel.operation)], kernel.layout)}
        if kernel.operation == "backward":
            expected["grad_weight"] = self.results_f64["grad_weight"]
        if kernel.operation in ("grad_weight", "backward") and with_bias:
            expected["grad_bias"] = self.results_f64["grad_bias"]
        return expected


def result_of(operation: str) -> str:
    """What the first result of a operation is."""
    return "grad_input" if operation == "backward" else operation


def in_layout(images: torch.Tensor, layout: str) -> torch.Tensor:
    """NCHW images as they lie in memory in a layout; anything that is not 4-D as it is."""
    return images.permute(0, 2, 3, 1).contiguous() if images.dim() == 4 and layout == "nhwc" else images


def _sum_of(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(tensors).sum(0)


def convolve(shape: Shape, input, weight, bias, grad_output) -> dict[str, torch.Tensor]:
    """PyTorch's forward (without bias), grad_input, grad_weight and grad_bias, in the operands' dtype.

    The shape's output may end before the input does or reach past it: the input is cropped or padded to what the output
    sees, and PyTorch convolves that with no padding.
    """
    if shape.N > IMAGES_AT_ONCE:
        batches = zip(input.split(IMAGES_AT_ONCE), grad_output.split(IMAGES_AT_ONCE), strict=True)
        parts = [convolve(shape._replace(N=len(x)), x, weight, bias, g) for x, g in batches]
        merge = {"forward": torch.cat, "grad_input": torch.cat}
        return {name: merge.get(name, _sum_of)([part[name] for part in parts]) for name in parts[0]}
    grad_bias = grad_output.sum((0, 2, 3))
    if 0 in grad_output.shape or 0 in weight.shape:  # nothing to sum; PyTorch refuses some of these
        forward, grads = torch.zeros_like(grad_output), (torch.zeros_like(input), torch.zeros_like(weight))
        return dict(forward=forward, grad_input=grads[0], grad_weight=grads[1], grad_bias=grad_bias)
    x, w = input.clone().requires_grad_(), weight.clone().requires_grad_()
    (rows, columns), top, left = shape.reach, shape.pad_top, shape.pad_left
    seen = x[:, :, : max(0, rows - top), : max(0, columns - left)]
    padded = x.new_zeros(shape.N, shape.C, rows, columns)
    padded[:, :, top : top + seen.shape[2], left : left + seen.shape[3]] = seen
    stride, dilation = (shape.stride_h, shape.stride_w), (shape.dilation_h, shape.dilation_w)
    forward = F.conv2d(padded, w.unsqueeze(1), None, stride, 0, dilation, groups=shape.C)
    grad_input, grad_weight = torch.autograd.grad(forward, (x, w), grad_output)
    return dict(forward=forward.detach(), grad_input=grad_input, grad_weight=grad_weight, grad_bias=grad_bias)


def exact_error(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """None if ``got`` is ``expected`` rounded to its dtype, NaN for NaN; otherwise what differs first."""
    rounded = expected.to(got.dtype)
    wrong = ~((got == rounded) | (got.isnan() & rounded.isnan()))
    if not wrong.any():
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    return f"{int(wrong.sum())} of {got.numel()} differ, at {index} got {got[index]}, expected {rounded[index]}"


def bounded_error(got: torch.Tensor, expected: torch.Tensor, dtype: str) -> str | None:
    """None if ``got`` is as close to the float64 ``expected`` as its dtype allows; otherwise how far off it is.

    f32, f64: relative norm of the error. bf16, f16: every number within half a unit in its last place, which is one
    rounding, plus what float32 accumulation may lose.
    """
    error = got.double() - expected
    if dtype in NORM_BOUND:
        size, off = expected.norm(), error.norm()
        good = off <= NORM_BOUND[dtype] * size  # false for NaN
        return None if good else f"relative norm of the error {off / size:.2e}, allowed {NORM_BOUND[dtype]:.0e}"
    exponent = torch.frexp(expected).exponent - 1
    half_unit = torch.finfo(got.dtype).eps / 2 * torch.exp2(exponent.double())
    allowed = half_unit + ACCUMULATION_BOUND * expected.abs().amax() if expected.numel() else half_unit
    wrong = ~(error.abs() <= allowed)
    if not wrong.any():
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    return (
        f"{int(wrong.sum())} of {got.numel()} differ by more than one rounding, "
        f"at {index} got {got[index]}, expected {expected[index]:.8g}"
    )
