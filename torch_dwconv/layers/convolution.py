"""DepthwiseConv2d and DepthwiseConv1d: the layers, drop-ins for nn.Conv2d and nn.Conv1d with ``groups=in_channels``."""

import sys
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.common_types import _size_1_t, _size_2_t
from torch.nn.modules.utils import _pair, _single

from ..functional import convolution, rules, scripted
from ..functional.rules import Padding
from . import streaming
from .options import BY_SIZE, check_channels, check_row, pad, per_side, with_height
from .tracing import leaf

_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


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


class _TracedAsLeaf(nn.Module):
    """The forward of nn.Conv1d and nn.Conv2d. torch.fx.symbolic_trace records a call as one node, as it does theirs."""

    if TYPE_CHECKING:
        weight: Tensor
        bias: Tensor | None

        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...

    def forward(self, input: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102  (a condition of its own, below which nothing is scripted)
            if isinstance(input, torch.fx.Proxy):
                return leaf(self, super().forward, input)
        return self._conv_forward(input, self.weight, self.bias)


class _WithActivation(_TracedAsLeaf):
    """A layer that may have an activation, which PyTorch's tools do not know."""

    activation: str | None

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


class DepthwiseConv2d(_WithActivation, nn.Conv2d):
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
        check_channels(in_channels, out_channels, groups)
        if activation is not None:
            rules.check_activation(activation)
            self.activation = activation
        sides = per_side(padding)
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
                input, padding = pad(self, input, weight, self.stride, padding, self.dilation), 0
            return convolution.convolve(
                input, weight, bias, self.stride, padding, self.dilation, self.activation, self.groups
            )


class DepthwiseConv1d(_WithActivation, nn.Conv1d):
    """Depthwise 1-D convolution: an ``nn.Conv1d`` with ``groups=in_channels``, computed as a 2-D layer of height 1.

    Arguments, attributes, initialisation and state_dict are nn.Conv1d's. In addition `padding` may be (left, right),
    and 'same' with a stride, which is TensorFlow's SAME: an output of ceil(L / stride), the odd element of padding at
    the right. And the layer may have an activation.

    A causal layer is one with ``padding=(R, 0)``, where ``R = dilation * (kernel_size - 1)``. With a stride of 1,
    ``out_channels=in_channels`` and zeros for padding it takes long sequences piece by piece: called with
    `return_final_states`, it returns the last R positions too, which the next call takes as `initial_states`.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, bias, padding_mode, device, dtype: as in nn.Conv1d;
            `out_channels` is a multiple of `in_channels`.
        padding (int, (left, right), 'valid' or 'same'): default 0.
        groups (int, optional): None or `in_channels`, which mean the same.
        activation (str, optional): applied to the output, as in `depthwise_conv2d`.

    Args of a call:
        input: (N, C, L) or (C, L).
        initial_states (Tensor, optional): (N, C, R) or (C, R) in the dtype of `input`, the positions before the first;
            default zeros. It has a gradient as `input` has.
        return_final_states (bool): returns (output, final states) instead of the output. The final states are the last
            R positions of the initial states and `input`, in the shape of the initial states. TorchScript has neither.

    Shape:
        input (N, C, L) or (C, L); output (N, out_channels, OL) or (out_channels, OL), contiguous as nn.Conv1d's, with
        ``OL = floor((L + left + right - dilation * (kernel_size - 1) - 1) / stride) + 1``.
        weight (out_channels, 1, kernel_size), bias (out_channels,).

    Raises:
        ValueError: as `DepthwiseConv2d`.
        RuntimeError: of a call with an input or states that do not fit the layer, or with states if it is not causal.

    >>> causal = DepthwiseConv1d(16, 16, 4, padding=(3, 0), activation="silu")
    >>> first, second = torch.randn(2, 16, 100).split([60, 40], dim=2)
    >>> output, states = causal(first, return_final_states=True)
    >>> causal(second, states).shape
    torch.Size([2, 16, 40])
    """

    __constants__ = [*nn.Conv1d.__constants__, "activation"]  # noqa: RUF012  (for TorchScript; the base has a list)
    activation: str | None = None  # of the class, so that a converted nn.Conv1d has it too

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
        *,
        activation: str | None = None,
    ) -> None:
        check_channels(in_channels, out_channels, groups)
        if activation is not None:
            rules.check_activation(activation)
            self.activation = activation
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

    def forward(self, input: Tensor, initial_states: Tensor | None = None, return_final_states: bool = False):
        if torch.jit.is_scripting():
            if initial_states is not None or return_final_states:
                raise RuntimeError("a layer in TorchScript takes and returns no states")
            return self._conv_forward(input, self.weight, self.bias)
        else:
            if isinstance(return_final_states, torch.fx.Proxy):  # of torch.fx.symbolic_trace(layer)
                input = streaming.without_states(input, initial_states, return_final_states)
                return super().forward(input)
            if initial_states is None and not return_final_states:
                return super().forward(input)
            if isinstance(input, torch.fx.Proxy):
                return leaf(self, self._forward_after, input, initial_states, return_final_states)
            return self._forward_after(input, initial_states, return_final_states)

    def _forward_after(self, input: Tensor, initial_states: Tensor | None, return_final_states: bool):
        return streaming.convolve_after(self, input, self.weight, self.bias, initial_states, return_final_states)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():
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
            check_row(input)
            # nn.Conv1d computes what is not contiguous as if it were, so its output is contiguous.
            input, weight = input.contiguous().unsqueeze(-2), weight.unsqueeze(-2)
            padding = with_height(self.padding, 0)
            stride, dilation = with_height(self.stride, 1), with_height(self.dilation, 1)
            if self.padding_mode != "zeros":
                input, padding = pad(self, input, weight, stride, padding, dilation), 0
            options = stride, padding, dilation, self.activation, self.groups
            if self.activation is None:
                return convolution.convolve(input, weight, bias, *options, row=True)
            return convolution.convolve(input, weight, bias, *options).squeeze(-2)
