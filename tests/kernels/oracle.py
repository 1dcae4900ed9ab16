"""What the right answer is: F.conv2d and its autograd gradients in float64, and torch's reductions.

The library's own reference kernel is a kernel under test like any other, never the oracle.
"""

import functools
from math import prod

import numpy as np
import torch
import torch.nn.functional as F

from tests.kernels import harness
from tests.kernels.shapes import Shape
from torch_dwconv.operators.schemas import ACTIVATIONS

# PyTorch adds the weight gradients of images one after the other: more of them lose digits even in float64.
IMAGES_AT_ONCE = 512


def _sum_of(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(tensors).sum(0)


def convolve(shape: Shape, input, weight, grad_output) -> dict[str, torch.Tensor]:
    """PyTorch's output (without bias), grad_input and grad_weight, in the operands' dtype.

    The shape's output may end before the input does or reach past it: the input is cropped or padded to what the output
    sees, and PyTorch convolves that with no padding.
    """
    if shape.N > IMAGES_AT_ONCE:
        batches = zip(input.split(IMAGES_AT_ONCE), grad_output.split(IMAGES_AT_ONCE), strict=True)
        parts = [convolve(shape._replace(N=len(x)), x, weight, g) for x, g in batches]
        merge = {"output": torch.cat, "grad_input": torch.cat}
        return {name: merge.get(name, _sum_of)([part[name] for part in parts]) for name in parts[0]}
    if 0 in grad_output.shape or 0 in weight.shape:  # nothing to sum; PyTorch refuses some of these
        return dict(
            output=torch.zeros_like(grad_output),
            grad_input=torch.zeros_like(input),
            grad_weight=torch.zeros_like(weight),
        )
    x, w = input.clone().requires_grad_(), weight.clone().requires_grad_()
    (rows, columns), top, left = shape.reach, shape.pad_top, shape.pad_left
    seen = x[:, :, : max(0, rows - top), : max(0, columns - left)]
    padded = x.new_zeros(shape.N, shape.C, rows, columns)
    padded[:, :, top : top + seen.shape[2], left : left + seen.shape[3]] = seen
    stride, dilation = (shape.stride_h, shape.stride_w), (shape.dilation_h, shape.dilation_w)
    output = F.conv2d(padded, w.unsqueeze(1), None, stride, 0, dilation, groups=shape.C)
    grad_input, grad_weight = torch.autograd.grad(output, (x, w), grad_output)
    return dict(output=output.detach(), grad_input=grad_input, grad_weight=grad_weight)


# --- NaN and infinities ---------------------------------------------------------------------------------------------

# The operands that each answer is made of.
FACTORS = {
    "output": ("input", "weight"),
    "grad_input": ("grad_output", "weight"),
    "grad_weight": ("input", "grad_output"),
}


def _finite(values: torch.Tensor) -> torch.Tensor:
    return torch.where(values.isfinite(), values, 0)


def _infinite(values: torch.Tensor) -> torch.Tensor:
    """The sign of each infinity, and 0 for all else."""
    return torch.where(values.isinf(), values.sign(), 0)


def _counts(shape: Shape, name: str, pairs) -> torch.Tensor:
    """How often factors meet in a sum, from pairs of indicators: PyTorch's convolution counts."""
    first, second = FACTORS[name]
    total = 0
    for a, b in pairs:
        if a.any() and b.any():
            operands = {slot: torch.zeros(size).double() for slot, size in _sizes(shape).items()}
            total = total + convolve(shape, **(operands | {first: a.double(), second: b.double()}))[name]
    return torch.as_tensor(total)


def _with_specials(shape: Shape, operands: dict[str, torch.Tensor], name: str, finite: torch.Tensor) -> torch.Tensor:
    """One answer where factors may be NaN or infinite, from the sums of the finite ones.

    A term is NaN where a factor is, or where zero meets infinity. A sum is NaN where a term is, or where infinities of
    both signs meet. PyTorch's own convolution would multiply the padding's zeros too, so it only counts here.
    """
    a, b = (operands[slot] for slot in FACTORS[name])
    if a.isfinite().all() and b.isfinite().all():
        return finite
    ones = torch.ones_like(a), torch.ones_like(b)
    nan = _counts(shape, name, [(a.isnan(), ones[1]), (ones[0], b.isnan()), (a.isinf(), b == 0), (a == 0, b.isinf())])
    signs = [(_infinite(a), b.nan_to_num(0).sign()), (_finite(a).sign(), _infinite(b))]
    more_positive = _counts(shape, name, signs)
    infinite = _counts(shape, name, [(x.abs(), y.abs()) for x, y in signs])
    nan = (nan > 0) | (more_positive.abs() < infinite)
    return torch.where(nan, torch.nan, torch.where(infinite > 0, more_positive.sign() * torch.inf, finite))


# --- answers --------------------------------------------------------------------------------------------------------


def _sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    return {
        "input": (shape.N, shape.C, shape.H, shape.W),
        "weight": (shape.out_channels, shape.KH, shape.KW),
        "grad_output": (shape.N, shape.out_channels, shape.OH, shape.OW),
    }


def answers(shape: Shape, operands: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """output, output_with_bias, grad_input, grad_weight and grad_bias, NCHW in float64, of float64 operands."""
    factors = {name: operands[name] for name in ("input", "weight", "grad_output")}
    sums = convolve(shape, **{name: _finite(values) for name, values in factors.items()})
    sums = {name: _with_specials(shape, factors, name, values) for name, values in sums.items()}
    sums["output_with_bias"] = sums["output"] + operands["bias"].view(-1, 1, 1)
    return sums | {"grad_bias": operands["grad_output"].sum((0, 2, 3))}


def dense_answers(shape: Shape, operands: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """dense and dense_with_bias, _residual and _both, NCHW in float64. Every tap is inside, so all terms count."""
    rows, columns = shape.reach
    x, w = operands["input"][:, :, :rows, :columns], operands["weight"]
    if 0 in operands["residual"].shape or 0 in w.shape:
        sums = torch.zeros_like(operands["residual"])
    else:
        stride, dilation = (shape.stride_h, shape.stride_w), (shape.dilation_h, shape.dilation_w)
        taps = F.unfold(x, (shape.KH, shape.KW), dilation, 0, stride)  # (N, C*KH*KW, OH*OW)
        sums = (w.flatten(1) @ taps).view_as(operands["residual"])
    with_bias = sums + operands["bias"].view(-1, 1, 1)
    return {
        "dense": sums,
        "dense_with_bias": with_bias,
        "dense_with_residual": sums + operands["residual"],
        "dense_with_both": with_bias + operands["residual"],
    }


def channelwise_answers(shape: Shape, operands: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """layer_norm, channel_scale, both NCHW, and channel_sum (N, C), in float64."""
    x = operands["input"]
    deviations = x - x.mean(1, keepdim=True)
    deviations = deviations - deviations.mean(1, keepdim=True)  # what is left of the mean after it was rounded
    variance = (deviations**2).mean(1, keepdim=True)
    return {
        "layer_norm": deviations / (variance + operands["epsilon"]).sqrt(),
        "channel_scale": x * operands["scale"][:, :, None, None],
        "channel_sum": x.sum((2, 3)),
    }


def batch_norm_answers(shape: Shape, operands: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """BatchNorm of the batch and of a given mean and variance, and their gradients at the given ones, in float64."""
    x, grad_output, weight, bias = (operands[name] for name in ("input", "grad_output", "weight", "bias"))
    mean, variance, epsilon = operands["mean"], operands["variance"], float(operands["epsilon"])
    name = harness.ACTIVATIONS[int(operands["activation"])]
    activate = (lambda z: z) if name == "none" else ACTIVATIONS[name]
    of_batch = x.mean((0, 2, 3)) if x.numel() else mean * torch.nan
    of_batch = of_batch + (x - of_batch[:, None, None]).mean((0, 2, 3)) if x.numel() else of_batch
    deviations = x - of_batch[:, None, None]

    def normalised(of_mean, of_variance):
        # Deviations first: PyTorch multiplies before it subtracts, and misses the kinks of activations by a rounding.
        return F.batch_norm(x - of_mean[:, None, None], 0 * of_mean, of_variance, weight, bias, False, 0.0, epsilon)

    of_variance = (deviations**2).mean((0, 2, 3)) if x.numel() else of_batch
    argument = normalised(mean, variance).requires_grad_()
    (inner,) = torch.autograd.grad(activate(argument), argument, grad_output)
    grads = {
        train: torch.ops.aten.native_batch_norm_backward(
            inner, x, weight, mean, variance, mean, (variance + epsilon).rsqrt(), train, epsilon, [True, True, True]
        )
        for train in (True, False)
    }
    return {
        "batch_norm_output": activate(normalised(of_batch, of_variance)),
        "batch_norm_mean": of_batch,
        "batch_norm_variance": of_variance,
        "batch_norm_eval_output": activate(argument.detach()),
        "batch_norm_grad_input": grads[True][0],
        "batch_norm_grad_weight": grads[True][1],
        "batch_norm_grad_bias": grads[True][2],
        "batch_norm_eval_grad_input": grads[False][0],
    }


def pointwise_answers(shape: Shape, operands: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """pointwise_output without and with bias, and its two gradients, NCHW in float64: matrix products."""
    x, w, g = (operands[name].flatten(2) for name in ("input", "weight", "grad_output"))
    w = w.flatten(1)
    output = (w @ x).view_as(operands["grad_output"])
    gradients = g.transpose(0, 1).flatten(1) @ x.transpose(0, 1).flatten(1).T
    return {
        "pointwise_output": output,
        "pointwise_output_with_bias": output + operands["bias"].view(-1, 1, 1),
        "pointwise_grad_input": (w.T @ g).view_as(operands["input"]),
        "pointwise_grad_weight": gradients,
    }


def cache_size(shape: Shape) -> tuple[int, int, int]:
    """(rows, C, length) of the cache of a sequence's shape, as ``calls/operands.h`` has them."""
    return shape.N + 2, shape.C, shape.pad_left + (shape.C + shape.W) % 5


def sequence_answers(shape: Shape, operands: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """Those of sequence and sequence_backward, then of sequence_step, in float64: tap by tap, of all positions at once.

    states, reach, rows and begins may be None.
    """
    x, weight, bias, grad_output = (operands[name] for name in ("input", "weight", "bias", "grad_output"))
    states, reach = operands["states"], operands["reach"]
    silu = bool(operands["activation"])
    most, length, dilation = shape.pad_left, shape.W, shape.dilation_w
    before = x.new_zeros(shape.N, shape.C, most) if states is None else states
    padded, there = torch.cat([before, x], 2), torch.ones(most + length, dtype=torch.bool)
    there[:most] = states is not None
    reach = torch.full((shape.N, length), float(most)).double() if reach is None else reach
    # Of each tap: where it stands, which results look at it, and at which of them something is.
    taps = [(k, slice(k * dilation, k * dilation + length)) for k in range(shape.KW)]
    looks = [(reach >= (shape.KW - 1 - k) * dilation)[:, None] for k, _ in taps]
    sums = bias[:, None].expand_as(x)
    for (k, at), look in zip(taps, looks, strict=True):
        sums = sums + torch.where(look & there[at], weight[:, k, None] * padded[:, :, at], 0)
    wanted = (reach >= 0)[:, None]
    gate = torch.sigmoid(sums)
    inner = torch.where(wanted, grad_output * (gate * (1 + sums * (1 - gate))) if silu else grad_output, 0)
    grad_padded, grad_weight = torch.zeros_like(padded), torch.zeros_like(weight)
    for (k, at), look in zip(taps, looks, strict=True):
        grad_padded[:, :, at] += torch.where(look, weight[:, k, None] * inner, 0)
        grad_weight[:, k] = torch.where(look & there[at], padded[:, :, at] * inner, 0).sum((0, 2))
    output, cache = _sequence_step(shape, operands, silu)
    return {
        "sequence_output": torch.where(wanted, F.silu(sums) if silu else sums, 0),
        "sequence_grad_input": grad_padded[:, :, most:],
        "sequence_grad_weight": grad_weight,
        "sequence_grad_bias": inner.sum((0, 2)),
        "sequence_grad_states": grad_padded[:, :, :most],
        "sequence_step_output": output,
        "sequence_step_cache": cache,
    }


def _sequence_step(shape: Shape, operands: dict[str, torch.Tensor | None], silu: bool):
    x, weight, cache = operands["input"], operands["weight"], operands["cache"].clone()
    rows, begins, width = operands["rows"], operands["begins"], shape.KW
    output = torch.zeros_like(x)
    for n in range(shape.N):
        row = n if rows is None else int(rows[n])
        if row < 0:
            continue
        # As a ring that begins with its oldest position is turned, it is one that is shifted.
        turn = 0 if begins is None else int(begins[n]) % max(cache.shape[2], 1)
        line = torch.cat([cache[row].roll(-turn, 1), x[n]], 1)
        windows = line[:, cache.shape[2] - width + 1 :].unfold(1, width, 1)[:, : shape.W]
        sums = (windows * weight[:, None]).sum(2) + operands["bias"][:, None]
        output[n] = F.silu(sums) if silu else sums
        turned_by = 0 if begins is None else turn + shape.W
        cache[row] = line[:, line.shape[1] - cache.shape[2] :].roll(turned_by, 1)
    return output, cache


def operand_sizes(kind: str, shape: Shape) -> dict[str, tuple[int, ...]]:
    """Of what the operations of a kind read, NCHW."""
    if kind == "sequence":
        x, of_channels, of_images = (shape.N, shape.C, shape.W), (shape.C,), (shape.N,)
        return (
            {"input": x, "weight": (shape.C, shape.KW), "bias": of_channels, "grad_output": x, "activation": ()}
            | {"states": (shape.N, shape.C, shape.pad_left), "reach": (shape.N, shape.W)}
            | {"cache": cache_size(shape), "rows": of_images, "begins": of_images}
        )
    if kind == "depthwise":
        return _sizes(shape) | {"bias": (shape.out_channels,)}
    sizes = {"input": (shape.N, shape.C, shape.H, shape.W)}
    if kind == "batch_norm":
        of_channels = {name: (shape.C,) for name in ("weight", "bias", "mean", "variance")}
        return sizes | of_channels | {"grad_output": sizes["input"], "epsilon": (), "activation": ()}
    if kind == "channelwise":
        return sizes | {"scale": (shape.N, shape.C), "epsilon": ()}
    weight, residual = (shape.M, shape.C, shape.KH, shape.KW), (shape.N, shape.M, shape.OH, shape.OW)
    if kind == "pointwise":
        return sizes | {"weight": weight, "bias": (shape.M,), "grad_output": residual}
    return sizes | {"weight": weight, "bias": (shape.M,), "residual": residual}


def checkers_answers(kind: str, shape: tuple[int, ...], operands: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answers of a kind for the checker, which asks with flat arrays."""
    shape = Shape(*shape)
    tensors = {
        name: torch.from_numpy(operands[name]).view(size) if operands[name].size == prod(size) else None  # not given
        for name, size in operand_sizes(kind, shape).items()
    }
    of_kind = {
        "depthwise": answers,
        "dense": dense_answers,
        "channelwise": channelwise_answers,
        "batch_norm": batch_norm_answers,
        "pointwise": pointwise_answers,
        "sequence": sequence_answers,
    }[kind]
    return {name: values.contiguous().numpy().ravel() for name, values in of_kind(shape, tensors).items()}


class Problem:
    """Operands and right results for one shape. Everything is float64 and NCHW; ``operands`` gives a kernel's view.

    ``data`` names one of the checker's kinds of data (``checker/problem.h``).
    """

    def __init__(self, shape: Shape, data: str, seed: int = 0):
        self.shape = shape
        extension = harness.extension()
        drawn = extension.operands("depthwise", shape, getattr(extension.Data, data), seed)
        sizes = operand_sizes("depthwise", shape)
        self.operands_f64 = {name: torch.from_numpy(drawn[name]).view(size) for name, size in sizes.items()}

    @functools.cached_property
    def answers(self) -> dict[str, torch.Tensor]:
        return answers(self.shape, self.operands_f64)

    @functools.cache  # noqa: B019  (a problem lives as long as its test)
    def operands(self, dtype: str, layout: str) -> dict[str, torch.Tensor]:
        """The operands in a dtype, dense in a layout; weight and bias are the same in both."""
        return {name: in_layout(value, layout).to(harness.DTYPES[dtype]) for name, value in self.operands_f64.items()}

    def expected(self, kernel: "harness.Kernel") -> dict[str, torch.Tensor]:
        """What the kernel should return with a bias, in float64 and the kernel's layout."""
        names = {
            "forward": {"result": "output_with_bias"},
            "grad_input": {"result": "grad_input"},
            "grad_weight": {"result": "grad_weight", "grad_bias": "grad_bias"},
            "backward": {"result": "grad_input", "grad_weight": "grad_weight", "grad_bias": "grad_bias"},
        }[kernel.operation]
        return {name: in_layout(self.answers[answer], kernel.layout) for name, answer in names.items()}


def in_layout(images: torch.Tensor, layout: str) -> torch.Tensor:
    """NCHW images as they lie in memory in a layout; anything that is not 4-D as it is."""
    return images.permute(0, 2, 3, 1).contiguous() if images.dim() == 4 and layout == "nhwc" else images
