"""The operator of a block: a chain of convolutions and what stands between them, for inference.

    block(input, constants, residual?, steps, epsilon=0) -> output

input (N, C, H, W) in any layout, output (N, O, OH, OW) in channels_last, and of the sizes N, H and W nothing is known
before the call. `steps` are the integers of a list of `Step` (steps.py). `constants` are those of the steps, one after
the other; w of a dense step is packed (packing.py), and biases of dense steps are float32 whatever the dtype is:

    dense           w (O, C, KH, KW), bias (O,)          activation(convolution + bias)
    depthwise       w (C*M, 1, KH, KW), bias (C*M,)      the same with groups=C
    layer_norm      none                                 (x - mean) / sqrt(variance + epsilon) over channels
    squeeze_excite  w1 (S, C, 1, 1), bias1 (S,),         x * gate(w2 activation(w1 mean(x) + bias1) + bias2)
                    w2 (C, S, 1, 1), bias2 (C,)
    mean            none                                 over H and W, which stay as 1

A residual, of the output's size, is added in the last step, which is dense then, before its activation. What lies
between two steps is rounded to the dtype, sums are float32. Where something may be differentiated, or on another device
than the CPU, the block is composed of PyTorch's operators (composed.py).
"""

import torch
from torch import Tensor

from ..autograd import library, may_be_differentiated
from ..calls import redispatch
from ..checks import check_operand, check_size, refuse
from ..fake import fake_kernel
from ..vmap import fold, unfold
from .composed import composed
from .packing import packed_size
from .steps import CONSTANTS, DENSE, DEPTHWISE, KINDS, SQUEEZE_EXCITE, decoded

library.impl("block", composed, "CUDA")

BLOCK = torch.ops.torch_dwconv.block.default


def _check(input, constants, residual, steps, epsilon=0.0) -> None:
    check_operand("input", input, input, 4)
    chain = decoded(steps)
    wanted = sum(CONSTANTS[step.kind] for step in chain)
    refuse(len(constants) != wanted, f"constants must be {wanted} tensors, got {len(constants)}")
    channels, rest = input.shape[1], [*constants]
    for step in chain:
        own, rest = rest[: CONSTANTS[step.kind]], rest[CONSTANTS[step.kind] :]
        pairs = [(step.channels, channels), (channels, step.channels)] if step.kind == SQUEEZE_EXCITE else []
        if step.kind == DENSE:
            size = packed_size(input.dtype, step.channels, channels, step.kernel_h, step.kernel_w, step.dilation_w)
            _check_pair(KINDS[step.kind], own, size, step.channels)
        elif step.kind == DEPTHWISE:
            refuse(step.channels % channels != 0, f"{step.channels} channels are no multiple of the {channels} before")
            _check_pair(KINDS[step.kind], own, (step.channels, 1, step.kernel_h, step.kernel_w), step.channels)
        for at, (outputs, inputs) in enumerate(pairs):
            size = packed_size(input.dtype, outputs, inputs, 1, 1)
            _check_pair(KINDS[step.kind], own[2 * at : 2 * at + 2], size, outputs)
        channels = step.out_channels(channels)
    if residual is not None:
        refuse(chain[-1].kind != DENSE, f"a residual needs a dense step at the end, not {KINDS[chain[-1].kind]}")
        check_operand("residual", residual, input, 4)
        check_size("residual", residual, _output_size(input, chain))


def _check_pair(kind: str, operands, weight_size: tuple, outputs) -> None:
    weight, bias = operands
    refuse(tuple(weight.shape) != weight_size, f"the weight of {kind} must be {weight_size}, got {tuple(weight.shape)}")
    refuse(tuple(bias.shape) != (outputs,), f"the bias of {kind} must be ({outputs},), got {tuple(bias.shape)}")


def _output_size(input, chain) -> tuple:
    batch, channels, height, width = input.shape
    for step in chain:
        height, width = step.output_size(height, width)
        channels = step.out_channels(channels)
    return batch, channels, height, width


@fake_kernel(BLOCK, _check)
def _block(input, constants, residual, steps, epsilon=0.0):
    size = _output_size(input, decoded(steps))
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


def _autograd_kernel(keyset, input, constants, residual, steps, epsilon=0.0) -> Tensor:
    if may_be_differentiated((input, *constants, *(() if residual is None else (residual,)))):
        return composed(input, constants, residual, steps, epsilon)
    return redispatch(BLOCK, keyset, (input, constants, residual, steps, epsilon))


library.impl("block", _autograd_kernel, "Autograd", with_keyset=True)


@torch.library.register_vmap(BLOCK)
def _vmap(info, in_dims, input, constants, residual, steps, epsilon=0.0):
    """A batch of inputs for one chain is a larger N; each of several chains is a call."""
    input_dim, constant_dims, residual_dim = in_dims[:3]
    if all(dim is None for dim in constant_dims):
        input = fold(input, input_dim, info.batch_size, 0)
        residual = None if residual is None else fold(residual, residual_dim, info.batch_size, 0)
        return unfold(BLOCK(input, constants, residual, steps, epsilon), info.batch_size, 0), 0

    def at(index, tensor, dim):
        return tensor if tensor is None or dim is None else tensor.select(dim, index)

    outputs = []
    for index in range(info.batch_size):
        own = [at(index, constant, dim) for constant, dim in zip(constants, constant_dims, strict=True)]
        operands = at(index, input, input_dim), own, at(index, residual, residual_dim)
        outputs.append(BLOCK(*operands, steps, epsilon))
    return torch.stack(outputs), 0
