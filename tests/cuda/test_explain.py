"""explain() of calls on a GPU that is not there: it asks the registry's true lines, compiled for the host."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.cuda.harness import stand_in_for_a_gpu
from torch_dwconv import explain
from torch_dwconv.operators.schemas import ACTIVATIONS

FEW_ACTIVATIONS = "it computes ReLU, ReLU6 and Hardswish only"


@pytest.fixture(autouse=True)
def _gpu(monkeypatch):
    stand_in_for_a_gpu(monkeypatch)


def explained(activation, channels_last=False, stride=1, size=(56, 56), channels=32, batch=2, dtype=torch.float32):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    with FakeTensorMode():
        input = torch.empty(batch, channels, *size, dtype=dtype, device="cuda", memory_format=memory_format)
        weight = torch.empty(channels, 1, 3, 3, dtype=dtype, device="cuda")
        return explain(input, weight, stride=stride, padding=1, activation=activation)


@pytest.mark.parametrize(
    "call, tuned, other",
    [
        ({}, "forward_nchw_f32_stream_k3s1_cuda", "forward_nchw_f32_tiles_cuda"),
        ({"dtype": torch.float16}, "forward_nchw_f16_stream_k3s1_cuda", "forward_nchw_f16_tiles_cuda"),
        ({"stride": 2}, "forward_nchw_f32_stream_k3s2_cuda", "forward_nchw_f32_window_cuda"),
        ({"channels_last": True}, "forward_nhwc_f32_stream_k3s1_cuda", "forward_nhwc_f32_window_cuda"),
        ({"size": (7, 7), "channels": 1024}, "forward_nchw_f32_planes_k3s1_cuda", "forward_nchw_f32_tiles_cuda"),
        ({"size": (9, 9), "channels": 1024}, "forward_nchw_f32_runs_k3s1_cuda", "forward_nchw_f32_tiles_cuda"),
    ],
    ids=["contiguous", "float16", "stride", "channels_last", "planes", "runs"],
)
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_forward_is_the_kernel_that_computes_the_activation(call, tuned, other, activation):
    explanation, without = explained(activation, **call), explained(None, **call)
    short = activation in (None, "relu", "relu6", "hardswish")
    forward = explanation.choices["forward"]
    assert without.choices["forward"].kernel == tuned and without.forward_alone is None
    assert forward.kernel == (tuned if short else other)
    assert ((tuned, FEW_ACTIVATIONS) in forward.refused) == (not short)
    assert explanation.forward_alone == (tuned if activation else None)
    assert (f"{tuned} where a gradient is needed" in str(explanation)) == (not short)
    # Gradients are of the convolution, which the activation follows.
    for operation in ("grad_input", "grad_weight"):
        assert explanation.choices[operation] == without.choices[operation]
    assert explanation.both_gradients == without.both_gradients
