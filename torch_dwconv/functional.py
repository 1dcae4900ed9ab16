"""depthwise_conv2d: the rules for its arguments, the texts of its errors, and who computes it.

Errors are of the types that F.conv2d raises: TypeError for an argument of the wrong Python type, RuntimeError for
tensors that do not fit and for options out of range. `activation`, which F.conv2d does not have, gets ValueError.
"""

import contextlib
import functools
import operator
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_variadic

from . import _native, autograd, scripted
from .library import (
    ACTIVATION_CODES,
    ACTIVATIONS,
    FORWARD,
    is_surely,
    strides_suggest_channels_last,
    suggests_channels_last,
)

IntPair = int | Sequence[int]  # one number for both, or (h, w)
Padding = str | IntPair | Sequence[Sequence[int]]  # "valid", "same", or ((top, bottom), (left, right)) too

# What the kernels of this package take, on CUDA where there are any; everything else is computed by F.conv2d.
DEVICES = ("cpu", "cuda")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


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


def convolve(input, weight, bias, stride, padding, dilation, activation: str | None, groups: int | None) -> Tensor:
    """depthwise_conv2d for a layer, which knows its channels.

    Args:
        groups: channels that the input must have, None for whatever it has. A weight that has not one channel for each
            filter is no depthwise one; then F.conv2d computes what these `groups` mean.
        others: as depthwise_conv2d.
    """
    overridden = has_torch_function_variadic(input, weight, bias)
    if overridden and is_symbolic(input, weight, bias):
        arguments = (input, weight, bias, stride, padding, dilation)
        return handle_torch_function(depthwise_conv2d, arguments[:3], *arguments, activation=activation)
    check_activation(activation)
    plain = not overridden and autograd.is_plain(input, weight, bias)
    if not plain and _opaque_reason(input, weight, bias):
        return fall_back(input, weight, bias, stride, padding, dilation, activation, groups)
    if len(input.shape) == 3:
        return convolve(input.unsqueeze(0), weight, bias, stride, padding, dilation, activation, groups).squeeze(0)
    if torch._C._is_any_autocast_enabled():
        input, weight, bias = autocast(input), autocast(weight), autocast(bias)
    check_match("weight", weight, input)
    if bias is not None:
        check_match("bias", bias, input)
    bias_shape = None if bias is None else bias.shape
    if plain:
        plan = _plan(
            input.shape, input.stride(), weight.shape, weight.stride(), bias_shape, stride, padding, dilation, groups
        )
        if plan is not None and plain_reason(input) is None:
            return autograd.forward(input, weight, bias, plan, ACTIVATION_CODES[activation])
        return fall_back(input, weight, bias, stride, padding, dilation, activation, groups)
    if _is_grouped(weight.shape, groups):
        return fall_back(input, weight, bias, stride, padding, dilation, activation, groups)
    geometry = resolve_geometry(input.shape, weight.shape, bias_shape, stride, padding, dilation, groups)
    if native_reason(input, weight, bias):
        return fall_back(input, weight, bias, stride, padding, dilation, activation, groups)
    channels_last = suggests_channels_last(input) or suggests_channels_last(weight)
    return FORWARD(input, weight, bias, *geometry, channels_last, ACTIVATION_CODES[activation])


_unsafe_view = torch.ops.aten._unsafe_view.default._op


def without_height(output: Tensor) -> Tensor:
    """(..., C, 1, L) as (..., C, L), which is no view, as nn.Conv1d's output is none: it may be written to in place."""
    if type(output) is not Tensor or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return output.squeeze(-2)
    *outer, _, length = output.shape
    return _unsafe_view(output, (*outer, length))


def is_symbolic(*tensors) -> bool:
    """Whether torch.fx.symbolic_trace is recording this call: it gets a node of its own, by handle_torch_function."""
    return any(isinstance(tensor, torch.fx.Proxy) for tensor in tensors)


def _is_grouped(weight_shape, groups: int | None) -> bool:
    """Whether a layer's weight and groups, edited since, are of an ordinary grouped convolution."""
    return groups is not None and len(weight_shape) == 4 and weight_shape[1] > 1


def resolve_geometry(input_shape, weight_shape, bias_shape, stride, padding, dilation, groups: int | None = None):
    """Checks the sizes of a 4-D call and returns what the operators take of it.

    Args:
        groups: channels that the input must have, None for whatever it has.

    Returns:
        (out_h, out_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w). Sizes may be SymInts.

    Raises:
        RuntimeError, TypeError: as depthwise_conv2d.
    """
    if len(input_shape) != 4:
        raise RuntimeError(f"input must be (N, C, H, W) or (C, H, W), got {tuple(input_shape)}")
    batch, channels, height, width = input_shape
    if (is_surely(height == 0) or is_surely(width == 0)) and not is_surely(batch == 0):
        raise RuntimeError(f"input must not be empty but for its batch, got {tuple(input_shape)}")
    if groups is not None and channels != groups:
        raise RuntimeError(
            f"input must have the layer's {groups} channels (groups={groups}, weight {tuple(weight_shape)}), "
            f"got {channels} in {tuple(input_shape)}"
        )
    if channels == 0:
        raise RuntimeError(f"input must have at least one channel, got {tuple(input_shape)}")
    if len(weight_shape) != 4 or weight_shape[1] != 1:
        raise RuntimeError(f"weight must be (C*M, 1, kernel_h, kernel_w), got {tuple(weight_shape)}")
    out_channels, _, *kernel_size = weight_shape
    if out_channels == 0 or out_channels % channels != 0:
        raise RuntimeError(
            f"weight must have a multiple of the input's {channels} channels at dimension 0, got {tuple(weight_shape)}"
        )
    if bias_shape is not None and (len(bias_shape) != 1 or bias_shape[0] != out_channels):
        raise RuntimeError(f"bias must be ({out_channels},), one value per output channel, got {tuple(bias_shape)}")
    stride = positive_pair(stride, "stride")
    dilation = positive_pair(dilation, "dilation")
    top, bottom, left, right = resolve_padding(padding, (height, width), kernel_size, stride, dilation)
    if 0 in kernel_size:
        raise RuntimeError(f"weight must have a kernel of at least 1 x 1, got {tuple(weight_shape)}")
    reach = [step * (taps - 1) + 1 for step, taps in zip(dilation, kernel_size, strict=True)]
    padded = (height + top + bottom, width + left + right)
    # 'same' always reaches an input that is there: that says it without the long terms of symbolic padding.
    fits = (height >= 1, width >= 1) if padding == "same" else (reach[0] <= padded[0], reach[1] <= padded[1])
    for fit in fits:
        require(
            fit,
            lambda: (
                f"the kernel must not be larger than the padded input, {padded[0]} x {padded[1]}, "
                f"got {reach[0]} x {reach[1]} with dilation"
            ),
        )
    if padding == "same":
        out_h, out_w = _ceil_div(height, stride[0]), _ceil_div(width, stride[1])
    else:
        out_h, out_w = ((size - taps) // step + 1 for size, taps, step in zip(padded, reach, stride, strict=True))
    return out_h, out_w, *stride, top, left, *dilation


def require(condition, text) -> None:
    """Raises RuntimeError(text()) unless the condition holds.

    A condition on sizes that are not known while a program is captured becomes a part of the program, which checks it.
    """
    if condition is True:
        return
    if condition is not False:
        from torch.fx.experimental.symbolic_shapes import guard_or_true

        if guard_or_true(condition):
            torch._check(condition)  # without the text: Dynamo takes none that holds sizes
            return
    raise RuntimeError(text())


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


def resolve_padding(padding, input_hw, kernel_hw, stride, dilation) -> tuple:
    """The padding (top, bottom, left, right) that any form of `padding` means for an input of size `input_hw`.

    'same' pads for an output of ceil(size / stride), the odd element at the bottom and right. That is TensorFlow's SAME
    at every stride, https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2, and at stride 1 PyTorch's too.
    """
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        axes = zip(input_hw, kernel_hw, pair(stride, "stride"), pair(dilation, "dilation"), strict=True)
        total_h, total_w = (_same_padding(*axis) for axis in axes)
        return total_h // 2, total_h - total_h // 2, total_w // 2, total_w - total_w // 2
    if isinstance(padding, str):
        raise RuntimeError(f"padding must be {_FORMS['padding']}, got {padding!r}")
    (top, bottom), (left, right) = (pair(sides, "padding") for sides in _two(padding, "padding"))
    if top < 0 or bottom < 0 or left < 0 or right < 0:
        raise RuntimeError(f"padding must not be negative, got {padding!r}")
    return top, bottom, left, right


def _same_padding(size, kernel, stride, dilation):
    reach = dilation * (kernel - 1)
    if stride == 1:
        return reach
    total = (_ceil_div(size, stride) - 1) * stride + reach + 1 - size
    if isinstance(total, Tensor):  # a size in a torch.jit.trace
        return total.clamp(min=0)
    return torch.sym_max(total, 0)


def _ceil_div(size, stride):
    return (size + stride - 1) // stride  # ONNX divides towards zero: no negative numbers


_FORMS = {
    "stride": "an int or (h, w)",
    "dilation": "an int or (h, w)",
    "output_padding": "an int or (h, w)",
    "padding": "an int, (h, w), ((top, bottom), (left, right)), 'valid' or 'same'",
}


def _two(value, name: str):
    """The two entries of an option, for h and w, which may also be given as one."""
    entries = value if isinstance(value, (tuple, list)) else (value,)
    if len(entries) not in (1, 2):
        raise RuntimeError(f"{name} must be {_FORMS[name]}, got {value!r}")
    return entries[0], entries[-1]


def pair(value, name: str) -> tuple:
    """The option for h and w, as two ints."""
    entries = _two(value, name)
    try:
        return tuple(entry if isinstance(entry, (int, torch.SymInt)) else operator.index(entry) for entry in entries)
    except TypeError:
        raise TypeError(f"{name} must be {_FORMS[name]}, got {value!r}") from None


def positive_pair(value, name: str) -> tuple:
    """The option for h and w, each at least 1."""
    values = pair(value, name)
    if values[0] < 1 or values[1] < 1:
        raise RuntimeError(f"{name} must be positive, got {value!r}")
    return values


def check_activation(activation: str | None) -> None:
    """Raises ValueError unless `activation` is None or one that there is."""
    if activation not in ACTIVATION_CODES:
        raise ValueError(f"activation must be None or one of {', '.join(ACTIVATIONS)}, got {activation!r}")


def check_match(name: str, tensor: Tensor, input: Tensor) -> None:
    """Raises RuntimeError unless `tensor` has the dtype and the device of `input`."""
    if tensor.dtype != input.dtype:
        raise RuntimeError(f"{name} must have the input's dtype {input.dtype}, got {tensor.dtype}")
    if tensor.device != input.device:
        raise RuntimeError(f"{name} must be on the input's device {input.device}, got {tensor.device}")


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
        if tensor.device.type == "cuda" and (reason := _native.cuda_refusal(tensor.device.index or 0)):
            return f"{name} is on {tensor.device}: {reason}"
        if tensor.dtype not in DTYPES:
            return f"{name} is {tensor.dtype}"
    return None


def plain_reason(tensor: Tensor) -> str | None:
    """native_reason for tensors that are plain and of one dtype and device."""
    if tensor.dtype not in DTYPES:
        return f"it is {tensor.dtype}"
    return None if tensor.is_cpu else _native.cuda_refusal(tensor.get_device())


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
    return contextlib.nullcontext() if state is None else _tracing_suspended(state)


@contextlib.contextmanager
def _tracing_suspended(state):
    set_state = torch._C._set_tracing_state  # type: ignore[attr-defined]  # its stub has only the getter
    set_state(None)
    try:
        yield
    finally:
        set_state(state)
