"""The operators in terms of PyTorch's own: for exporters and quantisers, which know no others.

Nothing here runs in eager or compiled code. torch.onnx.export finds the decompositions by itself, in PyTorch's table.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch._decomp import meta_table, register_decomposition

from ..operators.batch_norm import BATCH_NORM, BATCH_NORM_BACKWARD, BATCH_NORM_EVAL
from ..operators.batch_norm import composed as batch_norm
from ..operators.block import BLOCK
from ..operators.block.composed import composed
from ..operators.fake import EMPTY_RESULT, FAKE_KERNEL
from ..operators.formats import suggests_channels_last
from ..operators.schemas import BACKWARD, FORWARD, GRAD_INPUT, GRAD_WEIGHT, activation_of
from ..operators.sequence import CAUSAL_CONV1D
from ..operators.sequence.composed import composed as composed_sequence
from ..operators.sequence.composed import laid_out_as
from ..operators.symbolic import is_always, is_surely

aten = torch.ops.aten


def decompositions() -> dict:
    """A decomposition table: this package's operators as aten.convolution and aten.convolution_backward.

    >>> model = DepthwiseConv2d(4, 4, 3, padding="same", stride=2)
    >>> program = torch.export.export(model, (torch.randn(1, 4, 8, 8),))
    >>> program = program.run_decompositions(decompositions())
    >>> [node.target.name() for node in program.graph.nodes if node.op == "call_function"]
    ['aten::constant_pad_nd', 'aten::convolution']

    For PyTorch's core operators as well, add them to its table: ``torch.export.default_decompositions()`` has `update`.
    """
    return dict(_DECOMPOSITIONS)


class Terms(NamedTuple):
    """What a decomposition calls: operators of PyTorch's, at one of the levels that graphs have."""

    convolution: Callable[..., Tensor]  # with the arguments of aten.convolution
    pad: Callable[[Tensor, list], Tensor]


def _layer(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups) -> Tensor:
    if transposed:
        return aten.conv_transpose2d.input(input, weight, bias, stride, padding, output_padding, groups, dilation)
    return aten.conv2d.default(input, weight, bias, stride, padding, dilation, groups)


CORE = Terms(aten.convolution.default, aten.constant_pad_nd.default)
LAYERS = Terms(_layer, aten.pad.default)  # as torch.export records PyTorch's layers

# By the operators' codes, schemas.ACTIVATION_CODES: what PyTorch's modules are in a graph.
_ACTIVATIONS: dict[int, Callable[[Tensor], Tensor]] = {
    1: aten.relu.default,
    2: lambda output: aten.hardtanh.default(output, 0.0, 6.0),
    3: aten.hardswish.default,
    4: aten.silu.default,
    5: aten.gelu.default,
    6: lambda output: aten.gelu.default(output, approximate="tanh"),
}


def _known(size) -> int | None:
    """The size, if it is the same number for every value that dynamic sizes may take."""
    return size if isinstance(size, int) else size.node.maybe_as_int()


def _pads(input_hw, kernel_hw, output_hw, geometry) -> tuple[list, bool]:
    """F.pad's (left, right, top, bottom), and whether opposite sides may be padded alike for the same output."""
    stride, before, dilation = geometry[:2], geometry[2:4], geometry[4:]
    pads, symmetric = [], True
    for axis in (1, 0):
        reach = dilation[axis] * (kernel_hw[axis] - 1) + 1
        alike = (input_hw[axis] + 2 * before[axis] - reach) // stride[axis] + 1
        symmetric = symmetric and is_always(alike == output_hw[axis])  # of dynamic sizes, of all of them
        read = (output_hw[axis] - 1) * stride[axis] + reach
        pads += [before[axis], torch.sym_max(read - before[axis] - input_hw[axis], 0)]
    return pads, symmetric


def _convolve(input: Tensor, weight: Tensor, bias: Tensor | None, output_hw, geometry, terms: Terms) -> Tensor:
    pads, symmetric = _pads(input.shape[2:], weight.shape[2:], output_hw, geometry)
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
    if not symmetric:
        if torch.onnx.is_in_onnx_export() and all(isinstance(pad, int) for pad in pads):
            left, right, top, bottom = pads
            attributes = {"strides": stride, "pads": [top, left, bottom, right], "dilations": dilation}
            return _onnx("Conv", input, weight, bias, weight.shape[0], output_hw, attributes)
        input, padding = terms.pad(input, pads), [0, 0]
    output = terms.convolution(input, weight, bias, stride, padding, dilation, False, [0, 0], input.shape[1])
    return _cut(output, (0, 0), output_hw)


def _transpose(input: Tensor, weight: Tensor, bias: Tensor | None, groups, output_hw, geometry, terms: Terms):
    """The transposed convolution that is the gradient of _convolve's input, of size `output_hw`."""
    stride, before, dilation = geometry[:2], geometry[2:4], geometry[4:]
    reach = [step * (taps - 1) + 1 for step, taps in zip(dilation, weight.shape[2:], strict=True)]
    full = [(size - 1) * step + taps for size, step, taps in zip(input.shape[2:], stride, reach, strict=True)]
    limit = [max(steps) for steps in zip(stride, dilation, strict=True)]  # of output_padding
    behind = [_known(rows - cut - size) for rows, cut, size in zip(full, before, output_hw, strict=True)]
    ends = [_ends(*axis) for axis in zip(before, behind, limit, stride, strict=True)]
    padding, added, begin = ([end[part] for end in ends] for part in range(3))
    exact = [cut for cut, most in zip(behind, limit, strict=True) if cut is not None and -cut < most]
    static = len(exact) == 2 and all(isinstance(rows, int) for rows in before)
    if torch.onnx.is_in_onnx_export() and static and any(begin):
        pads, added = [*before, *(max(cut, 0) for cut in exact)], [max(-cut, 0) for cut in exact]
        attributes = {"strides": stride, "pads": pads, "output_padding": added, "dilations": dilation}
        out_channels = groups * weight.shape[1]
        return _onnx("ConvTranspose", input, weight, bias, out_channels, output_hw, attributes, groups)
    output = terms.convolution(input, weight, bias, stride, padding, dilation, True, added, groups)
    lack = [
        0 if is_always(first + size <= rows) else torch.sym_max(first + size - rows, 0)
        for first, size, rows in zip(begin, output_hw, output.shape[2:], strict=True)
    ]
    if lack != [0, 0]:
        output = terms.pad(output, [0, lack[1], 0, lack[0]])
    return _cut(output, begin, output_hw)


def _ends(before, behind: int | None, limit: int, stride: int) -> tuple[int, int, int]:
    """padding and output_padding of aten's transposed convolution, and the first row to take of what it gives.

    Args:
        before, behind: rows of the full result that are not wanted; `behind` is None if it depends on dynamic sizes,
            and negative where rows of zeros are wanted.
        limit: what output_padding must be less than.
    """
    if isinstance(before, int) and behind is not None:
        if 0 <= before - behind < limit:
            return before, before - behind, 0
        padding = max(min(before, behind), 0)
        return padding, min(max(-behind, 0), limit - 1), before - padding
    return 0, stride - 1, before  # rows enough for whatever a convolution's stride has passed over


def _cut(output: Tensor, begin, size) -> Tensor:
    for dim, first, length in zip((2, 3), begin, size, strict=True):
        if not is_always(output.shape[dim] == length):
            output = output.narrow(dim, first, length)
    return output


def _onnx(name, input, weight, bias, out_channels, output_hw, attributes, groups=None) -> Tensor:
    """ONNX's convolutions have a pad for every side, where aten's would need a Pad or a Slice."""
    attributes |= {"group": input.shape[1] if groups is None else groups, "kernel_shape": list(weight.shape[2:])}
    operands = [input, weight] if bias is None else [input, weight, bias]
    shape = (input.shape[0], out_channels, *output_hw)
    return torch.onnx.ops.symbolic(name, operands, attributes, dtype=input.dtype, shape=shape)


def _in_format(tensor: Tensor, channels_last: bool) -> Tensor:
    """The tensor, or a copy, with the strides that the operator's result has."""
    shape, strides, expected, dense = tensor.shape, tensor.stride(), 1, True
    for dim in (1, 3, 2, 0) if channels_last else range(3, -1, -1):
        dense = dense and (is_surely(strides[dim] == expected) or is_surely(shape[dim] == 1))
        expected *= shape[dim]
    if dense and suggests_channels_last(tensor) == channels_last:
        return tensor
    return tensor.clone(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _forward(input, weight, bias, out_h, out_w, *rest, terms=CORE):
    *geometry, channels_last, activation = rest if len(rest) == 8 else (*rest, 0)
    activation_of(activation)  # refuses a code that there is not
    output = _convolve(input, weight, bias, (out_h, out_w), geometry, terms)
    return _in_format(_ACTIVATIONS[activation](output) if activation else output, channels_last)


def _grad_input(grad_output, weight, in_channels, in_h, in_w, *rest, terms=CORE, bias=None, groups=None):
    *geometry, channels_last = rest
    if any(is_always(size == 0) for size in (*grad_output.shape, in_channels, in_h, in_w)):  # aten refuses some of them
        zeros = EMPTY_RESULT[GRAD_INPUT](grad_output, weight, in_channels, in_h, in_w, *rest).zero_()
        return zeros if bias is None else zeros + bias[:, None, None]
    groups = in_channels if groups is None else groups
    grad_input = _transpose(grad_output, weight, bias, groups, (in_h, in_w), geometry, terms)
    return _in_format(grad_input, channels_last)


def _grad_weight(input, grad_output, kernel_h, kernel_w, *rest, terms=CORE):
    *geometry, with_bias, channels_last = rest
    if any(is_always(size == 0) for size in grad_output.shape):
        zeros = EMPTY_RESULT[GRAD_WEIGHT](input, grad_output, kernel_h, kernel_w, *rest)
        return zeros[0].zero_(), zeros[1].zero_()
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
    weight = input.new_empty(grad_output.shape[1], 1, kernel_h, kernel_w)  # of which the size is read, no more
    _, symmetric = _pads(input.shape[2:], weight.shape[2:], grad_output.shape[2:], geometry)
    if not symmetric:
        input, padding = _what_is_read(input, weight.shape[2:], grad_output.shape[2:], geometry, terms), [0, 0]
    bias_size = [grad_output.shape[1]] if with_bias else None
    wanted = [False, True, with_bias]
    _, grad_weight, grad_bias = aten.convolution_backward(
        grad_output, input, weight, bias_size, stride, padding, dilation, False, [0, 0], input.shape[1], wanted
    )
    if grad_bias is None:
        grad_bias = input.new_empty(0)
    return _in_format(grad_weight, channels_last), grad_bias


def _what_is_read(input: Tensor, kernel_hw, output_hw, geometry, terms: Terms) -> Tensor:
    """The padded input, as far as the outputs reach: no row more, or there would be more outputs."""
    stride, before, dilation = geometry[:2], geometry[2:4], geometry[4:]
    pads = []
    for axis in (1, 0):
        dim, size = 2 + axis, input.shape[2 + axis]
        read = (output_hw[axis] - 1) * stride[axis] + dilation[axis] * (kernel_hw[axis] - 1) + 1
        kept = torch.sym_min(torch.sym_max(read - before[axis], 0), size)
        if not is_always(kept == size):
            input = input.narrow(dim, 0, kept)
        first = torch.sym_min(before[axis], read)
        pads += [first, read - first - kept]
    return terms.pad(input, pads)


def _backward(grad_output, input, weight, *rest, terms=CORE):
    *geometry, with_bias, channels_last, weight_channels_last = rest
    grad_input = _grad_input(grad_output, weight, *input.shape[1:], *geometry, channels_last, terms=terms)
    formats = with_bias, weight_channels_last
    return grad_input, *_grad_weight(input, grad_output, *weight.shape[2:], *geometry, *formats, terms=terms)


def _causal_conv1d(x, weight, bias, initial_states, seq_idx, dilation, activation, terms=CORE) -> Tensor:
    mixed = weight.dtype != x.dtype or (bias is not None and bias.dtype != x.dtype)
    if seq_idx is not None or mixed:
        return composed_sequence(x, weight, bias, initial_states, seq_idx, dilation, activation)
    reach = (weight.shape[1] - 1) * dilation
    values = terms.pad(x, [reach, 0]) if initial_states is None else torch.cat([initial_states, x], 2)
    taps = weight.unsqueeze(1).unsqueeze(1)  # a layer of height 1, as other 1-D layers are
    options = [1, 1], [0, 0], [1, dilation], False, [0, 0], x.shape[1]
    output = terms.convolution(values.unsqueeze(2), taps, bias, *options).squeeze(2)
    return laid_out_as(x, _ACTIVATIONS[activation](output) if activation else output)


def _without_terms(function: Callable) -> Callable:
    """A decomposition in operators that are the same at every level of graphs."""

    def decomposition(*args, terms=CORE):
        return function(*args)

    return decomposition


_DECOMPOSITIONS: dict[torch._ops.OpOverload, Callable] = {
    FORWARD: _forward,
    GRAD_INPUT: _grad_input,
    GRAD_WEIGHT: _grad_weight,
    BACKWARD: _backward,
    BLOCK: _without_terms(composed),
    BATCH_NORM: _without_terms(batch_norm.batch_norm),
    BATCH_NORM_EVAL: _without_terms(batch_norm.batch_norm_eval),
    BATCH_NORM_BACKWARD: _without_terms(batch_norm.batch_norm_backward),
    CAUSAL_CONV1D: _causal_conv1d,
}

for _op, _decomposition in _DECOMPOSITIONS.items():
    register_decomposition(_op)(_decomposition)
    # Fake tensors with symbolic sizes would run a decomposition rather than the fake kernel unless it is here as well.
    meta_table[_op] = FAKE_KERNEL[_op]
