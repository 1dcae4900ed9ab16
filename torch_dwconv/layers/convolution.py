"""DepthwiseConv2d and DepthwiseConv1d: the layers, drop-ins for nn.Conv2d and nn.Conv1d with ``groups=in_channels``."""

import functools
import sys
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.common_types import _size_1_t, _size_2_t
from torch.nn.modules.utils import _pair, _single

from ..functional import convolution as functional
from ..functional import rules, scripted
from ..functional.convolution import Padding

_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def leaf(layer: nn.Module, otherwise: Callable, input: torch.fx.Proxy, *rest):
    """The call of a layer as torch.fx.symbolic_trace records those of torch.nn's: a node of its own, `call_module`.

    `otherwise` is what the layer does. It is recorded where the tracer makes no leaf of PyTorch's layers either, and
    where the layer has hooks: the tracer records what they do, since it knows of torch.nn's leaves only.
    """
    tracer: Any = input.tracer
    path = getattr(tracer, "path_of_module", lambda layer: "")(layer)
    if path and tracer.is_leaf_module(_any_layer_of_torch(), path) and not _has_forward_hooks(layer):
        return tracer.create_proxy("call_module", path, (input, *rest), {})
    return otherwise(input, *rest)


@functools.cache
def _any_layer_of_torch() -> nn.Module:
    return nn.Conv2d(1, 1, 1, device="meta")


def _has_forward_hooks(layer: nn.Module) -> bool:
    everywhere = nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks
    return bool(layer._forward_hooks or layer._forward_pre_hooks or everywhere)


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


# What tools would do that know nn.Conv2d's attributes and not `activation`, by the module that does it.
_LOSSY_TOOLS = {
    "torch.utils.mkldnn": "to_mkldnn would drop the activation",
    "torch.nn.utils.fusion": "fuse_conv_bn_eval would put the BatchNorm before the activation",
}


def _refuse_lossy_tools(layer: nn.Module) -> None:
    """Raises RuntimeError if what calls the method that calls this is one of _LOSSY_TOOLS.

    Nothing else tells a layer what is done with it. Those tools call these methods, and a model at work does not.
    """
    if loss := _LOSSY_TOOLS.get(sys._getframe(2).f_globals.get("__name__", "")):
        raise RuntimeError(f"{loss} of {layer}")


# A layer's `_reversed_padding_repeated_twice` where it is constructed with 'same' and a stride.
BY_SIZE = [-1]  # not empty: TorchScript would not know what of


def _pad(layer: nn.Conv1d | nn.Conv2d, input: Tensor, weight: Tensor, stride, padding, dilation) -> Tensor:
    """(..., H, W), padded as the layer's `padding_mode` says.

    nn.Conv2d pads then by what `padding` was when it was constructed, `_reversed_padding_repeated_twice`. Padding that
    nn.Conv2d does not have is read from the attribute: of each side, and BY_SIZE.
    """
    pads = layer._reversed_padding_repeated_twice
    if pads == BY_SIZE or (isinstance(padding, (tuple, list)) and isinstance(padding[-1], (tuple, list))):
        return functional.pad_by_sides(input, weight.shape, stride, padding, dilation, layer.padding_mode)[0]
    return F.pad(input, pads if len(pads) == 4 else [*pads, 0, 0], mode=layer.padding_mode)


def check_row(input: Tensor) -> None:
    if not isinstance(input, torch.fx.Proxy) and input.dim() not in (2, 3):
        raise RuntimeError(f"input must be (N, C, L) or (C, L), got {tuple(input.shape)}")


def with_height(option, of_height: int):
    """An option of a 1-D layer as one of a layer of height 1, in the forms that nn.Conv1d takes and (left, right)."""
    if type(option) is tuple and len(option) == 1:
        return (of_height, *option)
    if isinstance(option, str):
        return option
    option = (option,) if isinstance(option, int) else tuple(option)
    return ((of_height, of_height), option) if len(option) == 2 else (of_height, *option)


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
        RuntimeError: of a call with an input that does not fit the layer, or has other channels than its own.

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
            rules.check_activation(activation)
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
            self._reversed_padding_repeated_twice = [*sides[1], *sides[0]] if sides else [*BY_SIZE]

    def named_children(self):
        if self.activation is not None:
            _refuse_lossy_tools(self)
        return super().named_children()

    def __setattr__(self, name: str, value) -> None:
        if name == "weight" and self.activation is not None:
            _refuse_lossy_tools(self)
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")

    def forward(self, input: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102  (a condition of its own, below which nothing is scripted)
            if isinstance(input, torch.fx.Proxy):
                return leaf(self, super().forward, input)
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript knows PyTorch's operators only
            return scripted.convolve(
                input,
                weight,
                bias,
                self.stride,
                self.padding,
                self.dilation,
                self.groups,
                self.padding_mode,
                self._reversed_padding_repeated_twice,
                self.activation,
            )
        else:
            padding: Padding = self.padding
            if self.padding_mode != "zeros":
                input, padding = _pad(self, input, weight, self.stride, padding, self.dilation), 0
            return functional.convolve(
                input, weight, bias, self.stride, padding, self.dilation, self.activation, self.groups
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
        input (N, C, L) or (C, L); output (N, out_channels, OL) or (out_channels, OL), contiguous as nn.Conv1d's, with
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
            self._reversed_padding_repeated_twice = [*padding] if isinstance(padding, tuple) else [*BY_SIZE]

    def forward(self, input: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102  (a condition of its own, below which nothing is scripted)
            if isinstance(input, torch.fx.Proxy):
                return leaf(self, super().forward, input)
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():
            return scripted.convolve_1d(
                input,
                weight,
                bias,
                self.stride,
                self.padding,
                self.dilation,
                self.groups,
                self.padding_mode,
                self._reversed_padding_repeated_twice,
            )
        else:
            check_row(input)
            # nn.Conv1d computes what is not contiguous as if it were, so its output is contiguous.
            input, weight = input.contiguous().unsqueeze(-2), weight.unsqueeze(-2)
            padding = with_height(self.padding, 0)
            stride, dilation = with_height(self.stride, 1), with_height(self.dilation, 1)
            if self.padding_mode != "zeros":
                input, padding = _pad(self, input, weight, stride, padding, dilation), 0
            return functional.convolve(input, weight, bias, stride, padding, dilation, None, self.groups, row=True)
