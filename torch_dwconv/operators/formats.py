"""Memory formats: one rule for real tensors, fake ones and sizes that are not known yet."""

from torch import Tensor

from .symbolic import is_surely


def suggests_channels_last(tensor: Tensor) -> bool:
    """Whether the strides of a 4-D tensor say channels_last: c10's is_channels_last_strides_2d, which F.conv2d follows.

    Strides decide, those of dimensions of size 1 too, where is_contiguous() would call both formats true: a tensor of
    size (N, C, 1, 1) is channels_last after .to(memory_format=torch.channels_last) and not before.
    """
    return strides_suggest_channels_last(tensor.shape, tensor.stride())


def strides_suggest_channels_last(shape, strides) -> bool:
    """suggests_channels_last for a tensor of this size and these strides."""
    stride_n, stride_c, stride_h, stride_w = strides
    _, channels, height, width = shape
    return (
        is_surely(channels * stride_c <= stride_w)  # first, because it settles the contiguous case
        and is_surely(stride_c != 0)
        and not any(is_surely(size == 0) for size in shape)
        and is_surely(width * stride_w <= stride_h)
        and is_surely(height * stride_h <= stride_n)
        and not is_surely(height * stride_h == stride_c)  # of (N, 1, 1, 1) the strides say nothing
    )
