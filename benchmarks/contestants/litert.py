"""LiteRT (TensorFlow Lite) with its XNNPACK kernels, NHWC, on the interpreter's own buffers."""

import importlib.metadata

import flatbuffers
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from torch_dwconv.bench.contestants import dtypes_only, forward_only
from torch_dwconv.bench.timing import Run

_INT32, _FLOAT32 = schema.TensorType.INT32, schema.TensorType.FLOAT32


def version() -> str:
    return importlib.metadata.version("ai-edge-litert")


def runs(problem) -> dict[str, Run]:
    forward_only(problem)
    dtypes_only(problem, "f32")
    interpreter = Interpreter(model_content=_model(problem), num_threads=problem.cell.threads)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    interpreter.set_tensor(source, problem.input.permute(0, 2, 3, 1).contiguous().numpy())

    def result(_):
        return torch.from_numpy(interpreter.get_tensor(target)).permute(0, 3, 1, 2)

    return {"reused": Run(interpreter.invoke, result, pool="litert", note="nhwc")}


def _is_same_padding(problem) -> bool:
    """Whether the padding is what SAME would choose, so that no other operator is needed."""
    for size, out, kernel, stride, dilation, pad in zip(
        problem.input.shape[2:],
        problem.grad_output.shape[2:],
        problem.weight.shape[2:],
        problem.stride,
        problem.dilation,
        problem.padding,
        strict=True,
    ):
        total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        if out != -(-size // stride) or pad != total // 2:
            return False
    return True


class _Builder:
    """A flatbuffer model of one subgraph, written tensor by tensor."""

    def __init__(self):
        self.tensors, self.operators, self.codes = [], [], []
        self.buffers = [schema.BufferT()]  # by convention the first is empty

    def tensor(self, shape, type=_FLOAT32, data: torch.Tensor | None = None) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.name = list(shape), type, f"tensor{len(self.tensors)}".encode()
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = data.contiguous().numpy().tobytes()
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(self, code: int, version: int, inputs: list[int], output: int, options=None, options_type=0) -> None:
        kind = schema.OperatorCodeT()
        kind.builtinCode = kind.deprecatedBuiltinCode = code
        kind.version = version
        self.codes.append(kind)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.codes) - 1, inputs, [output]
        operator.builtinOptions, operator.builtinOptionsType = options, options_type
        self.operators.append(operator)

    def finish(self, input: int, output: int) -> bytes:
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, [input], [output]
        model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, self.codes, [graph], self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def _model(problem) -> bytes:
    """DEPTHWISE_CONV_2D, after a PAD (which XNNPACK takes into the convolution) unless SAME pads alike."""
    layer, builder = problem.cell.layer, _Builder()
    batch, channels, height, width = problem.input.shape
    (pad_h, pad_w), same = problem.padding, _is_same_padding(problem)
    input = last = builder.tensor((batch, height, width, channels))
    if not same:
        sides = torch.tensor([[0, 0], [pad_h, pad_h], [pad_w, pad_w], [0, 0]], dtype=torch.int32)
        pads = builder.tensor((4, 2), _INT32, sides)
        last = builder.tensor((batch, height + 2 * pad_h, width + 2 * pad_w, channels))
        builder.operator(
            schema.BuiltinOperator.PAD, 1, [input, pads], last, schema.PadOptionsT(), schema.BuiltinOptions.PadOptions
        )
    out_channels = problem.weight.shape[0]
    kernel = problem.weight.permute(1, 2, 3, 0)  # (1, KH, KW, C*M)
    weight = builder.tensor(kernel.shape, data=kernel)
    bias = builder.tensor((out_channels,), data=torch.zeros(out_channels))
    output = builder.tensor((batch, *problem.grad_output.shape[2:], out_channels))
    options = schema.DepthwiseConv2DOptionsT()
    options.padding = schema.Padding.SAME if same else schema.Padding.VALID
    options.strideH, options.strideW = problem.stride
    options.dilationHFactor, options.dilationWFactor = problem.dilation
    options.depthMultiplier = layer.multiplier
    builder.operator(
        schema.BuiltinOperator.DEPTHWISE_CONV_2D,
        2,
        [last, weight, bias],
        output,
        options,
        schema.BuiltinOptions.DepthwiseConv2DOptions,
    )
    return builder.finish(input, output)
