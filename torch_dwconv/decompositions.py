"""The operators in terms of PyTorch's own: for exporters and quantisers, which know no others.

Nothing here runs in eager or compiled code. torch.onnx.export finds the decompositions by itself, in PyTorch's table.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._decomp import meta_table, register_decomposition

from . import library
from .library import FORWARD, GRAD_INPUT, GRAD_WEIGHT

Program = TypeVar("Program", torch.export.ExportedProgram, torch.fx.GraphModule)

aten = torch.ops.aten


# By the operators' codes, library.ACTIVATION_CODES: PyTorch's module, what it is in a graph, and the arguments there.
_ACTIVATION: dict[int, tuple[type[nn.Module], torch._ops.OpOverload, tuple, dict]] = {
    1: (nn.ReLU, aten.relu.default, (), {}),
    2: (nn.ReLU6, aten.hardtanh.default, (0.0, 6.0), {}),
    3: (nn.Hardswish, aten.hardswish.default, (), {}),
    4: (nn.SiLU, aten.silu.default, (), {}),
    5: (nn.GELU, aten.gelu.default, (), {}),
    6: (nn.GELU, aten.gelu.default, (), {"approximate": "tanh"}),
}


def decompositions() -> dict:
    """A decomposition table: this package's operators as aten.convolution and aten.convolution_backward.

    >>> model = DepthwiseConv2d(4, 4, 3, padding="same", stride=2)
    >>> program = torch.export.export(model, (torch.randn(1, 4, 8, 8),))
    >>> program = program.run_decompositions(decompositions())
    >>> [node.target.name() for node in program.graph.nodes if node.op == "call_function"]
    ['aten::constant_pad_nd', 'aten::convolution']

    For PyTorch's core operators as well, add them to its table: ``torch.export.default_decompositions()`` has `update`.
    """
    return {FORWARD: _forward, GRAD_INPUT: _grad_input, GRAD_WEIGHT: _grad_weight}


def to_aten(program: Program) -> Program:
    """Replaces `torch_dwconv.forward` by aten.conv2d in a captured graph, in place.

    For tools that look for aten.conv2d, as PT2E quantisers do. It stays one node unless opposite sides are padded
    differently; then aten.pad comes before it. (Of a model that has not been captured yet, `revert` the layers.)

    Args:
        program: torch.export.ExportedProgram or torch.fx.GraphModule.

    Returns:
        `program`, the same object.

    >>> program = torch.export.export(DepthwiseConv2d(4, 4, 3), (torch.randn(1, 4, 8, 8),))
    >>> [node.target.name() for node in to_aten(program).graph.nodes if node.op == "call_function"]
    ['aten::conv2d']
    """
    module = program.graph_module if isinstance(program, torch.export.ExportedProgram) else program
    if not isinstance(module, torch.fx.GraphModule):
        raise TypeError(f"program must be an ExportedProgram or a GraphModule, got {type(program).__name__}")
    for node in module.graph.find_nodes(op="call_function", target=FORWARD):
        _replace_by_conv2d(module.graph, node)
    module.recompile()
    return program


def _replace_by_conv2d(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    names = (argument.name for argument in FORWARD._schema.arguments)
    args: dict[str, Any] = dict(zip(names, node.args, strict=False)) | node.kwargs
    tensors = [args[name] for name in ("input", "weight", "bias")]
    input, weight = (tensor.meta["val"] for tensor in tensors[:2])
    geometry = [args[name] for name in library.GEOMETRY]
    outputs = [args[name] for name in ("out_h", "out_w")]
    sizes = [value.meta["val"] if isinstance(value, torch.fx.Node) else value for value in outputs]
    pads, symmetric = _pads(input.shape[2:], weight.shape[2:], sizes, geometry)
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
    if not symmetric and not all(isinstance(pad, int) for pad in pads):
        raise ValueError("to_aten needs static height and width where opposite sides are padded differently")
    with graph.inserting_before(node):
        if not symmetric:
            tensors[0] = graph.call_function(aten.pad.default, (tensors[0], pads))
            tensors[0].meta["val"] = aten.pad.default(input, pads)
            padding = [0, 0]
        conv = graph.call_function(aten.conv2d.default, (*tensors, stride, padding, dilation, input.shape[1]))
        result = conv
        if activation := args.get("activation", 0):
            module, op, arguments, keywords = _ACTIVATION[activation]
            result = graph.call_function(op, (conv, *arguments), keywords)
            result.meta |= node.meta | _made_by(result, module)
    conv.meta |= node.meta | _made_by(conv, nn.Conv2d)
    node.replace_all_uses_with(result)
    graph.erase_node(node)


def _made_by(node: torch.fx.Node, module: type[nn.Module]) -> dict:
    """What export writes beside a node that a module of torch.nn made: quantisers find layers by it."""
    return {"source_fn_stack": [(node.name, module)]}


def _always(condition) -> bool:
    """Whether a condition holds for every value that dynamic sizes may take."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # imports SymPy

    return statically_known_true(condition)


def _pads(input_hw, kernel_hw, output_hw, geometry) -> tuple[list, bool]:
    """F.pad's (left, right, top, bottom), and whether opposite sides may be padded alike for the same output."""
    stride, before, dilation = geometry[:2], geometry[2:4], geometry[4:]
    pads, symmetric = [], True
    for axis in (1, 0):
        reach = dilation[axis] * (kernel_hw[axis] - 1) + 1
        alike = (input_hw[axis] + 2 * before[axis] - reach) // stride[axis] + 1
        symmetric = symmetric and _always(alike == output_hw[axis])  # of dynamic sizes, of all of them
        read = (output_hw[axis] - 1) * stride[axis] + reach
        pads += [before[axis], torch.sym_max(read - before[axis] - input_hw[axis], 0)]
    return pads, symmetric


def _convolve(input: Tensor, weight: Tensor, bias: Tensor | None, output_hw, geometry) -> Tensor:
    pads, symmetric = _pads(input.shape[2:], weight.shape[2:], output_hw, geometry)
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
    if not symmetric:
        if torch.onnx.is_in_onnx_export() and all(isinstance(pad, int) for pad in pads):
            return _onnx_conv(input, weight, bias, output_hw, stride, pads, dilation)
        input, padding = aten.constant_pad_nd(input, pads, 0), [0, 0]
    output = aten.convolution(input, weight, bias, stride, padding, dilation, False, [0, 0], input.shape[1])
    for dim, size in zip((2, 3), output_hw, strict=True):
        if not _always(output.shape[dim] == size):
            output = output.narrow(dim, 0, size)
    return output


def _onnx_conv(input, weight, bias, output_hw, stride, pads, dilation) -> Tensor:
    """ONNX's Conv, which has a pad for every side, where aten's would need a Pad before it."""
    left, right, top, bottom = pads
    attributes = {
        "strides": stride,
        "pads": [top, left, bottom, right],
        "dilations": dilation,
        "group": input.shape[1],
        "kernel_shape": list(weight.shape[2:]),
    }
    operands = [input, weight] if bias is None else [input, weight, bias]
    shape = (input.shape[0], weight.shape[0], *output_hw)
    return torch.onnx.ops.symbolic("Conv", operands, attributes, dtype=input.dtype, shape=shape)


def _in_format(tensor: Tensor, channels_last: bool) -> Tensor:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    if tensor.is_contiguous(memory_format=memory_format) and library.suggests_channels_last(tensor) == channels_last:
        return tensor
    return tensor.clone(memory_format=memory_format)


def _forward(input, weight, bias, out_h, out_w, *rest):
    *geometry, channels_last, activation = rest if len(rest) == 8 else (*rest, 0)
    output = _convolve(input, weight, bias, (out_h, out_w), geometry)
    activate = library.activation_of(activation)
    return _in_format(output if activate is None else activate(output), channels_last)


def _backward(grad_output, input, weight_size, weight, geometry, wanted):
    """aten.convolution_backward, and where it finds the input in its own, padded one."""
    pads, symmetric = _pads(input.shape[2:], weight_size[2:], grad_output.shape[2:], geometry)
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
    if not symmetric:
        input, padding = aten.constant_pad_nd(input, pads, 0), [0, 0]
    bias_size = [grad_output.shape[1]] if wanted[2] else None
    gradients = aten.convolution_backward(
        grad_output, input, weight, bias_size, stride, padding, dilation, False, [0, 0], input.shape[1], wanted
    )
    return gradients, (0, 0) if symmetric else (pads[2], pads[0])


def _grad_input(grad_output, weight, in_channels, in_h, in_w, *rest):
    *geometry, channels_last = rest
    input = library.EMPTY_RESULT[GRAD_INPUT](grad_output, weight, in_channels, in_h, in_w, *rest)
    (grad_input, _, _), (top, left) = _backward(
        grad_output, input, weight.shape, weight, geometry, [True, False, False]
    )
    for dim, before, size in ((2, top, in_h), (3, left, in_w)):
        if not _always(grad_input.shape[dim] == size):
            grad_input = grad_input.narrow(dim, before, size)
    return _in_format(grad_input, channels_last)


def _grad_weight(input, grad_output, kernel_h, kernel_w, *rest):
    *geometry, with_bias, channels_last = rest
    weight = input.new_empty(grad_output.shape[1], 1, kernel_h, kernel_w)
    (_, grad_weight, grad_bias), _ = _backward(
        grad_output, input, weight.shape, weight, geometry, [False, True, with_bias]
    )
    if grad_bias is None:
        grad_bias = input.new_empty(0)
    return _in_format(grad_weight, channels_last), grad_bias


for _op, _decomposition in decompositions().items():
    register_decomposition(_op)(_decomposition)
    # Fake tensors with symbolic sizes would run a decomposition rather than the fake kernel unless it is here as well.
    meta_table[_op] = library.FAKE_KERNEL[_op]
