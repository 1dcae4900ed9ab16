"""FLOPs of a convolution: formulas, the operators' entries in FlopCounterMode, and a table of a model's layers.

A multiply-add is two operations. Taps in the padding count and bias does not, as in torch.utils.flop_counter. The
formulas are those of MobileNets (Howard et al., 2017, https://arxiv.org/abs/1704.04861, section 3.1) with a batch,
rectangular sizes and a channel multiplier. ``python -m torch_dwconv.flops MODEL`` applies them to a model's layers.
"""

from torch.utils import flop_counter

from ..operators import sequence
from ..operators.schemas import BACKWARD, FORWARD, GRAD_INPUT, GRAD_WEIGHT


def standard(batch_size: int, in_channels: int, out_channels: int, output_size, kernel_size) -> int:
    """FLOPs of an ordinary convolution: ``2 * N * C * OH * OW * KH * KW * O``.

    Args:
        batch_size, in_channels, out_channels: N, C and O.
        output_size: (OH, OW).
        kernel_size: (KH, KW).

    >>> standard(1, 32, 64, (112, 112), (3, 3))
    462422016
    """
    return 2 * batch_size * in_channels * _area(output_size) * _area(kernel_size) * out_channels


def depthwise(batch_size: int, in_channels: int, output_size, kernel_size, channel_multiplier: int = 1) -> int:
    """FLOPs of a depthwise convolution: ``2 * N * C * M * OH * OW * KH * KW``.

    Each of the two gradients costs the same: every product of an input, a weight and an output gradient that the
    output sums over the weights' taps is summed once more, over other indices.

    >>> depthwise(1, 32, (112, 112), (3, 3))
    7225344
    """
    return 2 * batch_size * in_channels * channel_multiplier * _area(output_size) * _area(kernel_size)


def separable(
    batch_size: int, in_channels: int, out_channels: int, output_size, kernel_size, channel_multiplier: int = 1
) -> int:
    """FLOPs of a depthwise convolution and the 1x1 that follows: ``2 * N * C * M * OH * OW * (KH * KW + O)``.

    Against `standard` that is ``M * (1 / O + 1 / (KH * KW))`` of the work.

    >>> separable(1, 32, 64, (112, 112), (3, 3))
    58605568
    """
    pointwise = 2 * batch_size * in_channels * channel_multiplier * _area(output_size) * out_channels
    return depthwise(batch_size, in_channels, output_size, kernel_size, channel_multiplier) + pointwise


def _area(size) -> int:
    height, width = size
    return height * width


# For FlopCounterMode; tensors arrive as their sizes. PyTorch's own formula counts `groups` times too much for the
# weight gradient of a grouped convolution.


@flop_counter.register_flop_formula(FORWARD.overloadpacket)
def _forward(input, weight, *_, out_shape, **__) -> int:
    return depthwise(out_shape[0], out_shape[1], out_shape[2:], weight[2:])


@flop_counter.register_flop_formula(GRAD_INPUT.overloadpacket)
def _grad_input(grad_output, weight, *_, **__) -> int:
    return depthwise(grad_output[0], grad_output[1], grad_output[2:], weight[2:])


@flop_counter.register_flop_formula(GRAD_WEIGHT.overloadpacket)
def _grad_weight(input, grad_output, kernel_h, kernel_w, *_, **__) -> int:
    return depthwise(grad_output[0], grad_output[1], grad_output[2:], (kernel_h, kernel_w))


@flop_counter.register_flop_formula(BACKWARD.overloadpacket)
def _backward(grad_output, input, weight, *_, **__) -> int:
    return 2 * _grad_input(grad_output, weight)


@flop_counter.register_flop_formula(sequence.CAUSAL_CONV1D.overloadpacket)
def _causal_conv1d(x, weight, *_, **__) -> int:
    batch_size, channels, length = x
    return depthwise(batch_size, channels, (1, length), (1, weight[1]))


@flop_counter.register_flop_formula(sequence.BACKWARD.overloadpacket)
def _causal_conv1d_backward(grad_output, x, weight, *_, **__) -> int:
    return 2 * _causal_conv1d(x, weight)


@flop_counter.register_flop_formula(sequence.UPDATE.overloadpacket)
def _causal_conv1d_update(x, conv_state, weight, *_, **__) -> int:
    return _causal_conv1d((*x, 1)[:3], weight)
