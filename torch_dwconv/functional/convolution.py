"""depthwise_conv2d: who computes it. The rules for its arguments and the texts of its errors are in rules.py.

Errors are of the types that F.conv2d raises: TypeError for an argument of the wrong Python type, RuntimeError for
tensors that do not fit and for options out of range. `activation`, which F.conv2d does not have, gets ValueError.
"""

import contextlib
import functools
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..operators import autograd, native
from ..operators.schemas import (
    ACTIVATION_CODES,
    ACTIVATIONS,
    FORWARD,
    strides_suggest_channels_last,
    suggests_channels_last,
)
from . import scripted
from .rules import check_activation, check_match, pair, resolve_geometry, resolve_padding

IntPair = int | Sequence[int]  # one number for both, or (h, w)
Padding = str | IntPair | Sequence[Sequence[int]]  # "valid", "same", or ((top, bottom), (left, right)) too

# What the kernels of this package take, on CUDA where there are any; everything else is computed by F.conv2d.
DEVICES = ("cpu", "cuda")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_is_any_autocast_enabled = torch._C._is_any_autocast_enabled  # looked up once: calls are counted in microseconds


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    *,
    activation: str | None = None,
) -> Tensor:
    """Depthwise 2-D convolution: every channel with filters of its own, as ``F.conv2d(..., groups=C)`` computes it.

    Tensors without a kernel in this package (integer and complex dtypes, other devices, sparse tensors, tensor
    subclasses, objects with ``__torch_function__``) are computed by F.conv2d. float16 and bfloat16 accumulate in
    float32 and round once. Under autocast the tensors are cast as F.conv2d's are.

    Args:
        input: (N, C, H, W) or (C, H, W), contiguous or channels_last (any other strides cost a copy).
        weight: (C*M, 1, kernel_h, kernel_w). Output channel c*M + m is filter m of input channel c.
        bias: (C*M,), added to the output.
        stride: int or (h, w), in rows and columns of the input, at least 1.
        padding: zeros round the input: int, (h, w), ((top, bottom), (left, right)), 'valid' for none, or 'same' for
            an output of ceil(H / stride_h) x ceil(W / stride_w): PyTorch's at stride 1, TensorFlow's SAME at larger
            strides. What cannot be split evenly goes to the bottom and right.
        dilation: int or (h, w), distance between the taps of a filter, at least 1.
        activation: 'relu', 'relu6', 'hardswish', 'silu', 'gelu' or 'gelu_tanh' (gelu's tanh approximation), applied to
            the result: before it is rounded and in the same pass over the output, if no gradient is needed.

    Returns:
        (N, C*M, OH, OW), or (C*M, OH, OW) for a 3-D input, with
        ``OH = (H + top + bottom - dilation_h * (kernel_h - 1) - 1) // stride_h + 1`` and OW likewise. Its memory format
        is channels_last if the strides of the input or the weight suggest that, otherwise contiguous.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit together, or an option out of its range, as F.conv2d.
        TypeError: an argument of the wrong Python type.
        ValueError: an unknown `activation`.
    """
    return convolve(input, weight, bias, stride, padding, dilation, activation, None)


# What TorchScript compiles where a script calls it.
depthwise_conv2d.__prepare_scriptable__ = lambda: scripted.depthwise_conv2d  # type: ignore[attr-defined]


def convolve(input, weight, bias, stride, padding, dilation, activation, groups: int | None, row=False) -> Tensor:
    """depthwise_conv2d for a layer, which knows its channels.

    Args:
        groups: channels that the input must have, None for whatever it has. A weight that has not one channel for each
            filter is no depthwise one; then F.conv2d computes what these `groups` mean.
        row: whether the height is 1 and is taken away from the output, in place: nn.Conv1d's output is no view, so that
            it may be written to. Not together with an activation, whose gradient may need its result as it was.
        others: as depthwise_conv2d.
    """
    overridden = has_torch_function_variadic(input, weight, bias)
    if overridden and is_symbolic(input, weight, bias):
        arguments = (input, weight, bias, stride, padding, dilation)
        output = handle_torch_function(depthwise_conv2d, arguments[:3], *arguments, activation=activation)
        return output.squeeze(-2) if row else output
    if activation not in ACTIVATION_CODES:
        check_activation(activation)
    plain = not overridden and autograd.is_plain(input, weight, bias)
    if not plain and _opaque_reason(input, weight, bias):
        output = fall_back(input, weight, bias, stride, padding, dilation, activation, groups)
        return output.squeeze(-2) if row else output
    shape = input.shape
    if len(shape) == 3:
        input = input.unsqueeze(0)
        return convolve(input, weight, bias, stride, padding, dilation, activation, groups, row).squeeze(0)
    if _is_any_autocast_enabled():
        input, weight, bias = autocast(input), autocast(weight), autocast(bias)
    check_match("weight", weight, input)
    bias_shape = None
    if bias is not None:
        check_match("bias", bias, input)
        bias_shape = bias.shape
    if plain:
        plan = _plan(
            shape, input.stride(), weight.shape, weight.stride(), bias_shape, stride, padding, dilation, groups
        )
        if plan is not None and plain_reason(input) is None:
            output = autograd.forward(input, weight, bias, plan, ACTIVATION_CODES[activation])
        else:
            output = fall_back(input, weight, bias, stride, padding, dilation, activation, groups)
        return output.squeeze_(-2) if row else output
    geometry = None
    if not _is_grouped(weight.shape, groups):
        geometry = resolve_geometry(shape, weight.shape, bias_shape, stride, padding, dilation, groups)
    if geometry is None or native_reason(input, weight, bias):
        output = fall_back(input, weight, bias, stride, padding, dilation, activation, groups)
    else:
        channels_last = suggests_channels_last(input) or suggests_channels_last(weight)
        output = FORWARD(input, weight, bias, *geometry, channels_last, ACTIVATION_CODES[activation])
    return output.squeeze(-2) if row else output


def is_symbolic(*tensors) -> bool:
    """Whether torch.fx.symbolic_trace is recording this call: it gets a node of its own, by handle_torch_function."""
    return any(isinstance(tensor, torch.fx.Proxy) for tensor in tensors)


def _is_grouped(weight_shape, groups: int | None) -> bool:
    """Whether a layer's weight and groups, edited since, are of an ordinary grouped convolution."""
    return groups is not None and len(weight_shape) == 4 and weight_shape[1] > 1


def _make_plan(
    input_shape, input_strides, weight_shape, weight_strides, bias_shape, stride, padding, dilation, groups=None
) -> autograd.Plan | None:
    """The numbers of a call; None if it is one for F.conv2d."""
    if _is_grouped(weight_shape, groups):
        return None
    geometry = resolve_geometry(input_shape, weight_shape, bias_shape, stride, padding, dilation, groups)
    channels_last = strides_suggest_channels_last(input_shape, input_strides) or strides_suggest_channels_last(
        weight_shape, weight_strides
    )
    return autograd.Plan.of((*geometry, channels_last), input_shape, input_strides, weight_shape, weight_strides)


def _remembering(function):
    """The function with its last results kept: a model asks the same few questions at every step."""
    cached = functools.lru_cache(maxsize=1024, typed=True)(function)

    def remembered(*arguments):
        try:
            return cached(*arguments)
        except TypeError:  # unhashable (an option is a list), or wrong and about to be reported again
            return function(*arguments)

    return remembered


# For plain tensors only: the compiler traces the functions themselves.
_plan = _remembering(_make_plan)
remembered_geometry = _remembering(resolve_geometry)


@overload
def autocast(tensor: Tensor) -> Tensor: ...
@overload
def autocast(tensor: None) -> None: ...
def autocast(tensor: Tensor | None) -> Tensor | None:
    """The tensor as autocast hands it to F.conv2d: everything in floating point but float64 is cast."""
    if tensor is None or tensor.device.type not in DEVICES or not torch.is_autocast_enabled(tensor.device.type):
        return tensor
    if not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def _opaque_reason(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> str | None:
    """Why this call must reach F.conv2d as it is, before anyone looks at shapes; None if the tensors are ordinary.

    Fake and functional tensors, which stand for ordinary ones inside torch.compile and torch.export, are ordinary here.
    """
    for name, tensor in (("input", input), ("weight", weight), ("bias", bias)):
        kind = type(tensor)
        if kind in (Tensor, torch.nn.Parameter, FakeTensor, FunctionalTensor) or (tensor is None and name == "bias"):
            continue
        torch_function = getattr(kind, "__torch_function__", None)
        if torch_function is None:
            raise TypeError(f"{name} must be a tensor, got {kind.__name__}")
        overrides_functions = torch_function is not torch._C._disabled_torch_function_impl
        overrides_operators = getattr(kind, "__torch_dispatch__", None) is not Tensor.__torch_dispatch__
        if overrides_functions or overrides_operators:
            return f"{kind.__name__} computes for itself"
    if torch.jit.is_tracing():
        return "torch.jit.trace and the exporters built on it know PyTorch's operators only"
    return None


def native_reason(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> str | None:
    """Why the kernels of this package do not take these tensors and F.conv2d does; None if they do."""
    if reason := _opaque_reason(input, weight, bias):
        return reason
    for name, tensor in (("input", input), ("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.layout != torch.strided:
            return f"{name} has layout {tensor.layout}"
        if tensor.device.type not in DEVICES:
            return f"{name} is on {tensor.device}"
        if tensor.device.type == "cuda" and (reason := native.cuda_refusal(tensor.device.index or 0)):
            return f"{name} is on {tensor.device}: {reason}"
        if tensor.dtype not in DTYPES:
            return f"{name} is {tensor.dtype}"
    return None


def plain_reason(tensor: Tensor) -> str | None:
    """native_reason for tensors that are plain and of one dtype and device."""
    if tensor.dtype not in DTYPES:
        return f"it is {tensor.dtype}"
    return None if tensor.is_cpu else native.cuda_refusal(tensor.get_device())


def fall_back(input, weight, bias, stride, padding, dilation, activation=None, groups: int | None = None):
    """F.conv2d, with the forms of padding that it does not have made by F.pad, and the activation."""
    with untraced():
        channels = input.shape[-3] if groups is None else groups
    input, around = pad_by_sides(input, weight.shape, stride, padding, dilation)
    output = F.conv2d(input, weight, bias, stride, around, dilation, channels)
    return output if activation is None else ACTIVATIONS[activation](output)


@torch.fx.wrap  # of a traced input the size is not known yet
def pad_by_sides(input, weight_shape, stride, padding, dilation, mode: str = "constant") -> tuple[Tensor, tuple]:
    """The input, and the padding (h, w) that is left to a convolution which pads opposite sides alike, with zeros.

    In a trace, padding that depends on the input's size is recorded as it is computed, so that the trace is right at
    other sizes; what does not depend on it is kept out of the trace, which would warn.
    """
    with untraced():
        kernel_hw, stride, dilation = weight_shape[-2:], pair(stride, "stride"), pair(dilation, "dilation")
        by_size = isinstance(padding, str) and padding == "same" and stride != (1, 1)
        pads = None if by_size else resolve_padding(padding, input.shape[-2:], kernel_hw, stride, dilation)
    if pads is None:
        pads = resolve_padding(padding, input.shape[-2:], kernel_hw, stride, dilation)
        by_size = any(isinstance(pad, Tensor) for pad in pads)
    top, bottom, left, right = pads
    if mode == "constant" and not by_size and top == bottom and left == right:
        return input, (top, left)
    return F.pad(input, (left, right, top, bottom), mode), (0, 0)


def untraced() -> contextlib.AbstractContextManager:
    """Keeps what is done with sizes out of a torch.jit.trace, which would record it, and warn, as if they were data."""
    state = torch._C._get_tracing_state()
    return _NOTHING if state is None else _tracing_suspended(state)


_NOTHING = contextlib.nullcontext()  # one for all: it holds nothing


@contextlib.contextmanager
def _tracing_suspended(state):
    set_state = torch._C._set_tracing_state  # type: ignore[attr-defined]  # its stub has only the getter
    set_state(None)
    try:
        yield
    finally:
        set_state(state)
