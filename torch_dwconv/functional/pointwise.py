"""Who computes a pointwise convolution: our kernels where they are faster, otherwise F.conv2d."""

import torch
from torch import Tensor

from ..operators.formats import suggests_channels_last
from ..operators.plain import is_plain

_is_any_autocast_enabled = torch._C._is_any_autocast_enabled  # looked up once: calls are counted in microseconds


def is_ours(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether `operators.pointwise.pointwise` takes a 1x1 convolution of stride 1 without padding, and is faster.

    It takes plain float32 tensors on a CPU that fit together. What does not fit gets F.conv2d's errors by F.conv2d.
    """
    if not is_plain(input, weight, bias) or _is_any_autocast_enabled():
        return False
    if input.dim() != 4 or not (input.dtype == weight.dtype == torch.float32) or not (input.is_cpu and weight.is_cpu):
        return False
    outputs, channels, *kernel_size = weight.shape
    if kernel_size != [1, 1] or input.shape[1] != channels:
        return False
    if bias is not None and not (bias.dtype == torch.float32 and bias.is_cpu and bias.shape == (outputs,)):
        return False
    images, _, height, width = input.shape
    if height * width < _FEWEST_PIXELS or images * height * width * channels * outputs < _LEAST_WORK:
        return False
    if suggests_channels_last(input) or suggests_channels_last(weight):
        return channels > _FEW_CHANNELS or images * height * width * outputs < _LARGE_OUTPUT
    return height * width >= _SMALL_PLANE or channels * outputs < _LARGE_WEIGHT


# Where F.conv2d is as fast or faster (two threads, Sapphire Rapids, 2026-11-30): calls that take some microseconds, and
_FEWEST_PIXELS = 16  # of an image
_LEAST_WORK = 1 << 18  # multiply-adds
# 16 to 96 channels of 112x112, batch 16, channels last: the output in 1.0 times PyTorch's time, the gradients in 1.2.
_FEW_CHANNELS, _LARGE_OUTPUT = 16, 1 << 23
# 320 to 1280 channels of 7x7, contiguous, 1.1 to 1.2 times; 960 to 320 are even.
_SMALL_PLANE, _LARGE_WEIGHT = 64, 360_000
