"""torch.jit.trace and what is built on it: the recorded program is right at sizes other than the traced one."""

import pytest
import torch
from torch import nn

from torch_dwconv import DepthwiseConv1d, DepthwiseConv2d, SeparableConv1d, SeparableConv2d, depthwise_conv2d, tf

PRECISE = {"INFERENCE_PRECISION_HINT": "f32"}  # OpenVINO computes in bfloat16 where the machine has it
TRACED, OTHERS = (16, 13), ((17, 14), (15, 16), (16, 13), (1, 9), (33, 2))


class TensorFlow(nn.Module):
    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(3, 3, 4, 2))

    def forward(self, input):
        return tf.depthwise_conv2d(input.permute(0, 2, 3, 1), self.filter, [1, 2, 2, 1], "SAME")


class TensorFlowSeparable(TensorFlow):
    def forward(self, input):
        pointwise = torch.ones(1, 1, 8, 3)
        return tf.separable_conv2d(input.permute(0, 2, 3, 1), self.filter, pointwise, [1, 2, 2, 1], "SAME")


class Function(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 3, 5))

    def forward(self, input):
        return depthwise_conv2d(input, self.weight, None, (3, 2), "same", activation="silu")


IN_TWO_DIMENSIONS = {
    "same": lambda: DepthwiseConv2d(4, 4, 3, stride=2, padding="same"),
    "same, one axis": lambda: DepthwiseConv2d(4, 8, (5, 4), stride=(1, 3), padding="same", dilation=2),
    "same, larger stride than kernel": lambda: DepthwiseConv2d(4, 4, 2, stride=4, padding="same"),
    "same, replicate": lambda: DepthwiseConv2d(4, 4, 3, stride=2, padding="same", padding_mode="replicate"),
    "same at stride 1": lambda: DepthwiseConv2d(4, 4, 4, padding="same"),
    "sides": lambda: DepthwiseConv2d(4, 4, 3, stride=2, padding=((1, 2), (0, 2)), activation="relu6"),
    "circular": lambda: DepthwiseConv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "separable": lambda: SeparableConv2d(4, 6, 3, stride=2, padding="same"),
    "tensorflow": TensorFlow,
    "tensorflow, separable": TensorFlowSeparable,
    "function": Function,
}
IN_ONE_DIMENSION = {
    "1-D": lambda: DepthwiseConv1d(4, 4, 3, stride=2, padding="same"),
    "1-D, replicate": lambda: DepthwiseConv1d(4, 4, 3, stride=2, padding="same", padding_mode="replicate"),
    "1-D, causal": lambda: DepthwiseConv1d(4, 4, 3, padding=(2, 0)),
    "1-D, separable": lambda: SeparableConv1d(4, 6, 3, stride=3, padding="same"),
}
LAYERS = {**IN_TWO_DIMENSIONS, **IN_ONE_DIMENSION}


def inputs(name: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What the layer is traced with, and what it is asked afterwards."""
    dimensions = 1 if name in IN_ONE_DIMENSION else 2
    return torch.randn(2, 4, *TRACED[:dimensions]), [torch.randn(3, 4, *size[:dimensions]) for size in OTHERS]


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning", "error::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_a_trace_is_right_at_other_sizes(name):
    layer, (example, others) = LAYERS[name]().eval(), inputs(name)
    traced = torch.jit.trace(layer, example)
    for input in others:
        torch.testing.assert_close(traced(input), layer(input))


# This exporter writes a pad that depends on the size only if it is of zeros, for nn.Conv2d too.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in LAYERS if "replicate" not in name and "circular" not in name])
def test_the_onnx_exporter_built_on_traces_keeps_axes_dynamic(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra [export]")
    pytest.importorskip("onnx", reason="needs onnx, of the extra [export]")
    layer, (example, others) = LAYERS[name]().eval(), inputs(name)
    path = str(tmp_path / "layer.onnx")
    axes = {0: "batch", **{2 + axis: f"size{axis}" for axis in range(example.dim() - 2)}}
    names = {"input_names": ["input"], "output_names": ["output"]}
    torch.onnx.export(layer, (example,), path, dynamo=False, dynamic_axes={"input": axes, "output": axes}, **names)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for input in others:
        (output,) = session.run(None, {"input": input.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), layer(input).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAYERS)
def test_openvino_keeps_axes_dynamic(name):
    openvino = pytest.importorskip("openvino", reason="needs openvino, of the extra [export]")
    layer, (example, others) = LAYERS[name]().eval(), inputs(name)
    compiled = openvino.compile_model(openvino.convert_model(layer, example_input=example), "CPU", PRECISE)
    for input in others:
        output = torch.from_numpy(compiled([input.numpy()])[0])
        torch.testing.assert_close(output, layer(input).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("name", [name for name in LAYERS if "tensorflow" not in name])
def test_a_trace_refuses_other_channels(name):
    """They are the weight's, also where a function took them from its input."""
    example, _ = inputs(name)
    traced = torch.jit.trace(LAYERS[name]().eval(), example)
    for channels in (1, 2, 8):
        with pytest.raises(RuntimeError, match="channels"):
            traced(example[:, :1].expand(-1, channels, *example.shape[2:]))
