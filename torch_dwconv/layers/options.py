"""The options of layers: what a constructor takes, and what a call makes of the attributes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..functional import convolution


def per_side(padding) -> tuple[tuple[int, int], tuple[int, int]] | None:
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


def check_channels(in_channels: int, out_channels: int, groups: int | None) -> None:
    if groups not in (None, in_channels):
        raise ValueError(f"groups must be None or in_channels={in_channels}, got {groups}")
    if in_channels <= 0:
        raise ValueError(f"in_channels must be positive, got {in_channels}")
    if out_channels <= 0 or out_channels % in_channels:
        raise ValueError(f"out_channels must be a positive multiple of in_channels={in_channels}, got {out_channels}")


# A layer's `_reversed_padding_repeated_twice` where it is constructed with 'same' and a stride.
BY_SIZE = [-1]  # not empty: TorchScript would not know what of


def pad(layer: nn.Conv1d | nn.Conv2d, input: Tensor, weight: Tensor, stride, padding, dilation) -> Tensor:
    """(..., H, W), padded as the layer's `padding_mode` says.

    nn.Conv2d pads then by what `padding` was when it was constructed, `_reversed_padding_repeated_twice`. Padding that
    nn.Conv2d does not have is read from the attribute: of each side, and BY_SIZE.
    """
    pads = layer._reversed_padding_repeated_twice
    if pads == BY_SIZE or (isinstance(padding, (tuple, list)) and isinstance(padding[-1], (tuple, list))):
        return convolution.pad_by_sides(input, weight.shape, stride, padding, dilation, layer.padding_mode)[0]
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
