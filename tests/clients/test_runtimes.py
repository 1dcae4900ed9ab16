"""OpenVINO and ExecuTorch: from the module, from a captured graph, and what happens without to_aten."""

import copy
from collections import Counter

import pytest
import torch

from torch_dwconv import convert, to_aten

from .models import distance, small

IMAGE = torch.linspace(-1, 1, 2 * 3 * 16 * 16).sin().reshape(2, 3, 16, 16)


def computed(network, input: torch.Tensor) -> torch.Tensor:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32"}  # or it computes in bfloat16 where the machine can
    compiled = openvino.Core().compile_model(network, "CPU", options)
    return torch.from_numpy(compiled(input.numpy())[0])


def convolutions(network) -> Counter:
    return Counter(op.get_type_name() for op in network.get_ops() if "Convolution" in op.get_type_name())


@pytest.mark.parametrize("number", [0, 1], ids=["module", "program"])
def test_openvino(recipe, number):
    names = recipe("OpenVINO", 0) if number == 0 else recipe("OpenVINO", 1)
    input = torch.randn(1, 3, 64, 64)
    assert convolutions(names["network"]) == {"Convolution": 7, "GroupConvolution": 3}
    assert (computed(names["network"], input) - names["model"](input)).abs().max() < 1e-5


def test_openvino_at_another_size():
    """A traced module keeps height and width dynamic."""
    openvino = pytest.importorskip("openvino")
    network = openvino.convert_model(convert(small()), example_input=IMAGE)
    for size in (16, 17, 21):
        image = IMAGE.repeat(1, 1, 2, 2)[..., :size, :size].contiguous()
        assert distance(computed(network, image), small()(image).detach()) < 1e-5


def test_openvino_refuses_our_operator():
    openvino = pytest.importorskip("openvino")
    with pytest.raises(Exception, match="OpConversionFailure"):
        openvino.convert_model(torch.export.export(convert(small()), (IMAGE,)))


def test_executorch(recipe):
    names = recipe("ExecuTorch")
    runtime = pytest.importorskip("executorch.runtime").Runtime.get()
    input = torch.randn(1, 3, 64, 64)
    method = runtime.load_program(names["lowered"].buffer).load_method("forward")
    assert (method.execute([input])[0] - names["model"](input)).abs().max() < 1e-5
    nodes = names["lowered"].exported_program().graph.nodes
    assert not [node for node in nodes if node.op == "call_function" and "conv" in str(node.target)]  # XNNPACK has all


def test_executorch_cannot_load_our_operator():
    pytest.importorskip("executorch")
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    program = torch.export.export(convert(torch.nn.Conv2d(4, 4, 3, groups=4)).eval(), (torch.randn(1, 4, 8, 8),))
    lowered = to_edge_transform_and_lower(copy.deepcopy(program)).to_executorch()
    with pytest.raises(RuntimeError):
        Runtime.get().load_program(lowered.buffer).load_method("forward")
    lowered = to_edge_transform_and_lower(to_aten(program)).to_executorch()
    assert Runtime.get().load_program(lowered.buffer).load_method("forward")
