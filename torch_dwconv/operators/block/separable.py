"""A depthwise convolution and the 1x1 convolution behind it as one block, for plain tensors without a gradient."""

import functools
import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from ..calls import below_autograd
from ..eager import Plan
from ..snapshot import Snapshot
from . import BLOCK
from .packing import packed
from .steps import DENSE, DEPTHWISE, Step, encoded

_LEAST_WORK = 2**23  # multiply-adds; below, to look at the weights takes longer than is gained


class _Known(NamedTuple):
    """A pointwise weight and bias, and what was made of them when they were seen for the second time."""

    snapshot: Snapshot
    layout: tuple
    constants: list[Tensor] | None


_known: dict[int, _Known] = {}  # by the identity of the weight, or of the tensor that it is a view of


def separable(
    input: Tensor, depthwise_weight: Tensor, pointwise_weight: Tensor, bias: Tensor | None, plan: Plan
) -> Tensor | None:
    """Both convolutions in one call; None where two are better, or right.

    It takes 4-D float32 tensors on a CPU that need no gradient, and an input in channels_last. For MobileNetV1's layers
    of stride 1 two calls took 1.03 to 1.41 times as long with one image, 0.99 to 2.36 times with 16 (one thread,
    Sapphire Rapids, 2026-11-30). Contiguous ones would mostly be slower, and so would bfloat16 where oneDNN has AMX.
    Packing a weight takes as long as a layer of 7x7 pixels, so it is done for one that is seen unchanged twice.
    """
    if not input.is_cpu or input.dtype != torch.float32 or not plan.forward[-1] or input.is_contiguous():
        return None
    if input.shape[0] * plan.forward[0] * plan.forward[1] * pointwise_weight.numel() < _LEAST_WORK:
        return None
    if depthwise_weight.dtype != input.dtype or not depthwise_weight.is_cpu:
        return None  # an error, which the two calls say
    steps = _steps(plan.forward, tuple(input.shape[2:]), tuple(depthwise_weight.shape), pointwise_weight.shape[0])
    if steps is None:
        return None
    constants = _packed_once(pointwise_weight, bias)
    if constants is None:
        return None
    zeros = depthwise_weight.new_zeros(depthwise_weight.shape[0])
    dense = depthwise_weight.contiguous()
    return below_autograd(BLOCK, input, [dense, zeros, *constants], None, steps, 0.0)


@functools.lru_cache(maxsize=1024)
def _steps(sizes: tuple, input_hw: tuple, weight_shape: tuple, outputs: int) -> list[int] | None:
    """The block's steps; None for a convolution that is none of a block's."""
    out_h, out_w, stride_h, stride_w, top, left, dilation_h, dilation_w, _ = sizes
    reach = dilation_h * (weight_shape[2] - 1), dilation_w * (weight_shape[3] - 1)
    behind = [
        max(0, (out - 1) * stride + far + 1 - size - before)
        for out, stride, far, size, before in zip(
            (out_h, out_w), (stride_h, stride_w), reach, input_hw, (top, left), strict=True
        )
    ]
    if not out_h or not out_w or any(pad > far for pad, far in zip((top, left, *behind), reach * 2, strict=True)):
        return None
    geometry = (*weight_shape[2:], stride_h, stride_w, dilation_h, dilation_w, top, left, *behind, 0)
    return encoded([Step(DEPTHWISE, 0, weight_shape[0], *geometry), Step(DENSE, 0, outputs)])


def _packed_once(weight: Tensor, bias: Tensor | None) -> list[Tensor] | None:
    """The weight packed and the bias in float32, made when both are seen for the second time as they are."""
    operands = [weight] if bias is None else [weight, bias]
    if any(operand.is_inference() for operand in operands):
        return None  # nothing tells of changes
    owner = weight if weight._base is None else weight._base
    key, layout = id(owner), (weight.dtype, weight.shape, weight.stride(), None if bias is None else bias.stride())
    known = _known.get(key)
    same = known is not None and known.layout == layout and known.snapshot.shows(operands)
    if not same or known is None:
        if known is None:
            weakref.finalize(owner, _known.pop, key, None).atexit = False
        _known[key] = _Known(Snapshot(operands), layout, None)
        return None
    if known.constants is None:
        with torch.inference_mode(False), torch.no_grad():
            offset = weight.new_zeros(weight.shape[0]) if bias is None else bias
            constants = [packed(weight.detach()), offset.detach().to(torch.float32, copy=True)]
        _known[key] = known = known._replace(constants=constants)
    return known.constants
