"""Only what was asked is computed, by whatever way a backward pass is started; and nothing is lost where that fails."""

import threading

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.calls import assert_close, reference
from tests.gradients.counting import CALL, count, gradients_by, leaves, subsets
from torch_dwconv import DepthwiseConv2d, depthwise_conv2d
from torch_dwconv.operators import engine

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize("transform", ["grad", "vjp", "jacrev"])
def test_transforms_of_one_argument(transform):
    input, weight, bias = leaves()

    def loss(input):
        return depthwise_conv2d(input, weight, bias, **CALL.options).square().sum()

    run = {
        "grad": lambda: torch.func.grad(loss)(input),
        "vjp": lambda: torch.func.vjp(loss, input)[1](torch.ones((), dtype=torch.float64))[0],
        "jacrev": lambda: torch.func.jacrev(loss)(input),
    }[transform]
    ran, got = count(run)
    assert "grad_input" in ran and "grad_weight" not in ran
    assert_close(got, torch.autograd.grad(reference(input, weight, bias, **CALL.options).square().sum(), input)[0])
    ran, _ = count(torch.autograd.grad, got.sum(), weight)  # through the transform
    assert "grad_weight" in ran


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints(use_reentrant):
    tensors = leaves()
    output = checkpoint(lambda *args: depthwise_conv2d(*args, **CALL.options), *tensors, use_reentrant=use_reentrant)
    exact = reference(*tensors, **CALL.options)
    if use_reentrant:  # which takes backward() without inputs= only
        ran, _ = count(output.sum().backward)
        assert ran.get("grad_input") == ran.get("grad_weight") == 1
        for tensor in tensors:
            assert_close(tensor.grad, torch.autograd.grad(exact.sum(), tensor, retain_graph=True)[0])
    else:
        ran, got = count(torch.autograd.grad, output.sum(), tensors[:1])
        assert ran.get("grad_input") == 1 and "grad_weight" not in ran
        assert_close(got[0], torch.autograd.grad(exact.sum(), tensors[0])[0])


def test_compiled_graphs(fresh_compiler):
    """What a graph does not return is not in it: one argument's gradient, and compiled autograd."""
    input, weight, _ = leaves()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def grad_input(input, weight):
        return torch.func.grad(lambda input: depthwise_conv2d(input, weight, None, **CALL.options).sum())(input)

    grad_input(input.detach(), weight.detach())
    ran, _ = count(grad_input, input.detach(), weight.detach())
    assert ran.get("grad_input") == 1 and "grad_weight" not in ran

    tensors = leaves()
    right = torch.autograd.grad(reference(*tensors, **CALL.options).sum(), tensors)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager")):
        # Where a graph has the weight's gradient, or the bias's, one operator computes both.
        for wanted, expected in (
            ((0,), ["grad_input"]),
            ((1,), ["grad_weight"]),
            ((0, 2), ["grad_input", "grad_weight"]),
        ):
            inputs = [tensors[i] for i in wanted]
            for _ in range(2):  # compiled, then run
                output = depthwise_conv2d(*tensors, **CALL.options)
                ran, got = count(torch.autograd.grad, output.sum(), inputs)
            assert [name for name in sorted(ran) if name != "sum"] == expected
            for i, gradient in zip(wanted, got, strict=True):
                assert_close(gradient, right[i])


def test_backward_within_backward():
    """A backward pass that a node of another one starts wants things of its own."""
    tensors = leaves()
    ran = []

    class Inner(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, v):
            with torch.enable_grad():
                output = depthwise_conv2d(*tensors, **CALL.options)
            for inputs in ([tensors[1]], None):
                ran.append(count(output.backward, v, inputs=inputs, retain_graph=True)[0])
            return v

    outer = leaves()
    middle = Inner.apply(depthwise_conv2d(*outer, **CALL.options))
    torch.autograd.grad(middle, [outer[0]], torch.ones_like(middle))
    assert ran == [{"grad_weight": 1}, {"grad_input": 1, "grad_weight": 1}]
    right = torch.autograd.grad(reference(*tensors, **CALL.options).sum(), tensors)
    for tensor, gradient, times in zip(tensors, right, (1, 2, 1), strict=True):
        assert_close(tensor.grad, times * gradient)


@pytest.mark.parametrize("inputs", [None, slice(1), slice(1, 2)])
def test_a_node_that_is_called_by_hand_computes_everything(inputs):
    """In a hook of another backward pass, whose wishes are not about it."""
    tensors, other = leaves(), leaves()
    output, hooked = depthwise_conv2d(*tensors, **CALL.options), depthwise_conv2d(*other, **CALL.options)
    right = torch.autograd.grad(output, tensors, torch.ones_like(output), retain_graph=True)
    got = []

    def by_hand(v):
        got.extend(output.grad_fn.apply(torch.ones_like(v)))

    hooked.register_hook(by_hand)
    hooked.backward(torch.ones_like(hooked), inputs=None if inputs is None else other[inputs])
    assert all(torch.equal(a, b) for a, b in zip(got[:3], right, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(output.grad_fn.apply(torch.ones_like(output))[:3], right, strict=True))


def refuse(*_):
    raise TypeError("changed")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_will_execute", None),
        ("_will_execute", refuse),
        ("_current_node", None),
        ("_all_is_wanted", None),
        ("_alias", refuse),
    ],
)
def test_another_pytorch_computes_everything(name, value, monkeypatch):
    """Without the private names, or if they change, no gradient is lost."""
    monkeypatch.setattr(engine, "_times_unwanted", [0] * 3)
    monkeypatch.setattr(engine, name, value)
    tensors = leaves()
    operands = [tensors[0] * 1, *tensors[1:]]
    output = depthwise_conv2d(*operands, **CALL.options)
    right = torch.autograd.grad(
        reference(*operands, **CALL.options), tensors, torch.ones_like(output), retain_graph=True
    )
    for wanted in subsets(3):
        ran, got = count(gradients_by, "grad", output, [tensors[i] for i in wanted], torch.ones_like(output))
        assert ran.get("grad_input") == ran.get("grad_weight") == 1
        for i, gradient in zip(wanted, got, strict=True):
            assert_close(gradient, right[i])


def test_pipelines_that_split_the_backward_pass():
    """Zero-bubble schedules take the input's gradient first and the weight's later; each is computed once."""
    pipelining = pytest.importorskip("torch.distributed.pipelining._backward")
    layers = torch.nn.Sequential(
        DepthwiseConv2d(4, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), DepthwiseConv2d(4, 4, 5)
    )
    input = torch.randn(2, 4, 8, 8, requires_grad=True)
    output = layers(input)
    grad_output = torch.randn_like(output)
    inputs, parameters = [input], list(layers.parameters())
    right = torch.autograd.grad(output, [input, *parameters], grad_output, retain_graph=True)
    ran, (gradients, groups) = count(pipelining.stage_backward_input, [output], [grad_output], inputs, iter(parameters))
    assert ran.get("grad_input") == 2 and "grad_weight" not in ran
    assert torch.equal(gradients[0], right[0])
    ran, _ = count(pipelining.stage_backward_weight, iter(parameters), groups)
    assert ran.get("grad_weight") == 2 and "grad_input" not in ran
    for parameter, gradient in zip(parameters, right[1:], strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_threads_that_want_different_things():
    tensors = leaves()
    operands = [tensor * 1 for tensor in tensors[:1]] + tensors[1:]
    right = torch.autograd.grad(reference(*operands, **CALL.options).sum(), tensors, retain_graph=True)
    wrong = []

    def work(wanted):
        for _ in range(50):
            output = depthwise_conv2d(tensors[0] * 1, *tensors[1:], **CALL.options)
            got = torch.autograd.grad(output.sum(), [tensors[i] for i in wanted])
            wrong.extend((wanted, i) for i, g in zip(wanted, got, strict=True) if not torch.allclose(g, right[i]))

    threads = [threading.Thread(target=work, args=(wanted,)) for wanted in subsets(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
