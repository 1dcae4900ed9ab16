"""DepthwiseConv1d after the states of earlier positions: pieces of a sequence are the sequence."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dwconv import DepthwiseConv1d, convert, revert
from torch_dwconv.operators.schemas import ACTIVATIONS


def causal(channels=5, kernel_size=4, dilation=1, dtype=torch.float64, **options) -> DepthwiseConv1d:
    torch.manual_seed(0)
    padding = (dilation * (kernel_size - 1), 0)
    return DepthwiseConv1d(channels, channels, kernel_size, 1, padding, dilation, dtype=dtype, **options)


def reach(layer) -> int:
    return layer.dilation[0] * (layer.kernel_size[0] - 1)


def in_pieces(layer, input, lengths, states=None):
    """The output and the last states of a sequence that comes in pieces."""
    outputs = []
    for piece in input.split(lengths, -1):
        output, states = layer(piece, states, return_final_states=True)
        outputs.append(output)
    return torch.cat(outputs, -1), states


def written_out(layer, input, states):
    """The same by PyTorch's functions, in float64."""
    input, states = input.double(), states.double()
    sequence = torch.cat([states, input], -1)
    weight, bias = (None if p is None else p.double() for p in (layer.weight, layer.bias))
    output = F.conv1d(sequence, weight, bias, dilation=layer.dilation, groups=layer.groups)
    if layer.activation:
        output = ACTIVATIONS[layer.activation](output)
    return output, sequence[..., input.shape[-1] :]


PIECES = [7, 1, 2, 13]


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("batch", [(), (3,)], ids=["no batch", "batch"])
def test_pieces_are_the_sequence(batch, activation):
    layer = causal(dilation=2, activation=activation)
    input = torch.randn(*batch, 5, sum(PIECES), dtype=torch.float64)
    output, states = in_pieces(layer, input, PIECES)
    torch.testing.assert_close(output, layer(input))
    assert torch.equal(states, input[..., -6:])
    torch.testing.assert_close(layer(input, return_final_states=True), (output, states))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel_size, dilation", [(1, 1), (2, 1), (4, 1), (4, 3), (9, 1), (31, 1), (3, 300), (65, 2)])
def test_kernels_of_every_length(kernel_size, dilation, dtype):
    layer = causal(8, kernel_size, dilation, dtype, activation="silu", bias=dilation == 1)
    input = torch.randn(2, 8, sum(PIECES)).to(dtype)
    states = torch.randn(2, 8, reach(layer)).to(dtype)
    expected, last = written_out(layer, input, states)
    output, found = in_pieces(layer, input, PIECES, states)
    tolerance = 1e-5 if dtype == torch.float32 else 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)
    assert output.dtype == found.dtype == dtype and torch.equal(found.double(), last)


def test_states_alone_change_the_output_only():
    layer, input, states = causal(), torch.randn(2, 5, 9).double(), torch.randn(2, 5, 3).double()
    torch.testing.assert_close(layer(input, states), written_out(layer, input, states)[0])
    torch.testing.assert_close(layer(input, torch.zeros_like(states)), layer(input))
    kept = states.clone()
    _, last = layer(input, initial_states=states, return_final_states=True)
    last.zero_()  # they share memory with nothing
    assert torch.equal(states, kept) and input[..., -3:].abs().sum() > 0


def test_strides_are_those_of_a_call_without_states():
    layer, input = causal(), torch.randn(2, 9, 5).double().transpose(1, 2)
    output, _ = layer(input, return_final_states=True)
    assert output.stride() == layer(input).stride()
    torch.testing.assert_close(output, layer(input))


@pytest.mark.parametrize("activation", [None, "silu", "gelu"])
def test_gradients_pass_through_states(activation):
    layer = causal(dilation=2, activation=activation)
    input = torch.randn(2, 5, sum(PIECES), dtype=torch.float64, requires_grad=True)
    states = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    leaves = [input, states, *layer.parameters()]
    results = []
    for output, last in (in_pieces(layer, input, PIECES, states), written_out(layer, input, states)):
        torch.manual_seed(1)
        loss = (output * torch.randn_like(output)).sum() + (last * torch.randn_like(last)).sum()
        results.append(torch.autograd.grad(loss, leaves))
    torch.testing.assert_close(*results)
    short = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)  # shorter than the states

    def call(input, states):
        return layer(input, states, True)

    torch.autograd.gradcheck(call, (short, states[:1].detach().requires_grad_()))
    torch.autograd.gradgradcheck(call, (short, states[:1].detach().requires_grad_()))


def test_torch_func():
    layer = causal(activation="silu")
    input, states = torch.randn(3, 2, 5, 9).double(), torch.randn(3, 2, 5, 3).double()
    found = torch.vmap(lambda input, states: layer(input, states, True))(input, states)
    for i in range(3):
        torch.testing.assert_close([part[i] for part in found], list(layer(input[i], states[i], True)))
    gradient = torch.func.grad(lambda states: layer(input[0], states).square().sum())(states[0])
    leaf = states[0].clone().requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(layer(input[0], leaf).square().sum(), leaf)[0])


@pytest.mark.parametrize("activation", [None, "silu", "gelu"])
def test_compile(fresh_compiler, activation):
    layer = causal(activation=activation)
    input, states = torch.randn(2, 5, 9).double(), torch.randn(2, 5, 3).double().requires_grad_()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    results = [run(input, states, True) for run in (compiled, layer)]
    torch.testing.assert_close(*results)
    grads = [torch.autograd.grad(out.sum() + last.square().sum(), [states, layer.weight]) for out, last in results]
    torch.testing.assert_close(*grads)


def test_export():
    layer, length = (
        causal(activation="silu"),
        torch.export.Dim("length", min=2, max=1000),
    )  # shorter than the states too
    example = {"input": torch.randn(2, 5, 9).double(), "initial_states": torch.randn(2, 5, 3).double()}
    shapes = {"input": {2: length}, "initial_states": None, "return_final_states": None}
    program = torch.export.export(layer, (), {**example, "return_final_states": True}, dynamic_shapes=shapes)
    assert "torch_dwconv.causal_conv1d" in str(program.graph)
    for size in (2, 40):
        input = torch.randn(2, 5, size).double()
        arguments = {"input": input, "initial_states": example["initial_states"], "return_final_states": True}
        torch.testing.assert_close(program.module()(**arguments), layer(**arguments))


class Streaming(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layer = causal(**options)

    def forward(self, input, states):
        output, states = self.layer(input, states, return_final_states=True)
        return output * 2, states


@pytest.mark.parametrize("hooked", [False, True], ids=["leaf", "hooks"])
def test_fx(hooked):
    model = Streaming(activation="gelu")
    if hooked:
        model.layer.register_forward_hook(lambda layer, args, output: (output[0] + 1, output[1]))
    traced = torch.fx.symbolic_trace(model)
    assert ("call_module" in {node.op for node in traced.graph.nodes}) is not hooked
    for size in (9, 2):
        given = torch.randn(2, 5, size).double(), torch.randn(2, 5, 3).double()
        torch.testing.assert_close(traced(*given), model(*given))


def test_fx_of_a_layer_by_itself():
    layer = causal()
    traced, input = torch.fx.symbolic_trace(layer), torch.randn(2, 5, 9).double()
    assert torch.equal(traced(input), layer(input))
    with pytest.raises(RuntimeError, match="was traced without states"):
        traced(input, torch.randn(2, 5, 3).double())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript():
    model = Streaming(activation="silu")
    given = torch.randn(2, 5, 9).double(), torch.randn(2, 5, 3).double()
    torch.testing.assert_close(torch.jit.trace(model, given)(*given), model(*given))
    scripted = torch.jit.script(model.layer)
    torch.testing.assert_close(scripted(given[0]), model.layer(given[0]))
    with pytest.raises(torch.jit.Error, match="a layer in TorchScript takes and returns no states"):
        scripted(*given)


def test_autocast_casts_the_states_too():
    layer = causal(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output, states = layer(torch.randn(2, 5, 9), torch.randn(2, 5, 3), True)
        again, _ = layer(torch.randn(2, 5, 9), states, True)
    assert output.dtype == states.dtype == again.dtype == torch.bfloat16


def test_other_tensors():
    """Those that have no kernel, or no values."""
    layer = causal(dtype=torch.float32, activation="silu").to("meta")
    output, states = layer(torch.randn(2, 5, 9, device="meta"), torch.randn(2, 5, 3, device="meta"), True)
    assert output.shape == (2, 5, 9) and states.shape == (2, 5, 3) and states.is_meta

    class Marked(torch.Tensor):
        pass

    layer = causal(dtype=torch.float32, activation="silu")
    input, states = torch.randn(2, 5, 9), torch.randn(2, 5, 3)
    found = layer(input.as_subclass(Marked), states, True)
    assert type(found[0]) is Marked
    torch.testing.assert_close([part.as_subclass(torch.Tensor) for part in found], list(layer(input, states, True)))


class Causal(nn.Conv1d):
    """As many projects write it."""

    def forward(self, input):
        return super().forward(F.pad(input, (self.dilation[0] * (self.kernel_size[0] - 1), 0)))


def test_a_converted_layer_streams():
    model = nn.Sequential(Causal(5, 5, 4, groups=5, dilation=2, dtype=torch.float64))
    input = torch.randn(2, 5, 20).double()
    expected = model(input)
    convert(model)
    for layer in (model[0], pickle.loads(pickle.dumps(model[0])), copy.deepcopy(model[0])):
        output, _ = in_pieces(layer, input, [9, 11])
        torch.testing.assert_close(output, expected)
    assert type(revert(model)[0]) is Causal


def test_copies_and_state_dicts():
    layer = causal(activation="silu")
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert twin.activation == "silu" and repr(twin) == repr(layer)
    assert repr(layer).endswith("padding=(3, 0), groups=5, activation=silu)")
    assert layer.state_dict().keys() == nn.Conv1d(5, 5, 4, groups=5).state_dict().keys()


NOT_CAUSAL = [
    DepthwiseConv1d(4, 4, 3),
    DepthwiseConv1d(4, 4, 3, padding=1),
    DepthwiseConv1d(4, 4, 3, padding="same"),
    DepthwiseConv1d(4, 4, 3, padding=(2, 0), dilation=2),
    DepthwiseConv1d(4, 4, 3, padding=(2, 0), stride=2),
    DepthwiseConv1d(4, 8, 3, padding=(2, 0)),
    DepthwiseConv1d(4, 4, 3, padding=(2, 0), padding_mode="replicate"),
    convert(nn.Conv1d(4, 4, 4, padding=3, groups=4)),  # as Mamba's, which cuts its output
]


@pytest.mark.parametrize("layer", NOT_CAUSAL, ids=str)
@pytest.mark.parametrize("call", [{"initial_states": torch.ones(1, 4, 2)}, {"return_final_states": True}], ids=str)
def test_layers_that_are_not_causal_refuse(layer, call):
    with pytest.raises(RuntimeError, match=r"return_final_states are for causal layers: .* got Depthwise"):
        layer(torch.ones(1, 4, 9), **call)


@pytest.mark.parametrize(
    "input, states, error, message",
    [
        ((2, 5, 9), torch.ones(2, 5, 4), RuntimeError, r"initial_states must be \(2, 5, 3\), got \(2, 5, 4\)"),
        ((2, 5, 9), torch.ones(5, 3), RuntimeError, r"initial_states must be \(2, 5, 3\), got \(5, 3\)"),
        ((5, 9), torch.ones(1, 5, 3), RuntimeError, r"initial_states must be \(5, 3\), got \(1, 5, 3\)"),
        ((2, 4, 9), torch.ones(2, 4, 3), RuntimeError, r"input must have 5 channels, got \(2, 4, 9\)"),
        ((5,), torch.ones(5, 3), RuntimeError, r"input must be \(N, C, L\) or \(C, L\), got \(5,\)"),
        ((2, 5, 9), torch.ones(2, 5, 3).double(), RuntimeError, "must be torch.float32 on cpu as input is, got .*64"),
        ((2, 5, 9), torch.ones(2, 5, 3, device="meta"), RuntimeError, "on cpu as input is, got torch.float32 on meta"),
        ((2, 5, 9), [0.0], TypeError, "initial_states must be a tensor or None, got list"),
    ],
)
def test_states_that_do_not_fit_are_refused(input, states, error, message):
    with pytest.raises(error, match=message):
        causal(dtype=torch.float32)(torch.ones(input), states)


def test_a_weight_of_another_size_is_refused():
    layer = causal(dtype=torch.float32)
    layer.weight = nn.Parameter(torch.ones(5, 1, 3))
    with pytest.raises(
        RuntimeError, match=r"weight must be \(5, 1, 4\), as the layer's attributes say, got \(5, 1, 3\)"
    ):
        layer(torch.ones(2, 5, 9), return_final_states=True)


def test_the_constructor_refuses_another_activation():
    with pytest.raises(ValueError, match=r"activation must be None or one of relu, .* got 'tanh'"):
        causal(activation="tanh")
