"""torch.onnx.export without an extra argument: standard Conv nodes, the same output in ONNX Runtime."""

import warnings

import pytest
import torch
from torch import nn

from torch_dwconv import (
    DepthwiseConv2d,
    DepthwiseConvTranspose1d,
    DepthwiseConvTranspose2d,
    decompositions,
    depthwise_conv_transpose2d,
    to_aten,
)

onnx = pytest.importorskip("onnx", reason="needs onnx, of the extra [export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra [export]")
pytest.importorskip("onnxscript", reason="needs onnxscript, of the extra [export]")


def model():
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),
        DepthwiseConv2d(8, 16, 3, padding=((0, 1), (1, 2)), stride=2),
        nn.ReLU6(),
        DepthwiseConv2d(16, 16, (3, 5), padding=(1, 2), bias=False),
        DepthwiseConv2d(16, 16, 3, padding="same", stride=2),
    ).eval()


def export(program, args, path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnxscript's and PyTorch's, about themselves
        torch.onnx.export(program, args, path, dynamo=True, verbose=False, external_data=False, **options)
    return onnx.load(path)


def assert_same(path, model, input):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: input.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), model(input).detach(), rtol=1e-4, atol=1e-5)


def attributes(node):
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def test_a_plain_call_gives_standard_nodes(tmp_path):
    layers, input, path = model(), torch.randn(2, 3, 18, 18), str(tmp_path / "model.onnx")
    graph = export(layers, (input,), path).graph
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    convolutions = [attributes(node) for node in graph.node if node.op_type == "Conv"]
    assert {node.op_type for node in graph.node} <= {"Conv", "Clip"}
    assert [conv["group"] for conv in convolutions] == [1, 8, 16, 16]
    # top, left, bottom, right
    assert [list(conv["pads"]) for conv in convolutions] == [[0] * 4, [0, 1, 1, 2], [1, 2, 1, 2], [1, 0, 1, 1]]
    assert list(convolutions[1]["strides"]) == [2, 2]
    assert_same(path, layers, input)


def test_dynamic_batch(tmp_path):
    layers, path = model(), str(tmp_path / "model.onnx")
    export(layers, (torch.randn(2, 3, 17, 18),), path, dynamic_shapes=({0: torch.export.Dim("N")},))
    assert_same(path, layers, torch.randn(5, 3, 17, 18))


@pytest.mark.slow
def test_dynamic_height_and_width(tmp_path):
    layers, path = model(), str(tmp_path / "model.onnx")
    H, W = torch.export.Dim("H", min=8, max=64), torch.export.Dim("W", min=8, max=64)
    graph = export(layers, (torch.randn(2, 3, 17, 18),), path, dynamic_shapes=({2: H, 3: W},)).graph
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    assert_same(path, layers, torch.randn(2, 3, 24, 13))


def test_an_exported_program(tmp_path):
    layers, input, path = model(), torch.randn(2, 3, 17, 18), str(tmp_path / "model.onnx")
    program = torch.export.export(layers, (input,)).run_decompositions(decompositions())
    assert {node.domain for node in export(program, None, path).graph.node} <= {"", "ai.onnx"}
    assert_same(path, layers, input)


@pytest.mark.slow
def test_the_exporter_built_on_torchscript(tmp_path):
    layers, input, path = model(), torch.randn(2, 3, 17, 18), str(tmp_path / "model.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layers, (input,), path, dynamo=False)
    assert_same(path, layers, input)


class Transposed(nn.Module):
    """The function alone, with any padding."""

    def __init__(self, multiplier, *options):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, multiplier, 3, 4))
        self.bias = nn.Parameter(torch.randn(4 * multiplier))
        self.options = options

    def forward(self, input):
        return depthwise_conv_transpose2d(input, self.weight, self.bias, *self.options)


# What the input has after (N, C), the layer, and the nodes that it is in ONNX.
TRANSPOSED = {
    "layer": (2, lambda: DepthwiseConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1), []),
    "multiplier": (2, lambda: DepthwiseConvTranspose2d(4, 8, (3, 5), padding=(0, 2), dilation=2, bias=False), []),
    "1-D": (1, lambda: DepthwiseConvTranspose1d(4, 8, 4, stride=2, padding=1), []),
    "alike": (2, lambda: Transposed(2, 2, 1, 1), []),
    "apart": (2, lambda: Transposed(1, 2, ((0, 1), (2, 1)), 1), ["Add"]),
    "beyond": (2, lambda: Transposed(1, 2, ((1, 0), (2, 1)), 1), ["Add"]),
    "apart and multiplied": (2, lambda: Transposed(2, 1, ((0, 1), (2, 1))), ["Add", "Expand"]),
}


@pytest.mark.parametrize(
    "name, dynamic", [(name, False) for name in TRANSPOSED] + [(name, True) for name in ("1-D", "multiplier", "apart")]
)
def test_a_transposed_layer(name, dynamic, tmp_path):
    dim, make, others = TRANSPOSED[name]
    layer, path = make().eval(), str(tmp_path / "model.onnx")
    shapes = ({axis: torch.export.Dim.AUTO for axis in (0, *range(2, dim + 2))},) if dynamic else None
    graph = export(layer, (torch.randn(2, 4, *(7, 9)[:dim]),), path, dynamic_shapes=shapes).graph
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("ConvTranspose") == 1
    if not dynamic:
        assert set(kinds) - {"Reshape", "Unsqueeze", "ConvTranspose"} <= set(others)
    for size in ((3, 4, 5, 8), (1, 4, 9, 6)) if dynamic else ((2, 4, 7, 9),):
        assert_same(path, layer, torch.randn(size[: dim + 2]))


@pytest.mark.parametrize("name", ["multiplier", "apart"])
def test_an_exported_program_of_a_transposed_layer(name, tmp_path):
    """Its operators have been recorded before anyone spoke of ONNX."""
    dim, make, _ = TRANSPOSED[name]
    layer, path, input = make().eval(), str(tmp_path / "model.onnx"), torch.randn(2, 4, *(7, 9)[:dim])
    graph = export(torch.export.export(layer, (input,)), None, path).graph
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    assert [node.op_type for node in graph.node].count("ConvTranspose") == 1
    assert_same(path, layer, input)


@pytest.mark.parametrize("name", ["1-D", "alike", "apart"])
def test_transposed_layers_by_the_exporter_built_on_torchscript(name, tmp_path):
    dim, make, _ = TRANSPOSED[name]
    layer, path, axes = (
        make().eval(),
        str(tmp_path / "model.onnx"),
        {axis: f"size{axis}" for axis in (0, 2, 3)[: dim + 1]},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", torch.jit.TracerWarning)
        torch.onnx.export(
            layer,
            (torch.randn(2, 4, *(7, 9)[:dim]),),
            path,
            dynamo=False,
            input_names=["input"],
            dynamic_axes={"input": axes},
        )
    for size in ((2, 4, 7, 9), (3, 4, 5, 8)):
        assert_same(path, layer, torch.randn(size[: dim + 2]))


@pytest.mark.parametrize("name", ["1-D", "apart"])
@pytest.mark.parametrize("traced", [True, False], ids=["traced", "exported"])
def test_transposed_layers_in_openvino(name, traced):
    """A trace at other sizes than it was made with, and a program in PyTorch's operators."""
    openvino = pytest.importorskip("openvino")
    dim, make, _ = TRANSPOSED[name]
    layer = make().eval()
    sizes = [(1, 4, 5, 12)[: dim + 2], (2, 4, 7, 9)[: dim + 2]]
    if traced:
        model = torch.jit.trace(layer, (torch.randn(sizes[0]),))
    else:
        model = to_aten(torch.export.export(layer, (torch.randn(sizes[0]),)))
        del sizes[1]
    run = openvino.compile_model(openvino.convert_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in sizes:
        input = torch.randn(size)
        torch.testing.assert_close(torch.from_numpy(run(input.numpy())[0]), layer(input).detach(), rtol=1e-3, atol=1e-4)
