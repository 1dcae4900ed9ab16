"""Batching rules, for torch.vmap.

Channels do not mix in a depthwise convolution. So a batch of problems is one problem with the batch folded into the
channels, or into N, with one filter for all of it, where the weight and the bias are not batched.
"""

import torch
from torch import Tensor

from .schemas import FORWARD, GRAD_INPUT, GRAD_WEIGHT


def fold(tensor: Tensor, in_dim: int | None, batch_size: int, dim: int) -> Tensor:
    """Merges the batch dimension into `dim`, as its outer part; a tensor without one is repeated."""
    tensor = tensor.expand(batch_size, *tensor.shape) if in_dim is None else tensor.movedim(in_dim, 0)
    return tensor.movedim(0, dim).flatten(dim, dim + 1)


def unfold(tensor: Tensor, batch_size: int, dim: int) -> Tensor:
    return tensor.unflatten(dim, (batch_size, tensor.shape[dim] // max(batch_size, 1)))


@torch.library.register_vmap(FORWARD)
def _vmap_forward(info, in_dims, input, weight, bias, *sizes):
    batch_size = info.batch_size
    input_dim, weight_dim, bias_dim = in_dims[:3]
    if weight_dim is None and bias_dim is None:
        output = FORWARD(fold(input, input_dim, batch_size, 0), weight, bias, *sizes)
        return unfold(output, batch_size, 0), 0
    input = fold(input, input_dim, batch_size, 1)
    weight = fold(weight, weight_dim, batch_size, 0)
    bias = None if bias is None else fold(bias, bias_dim, batch_size, 0)
    return unfold(FORWARD(input, weight, bias, *sizes), batch_size, 1), 1


@torch.library.register_vmap(GRAD_INPUT)
def _vmap_grad_input(info, in_dims, grad_output, weight, in_channels, *sizes):
    batch_size = info.batch_size
    grad_output_dim, weight_dim = in_dims[:2]
    if weight_dim is None:
        grad_input = GRAD_INPUT(fold(grad_output, grad_output_dim, batch_size, 0), weight, in_channels, *sizes)
        return unfold(grad_input, batch_size, 0), 0
    grad_output = fold(grad_output, grad_output_dim, batch_size, 1)
    weight = fold(weight, weight_dim, batch_size, 0)
    return unfold(GRAD_INPUT(grad_output, weight, in_channels * batch_size, *sizes), batch_size, 1), 1


@torch.library.register_vmap(GRAD_WEIGHT)
def _vmap_grad_weight(info, in_dims, input, grad_output, *sizes):
    batch_size = info.batch_size
    input = fold(input, in_dims[0], batch_size, 1)
    grad_output = fold(grad_output, in_dims[1], batch_size, 1)
    grad_weight, grad_bias = GRAD_WEIGHT(input, grad_output, *sizes)
    with_bias = sizes[-2]
    if with_bias:
        return (unfold(grad_weight, batch_size, 0), unfold(grad_bias, batch_size, 0)), (0, 0)
    return (unfold(grad_weight, batch_size, 0), grad_bias), (0, None)
