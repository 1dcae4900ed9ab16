"""The rules for the arguments of a convolution: what every form of an option means, and the texts of the errors.

Sizes may be SymInts. A rule on sizes that are not known while a program is captured becomes a part of the program.
"""

import functools
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from ..operators.schemas import ACTIVATION_CODES, ACTIVATIONS
from ..operators.symbolic import is_surely, require

IntPair = int | Sequence[int]  # one number for both, or (h, w)
Padding = str | IntPair | Sequence[Sequence[int]]  # "valid", "same", or ((top, bottom), (left, right)) too


def remembering(function):
    """The function with its last results kept: a model asks the same few questions at every step.

    For the sizes and options of plain tensors: what a compiler traces has none to keep.
    """
    cached = functools.lru_cache(maxsize=1024, typed=True)(function)

    def remembered(*arguments):
        try:
            return cached(*arguments)
        except TypeError:  # unhashable (an option is a list), or wrong and about to be reported again
            return function(*arguments)

    return remembered


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


def resolve_transposed(input_shape, weight_shape, bias_shape, stride, padding, output_padding, dilation) -> tuple:
    """stride, ((top, bottom), (left, right)), output_padding, dilation and (OH, OW) of a 4-D call, all checked."""
    if len(input_shape) != 4:
        raise RuntimeError(f"input must be (N, C, H, W) or (C, H, W), got {tuple(input_shape)}")
    if len(weight_shape) != 4 or 0 in weight_shape:
        raise RuntimeError(f"weight must be (C, M, kernel_h, kernel_w), got {tuple(weight_shape)}")
    channels, multiplier, *kernel_size = weight_shape
    require(
        input_shape[1] == channels,
        lambda: f"input must have {channels} channels, those of weight {tuple(weight_shape)}, got {tuple(input_shape)}",
    )
    for length in input_shape[2:]:
        require(length >= 1, lambda: f"input must have at least one row and column, got {tuple(input_shape)}")
    out_channels = channels * multiplier
    if bias_shape is not None and tuple(bias_shape) != (out_channels,):
        raise RuntimeError(f"bias must be ({out_channels},), one value per output channel, got {tuple(bias_shape)}")
    stride = positive_pair(stride, "stride")
    dilation = positive_pair(dilation, "dilation")
    if padding == "same":
        raise RuntimeError("padding must be an int, (h, w), ((top, bottom), (left, right)) or 'valid', got 'same'")
    top, bottom, left, right = resolve_padding(padding, input_shape[2:], kernel_size, stride, dilation)
    pads = (top, bottom), (left, right)
    output_padding = pair(output_padding, "output_padding")
    for extra, step, spread in zip(output_padding, stride, dilation, strict=True):
        require(
            (extra >= 0) & (extra < max(step, spread)),
            lambda: (
                f"output_padding must be at least 0 and less than stride={stride} or dilation={dilation}, "
                f"got {output_padding}"
            ),
        )
    axes = zip(input_shape[2:], stride, pads, dilation, kernel_size, output_padding, strict=True)
    size = tuple(
        (length - 1) * step - sum(sides) + spread * (taps - 1) + extra + 1
        for length, step, sides, spread, taps, extra in axes
    )
    for length in size:
        require(
            length >= 1,
            lambda: f"the output must not be empty, got {size[0]} x {size[1]} for input {tuple(input_shape)}",
        )
    return stride, pads, output_padding, dilation, size


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
    # Dynamo of PyTorch 2.10 does not take sym_max of two numbers, and makes sym_max of max where a size is a symbol.
    return max(total, 0) if torch.compiler.is_dynamo_compiling() else torch.sym_max(total, 0)


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


def check_tensors(input: Tensor, **others: Tensor | None) -> None:
    """Raises RuntimeError unless every other tensor that is there, by its name, has the input's dtype and device."""
    dtype, device = input.dtype, input.device
    for name, tensor in others.items():
        if tensor is None:
            continue
        if tensor.dtype != dtype:
            raise RuntimeError(f"{name} must have the input's dtype {dtype}, got {tensor.dtype}")
        if tensor.device != device:
            raise RuntimeError(f"{name} must be on the input's device {device}, got {tensor.device}")
