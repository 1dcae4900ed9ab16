"""Dense weights in the order in which kernels read them: the same bytes on every machine, and views of torch only.

Sixteen output channels lie together, a panel; the taps of an output are counted row by row of the filter, then column,
then input channel. float32 and float16: (panels, taps, 16). bfloat16: two taps lie together for the instruction that
multiplies pairs, (panels, pairs, 16, 2). Pairs do not reach from one segment of the taps, which is what an image in
channels_last has in a row, to the next; the last of an odd segment is filled up with a zero. A segment is a row of the
filter, or a single tap of all channels if the filter is dilated along the width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LANES = 16  # output channels of a panel


def packed(weight: Tensor, dilation_w: int = 1) -> Tensor:
    """A weight (O, C, KH, KW) of the dtype in which the block computes, packed."""
    outputs, channels, kernel_h, kernel_w = weight.shape
    panels = -(-outputs // LANES)
    rows = F.pad(weight.permute(0, 2, 3, 1).reshape(outputs, -1), (0, 0, 0, panels * LANES - outputs))
    if weight.dtype != torch.bfloat16:
        return rows.reshape(panels, LANES, -1).permute(0, 2, 1).contiguous()
    segments, length = _segments(channels, kernel_h, kernel_w, dilation_w)
    rows = F.pad(rows.reshape(panels * LANES, segments, length), (0, length % 2))
    pairs = rows.reshape(panels, LANES, segments * -(-length // 2), 2)
    return pairs.permute(0, 2, 1, 3).contiguous()


def unpacked(weight: Tensor, outputs, channels, kernel_h: int, kernel_w: int, dilation_w: int = 1) -> Tensor:
    """The weight (O, C, KH, KW) of which `weight` was packed."""
    if weight.dim() == 3:
        rows = weight.permute(0, 2, 1).reshape(-1, kernel_h * kernel_w * channels)
    else:
        segments, length = _segments(channels, kernel_h, kernel_w, dilation_w)
        pairs = weight.permute(0, 2, 1, 3).reshape(weight.shape[0] * LANES, segments, length + length % 2)
        rows = pairs[:, :, :length].reshape(-1, segments * length)
    return rows[:outputs].reshape(outputs, kernel_h, kernel_w, channels).permute(0, 3, 1, 2)


def packed_size(dtype: torch.dtype, outputs, channels, kernel_h: int, kernel_w: int, dilation_w: int = 1) -> tuple:
    """The size of what `packed` returns."""
    panels = -(-outputs // LANES)
    if dtype != torch.bfloat16:
        return panels, kernel_h * kernel_w * channels, LANES
    segments, length = _segments(channels, kernel_h, kernel_w, dilation_w)
    return panels, segments * (-(-length // 2)), LANES, 2


def _segments(channels, kernel_h: int, kernel_w: int, dilation_w: int) -> tuple:
    """How many segments the taps have, and the taps of one."""
    if dilation_w > 1 and kernel_w > 1:
        return kernel_h * kernel_w, channels
    return kernel_h, kernel_w * channels
