"""DepthwiseConv2d and DepthwiseConv1d: the layers, drop-ins for nn.Conv2d and nn.Conv1d with ``groups=in_channels``."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.common_types import _size_1_t, _size_2_t
from torch.nn.modules.utils import _pair, _single

from . import functional
from .functional import Padding

_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


@torch.fx.wrap  # 'same' reads the input's size, which a traced input does not have yet
def _pad(input: Tensor, padding, kernel_size, stride, dilation, mode: str) -> Tensor:
    """Pads (..., H, W) by the layer's padding, resolved for this input's size, in F.pad's `mode`."""
    top, bottom, left, right = functional.resolve_padding(padding, input.shape[-2:], kernel_size, stride, dilation)
    return F.pad(input, (left, right, top, bottom), mode=mode)


def _scripted_activation(output: Tensor, activation: str) -> Tensor:
    """library.ACTIVATIONS in what TorchScript understands."""
    if activation == "relu":
        output = F.relu(output)
    elif activation == "relu6":
        output = F.relu6(output)
    elif activation == "hardswish":
        output = F.hardswish(output)
    elif activation == "silu":
        output = F.silu(output)
    else:
        output = F.gelu(output, approximate="tanh" if activation == "gelu_tanh" else "none")
    return output


def _scripted_same_pads(
    input: Tensor, kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> list[int]:
    """'same' in what TorchScript understands, as F.pad's (left, right, top, bottom)."""
    pads = [0, 0, 0, 0]
    for axis in range(2):
        reach = dilation[axis] * (kernel_size[axis] - 1)
        total = reach
        if stride[axis] != 1:
            size = input.shape[axis - 2]
            outputs = (size + stride[axis] - 1) // stride[axis]
            total = max((outputs - 1) * stride[axis] + reach + 1 - size, 0)
        pads[2 - 2 * axis] = total // 2
        pads[3 - 2 * axis] = total - total // 2
    return pads


def _per_side(padding) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """((top, bottom), (left, right)) if that is how `padding` is written, None if it is one of nn.Conv2d's forms."""
    if not isinstance(padding, (tuple, list)) or not any(isinstance(side, (tuple, list)) for side in padding):
        return None
    try:
        (top, bottom), (left, right) = padding
    except (TypeError, ValueError):
        raise ValueError(
            f"padding must be an int, (h, w), ((top, bottom), (left, right)), 'valid' or 'same', got {padding!r}"
        ) from None
    return (top, bottom), (left, right)


def _check_channels(in_channels: int, out_channels: int, groups: int | None) -> None:
    if groups not in (None, in_channels):
        raise ValueError(f"groups must be None or in_channels={in_channels}, got {groups}")
    if in_channels <= 0:
        raise ValueError(f"in_channels must be positive, got {in_channels}")
    if out_channels <= 0 or out_channels % in_channels:
        raise ValueError(f"out_channels must be a positive multiple of in_channels={in_channels}, got {out_channels}")


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise 2-D convolution: every input channel has its own `channel_multiplier` filters.

    An ``nn.Conv2d`` with ``groups=in_channels``: the same arguments in the same order, the same attributes,
    initialisation and state_dict, so the weights of either load into the other. Output channel ``c * M + m`` is filter
    ``m`` of input channel ``c``, where ``M = out_channels / in_channels``. It can do three things that nn.Conv2d
    cannot: pad each side by its own amount, ``padding='same'`` with a stride, and an activation.

    Args:
        in_channels (int): channels of the input, C.
        out_channels (int): channels of the output, a multiple of C.
        kernel_size (int or (int, int)): height and width of the filters.
        stride (int or (int, int)): default 1.
        padding (int, (h, w), ((top, bottom), (left, right)), 'valid' or 'same'): default 0. With a stride of 1 'same'
            is PyTorch's; with a larger one it is TensorFlow's SAME: output ceil(H / stride_h) x ceil(W / stride_w), the
            odd row and column of padding at the bottom and right.
        dilation (int or (int, int)): distance between the taps of a filter, default 1.
        groups (int, optional): None or `in_channels`, which mean the same.
        bias (bool): adds a learnable bias of shape (out_channels,), default True.
        padding_mode (str): what the padding holds: 'zeros' (default), 'reflect', 'replicate' or 'circular'.
        device, dtype: of the parameters.
        activation (str, optional): applied to the output, as in `depthwise_conv2d`.

    Shape:
        input (N, C, H, W) or (C, H, W); output (N, out_channels, OH, OW) or (out_channels, OH, OW), in channels_last
        memory format when the input or the weight is, where
        ``OH = floor((H + top + bottom - dilation_h * (kernel_h - 1) - 1) / stride_h) + 1`` and OW likewise.
        weight (out_channels, 1, kernel_h, kernel_w), bias (out_channels,).

    Raises:
        ValueError: `groups` is neither None nor `in_channels`; `out_channels` is not a positive multiple of
            `in_channels`; a `padding`, `padding_mode` or `activation` that is none of the above.

    >>> layer = DepthwiseConv2d(32, 64, 3, stride=2, padding="same")
    >>> layer(torch.randn(8, 32, 15, 15)).shape
    torch.Size([8, 64, 8, 8])
    """

    __constants__ = [*nn.Conv2d.__constants__, "activation"]  # noqa: RUF012  (for TorchScript; the base has a list)
    activation: str | None = None  # of the class, so that a converted nn.Conv2d has it too

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: str | _size_2_t | tuple[tuple[int, int], tuple[int, int]] = 0,
        dilation: _size_2_t = 1,
        groups: int | None = None,
        bias: bool = True,
        padding_mode: _PaddingMode = "zeros",
        device=None,
        dtype=None,
        *,
        activation: str | None = None,
    ) -> None:
        _check_channels(in_channels, out_channels, groups)
        if activation is not None:
            functional.check_activation(activation)
            self.activation = activation
        sides = _per_side(padding)
        if sides and sides[0][0] == sides[0][1] and sides[1][0] == sides[1][1]:
            padding, sides = (sides[0][0], sides[1][0]), None
        # The base constructor knows neither of these; the attribute gets its true value below.
        beyond_base = sides is not None or (padding == "same" and any(s != 1 for s in _pair(stride)))
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            "valid" if beyond_base else cast("str | _size_2_t", padding),
            dilation,
            in_channels,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        if beyond_base:
            self.padding = cast(Any, sides or padding)  # the base's type has no sides

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript knows PyTorch's operators only
            pads = [0, 0, 0, 0]
            if isinstance(self.padding, str):
                if self.padding == "same":
                    # TorchScript needs tuples of a known length, which nn.Conv2d's attributes are not in Python.
                    pads = _scripted_same_pads(input, self.kernel_size, self.stride, self.dilation)  # type: ignore[arg-type]
            elif isinstance(self.padding[0], int):
                pads = [self.padding[1], self.padding[1], self.padding[0], self.padding[0]]
            else:
                pads = [self.padding[1][0], self.padding[1][1], self.padding[0][0], self.padding[0][1]]
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            output = F.conv2d(F.pad(input, pads, mode), weight, bias, self.stride, 0, self.dilation, self.groups)
            return output if self.activation is None else _scripted_activation(output, self.activation)
        else:
            padding: Padding = self.padding
            if self.padding_mode != "zeros":
                input = _pad(input, padding, self.kernel_size, self.stride, self.dilation, self.padding_mode)
                padding = 0
            return functional.depthwise_conv2d(
                input, weight, bias, self.stride, padding, self.dilation, activation=self.activation
            )


class DepthwiseConv1d(nn.Conv1d):
    """Depthwise 1-D convolution: an ``nn.Conv1d`` with ``groups=in_channels``, computed as a 2-D layer of height 1.

    Arguments, attributes, initialisation and state_dict are nn.Conv1d's. In addition `padding` may be (left, right),
    with which a causal layer is ``padding=(dilation * (kernel_size - 1), 0)``, and 'same' with a stride, which is
    TensorFlow's SAME: an output of ceil(L / stride), the odd element of padding at the right.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, bias, padding_mode, device, dtype: as in nn.Conv1d;
            `out_channels` is a multiple of `in_channels`.
        padding (int, (left, right), 'valid' or 'same'): default 0.
        groups (int, optional): None or `in_channels`, which mean the same.

    Shape:
        input (N, C, L) or (C, L); output (N, out_channels, OL) or (out_channels, OL), with
        ``OL = floor((L + left + right - dilation * (kernel_size - 1) - 1) / stride) + 1``.
        weight (out_channels, 1, kernel_size), bias (out_channels,).

    Raises:
        ValueError: as `DepthwiseConv2d`.

    >>> causal = DepthwiseConv1d(16, 16, 4, padding=(3, 0))
    >>> causal(torch.randn(2, 16, 100)).shape
    torch.Size([2, 16, 100])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: str | _size_1_t | tuple[int, int] = 0,
        dilation: _size_1_t = 1,
        groups: int | None = None,
        bias: bool = True,
        padding_mode: _PaddingMode = "zeros",
        device=None,
        dtype=None,
    ) -> None:
        _check_channels(in_channels, out_channels, groups)
        if isinstance(padding, (tuple, list)):
            if len(padding) not in (1, 2) or not all(isinstance(side, int) for side in padding):
                raise ValueError(f"padding must be an int, (left, right), 'valid' or 'same', got {padding!r}")
            padding = (padding[0], padding[-1]) if padding[0] != padding[-1] else (padding[0],)
        beyond_base = len(padding) == 2 if isinstance(padding, tuple) else padding == "same" and _single(stride) != (1,)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            "valid" if beyond_base else cast("str | _size_1_t", padding),
            dilation,
            in_channels,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        if beyond_base:
            self.padding = cast("str | tuple[int, ...]", padding)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():
            pads = [0, 0]
            if isinstance(self.padding, str):
                if self.padding == "same":
                    row = input.unsqueeze(-2)
                    pads = _scripted_same_pads(
                        row, (1, self.kernel_size[0]), (1, self.stride[0]), (1, self.dilation[0])
                    )[:2]
            else:
                pads = [self.padding[0], self.padding[-1]]
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            return F.conv1d(F.pad(input, pads, mode), weight, bias, self.stride, 0, self.dilation, self.groups)
        else:
            input, weight = input.unsqueeze(-2), weight.unsqueeze(-2)
            padding: Padding = self.padding
            if not isinstance(self.padding, str):
                padding = ((0, 0), (self.padding[0], self.padding[-1]))
            stride, dilation = (1, *self.stride), (1, *self.dilation)
            if self.padding_mode != "zeros":
                input = _pad(input, padding, (1, *self.kernel_size), stride, dilation, self.padding_mode)
                padding = 0
            return functional.depthwise_conv2d(input, weight, bias, stride, padding, dilation).squeeze(-2)
