"""Only what a backward pass was asked for is computed, and all of it is, whatever else requires a gradient."""

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from tests.calls import assert_close, reference
from tests.gradients.counting import CALL, SIZES, count, gradients_by, leaves, operations, subsets
from tests.gradients.test_values import Operators
from torch_dwconv import DepthwiseConv2d, SeparableConv2d, depthwise_conv2d, depthwise_conv_transpose2d
from torch_dwconv.grad import depthwise_conv2d_input, depthwise_conv2d_weight
from torch_dwconv.operators import eager, engine

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def operator(input, weight, bias, **options):
    return torch.ops.torch_dwconv.forward(input, weight, bias, *SIZES)


@pytest.fixture(params=[0, engine._FEW], ids=["by alias", "by engine"])
def way_to_ask(request, monkeypatch):
    """Both ways to ask about a leaf."""
    monkeypatch.setattr(engine, "_times_unwanted", [request.param] * 3)


@pytest.mark.parametrize("entrance", ["grad", "backward"])
@pytest.mark.parametrize("function", [depthwise_conv2d, operator], ids=["eager", "operator"])
@pytest.mark.parametrize("which", ["leaves", "inner", "inner input", "inner weight"])
def test_every_subset_of_the_operands(which, function, entrance, way_to_ask):
    tensors = leaves()
    inner = {"leaves": (), "inner": (0, 1, 2), "inner input": (0,), "inner weight": (1,)}[which]
    operands = [tensor * 1 if i in inner else tensor for i, tensor in enumerate(tensors)]
    output, exact = function(*operands, **CALL.options), reference(*operands, **CALL.options)
    grad_output = torch.randn_like(output)
    right = torch.autograd.grad(exact, tensors, grad_output, retain_graph=True)
    for wanted in subsets(3) * 2:
        inputs = [tensors[i] for i in wanted]
        ran, got = count(gradients_by, entrance, output, inputs, grad_output)
        assert ran == operations(wanted), wanted
        with Operators() as operators:  # which takes the way of calls that are watched
            watched = gradients_by(entrance, output, inputs, grad_output)
        names = [name.removeprefix("torch_dwconv::") for name in operators.names if name.startswith("torch_dwconv::")]
        assert sorted(names) == sorted(name for name in operations(wanted) if name != "sum")
        for i, *gradients in zip(wanted, got, watched, strict=True):
            for gradient in gradients:
                assert_close(gradient, right[i])


def test_without_a_bias_and_with_one_alone(monkeypatch, way_to_ask):
    """The weight's gradient alone is computed without the bias's."""
    tensors = leaves()
    output = depthwise_conv2d(*tensors, **CALL.options)
    calls = []

    def below(op, *args):
        calls.append((op, args))
        return op(*args)

    monkeypatch.setattr(eager, "below_autograd", below)
    for wanted, with_bias in (((1,), False), ((1, 2), True), ((0, 1), False)):
        calls.clear()
        torch.autograd.grad(output, [tensors[i] for i in wanted], torch.ones_like(output), retain_graph=True)
        assert [args[-2] for op, args in calls if op is eager.GRAD_WEIGHT] == [with_bias]
    output = depthwise_conv2d(*tensors[:2], None, **CALL.options)
    for wanted in subsets(2):
        inputs = [tensors[i] for i in wanted]
        assert count(gradients_by, "grad", output, inputs, torch.ones_like(output))[0] == operations(wanted)


@pytest.mark.parametrize("grad_mode", [False, True], ids=["", "create_graph"])
def test_the_derivatives_of_the_gradients(grad_mode, way_to_ask):
    """Double backward: the two operands of each gradient, alone and together, as functions and as operators."""
    input, weight, _ = leaves()
    grad_output = torch.randn(reference(input, weight, **CALL.options).shape, dtype=torch.float64, requires_grad=True)
    cases = (
        (depthwise_conv2d_input(input.shape, weight, grad_output, **CALL.options), (grad_output, weight)),
        (depthwise_conv2d_weight(input, weight.shape, grad_output, **CALL.options), (input, grad_output)),
    )
    for (result, operands), costs in zip(cases, (("forward", "grad_weight"), ("grad_input", "forward")), strict=True):
        v = torch.randn_like(result)
        right = torch.autograd.grad(result, operands, v, retain_graph=True)
        for wanted in subsets(2):
            inputs = [operands[i] for i in wanted]
            ran, got = count(torch.autograd.grad, result, inputs, v, retain_graph=True, create_graph=grad_mode)
            assert ran == dict.fromkeys([costs[i] for i in wanted], 1)
            assert all(torch.equal(gradient, right[i]) for i, gradient in zip(wanted, got, strict=True))


def test_a_gradient_that_is_differentiated():
    """A penalty on the input's gradient computes no weight gradient on the way, and is right for every operand."""
    for function in (depthwise_conv2d, reference):
        torch.manual_seed(1)
        tensors = leaves()
        output = function(*tensors, **CALL.options)
        grad_output = torch.randn(output.shape, dtype=torch.float64, requires_grad=True)
        ran, (grad_input,) = count(torch.autograd.grad, output, tensors[:1], grad_output, create_graph=True)
        if function is depthwise_conv2d:
            assert ran == {"grad_input": 1}
            penalty = grad_input.square().sum()
            ran, (alone,) = count(torch.autograd.grad, penalty, tensors[1], retain_graph=True)
            assert ran == {"grad_weight": 1}
            actual = torch.autograd.grad(penalty, (tensors[1], grad_output))
        else:
            exact = torch.autograd.grad(grad_input.square().sum(), (tensors[1], grad_output))
    assert torch.equal(alone, actual[0])
    torch.testing.assert_close(actual, exact)


def test_nodes_return_none_for_what_was_not_asked():
    """Never zeros, and never memory that nobody has written; hooks see it, as with PyTorch's own nodes."""
    tensors = leaves()
    output = depthwise_conv2d(*(tensor * 1 for tensor in tensors), **CALL.options)
    seen = []
    output.grad_fn.register_hook(lambda gradients, _: seen.append([g is not None for g in gradients]))
    for wanted in subsets(3):
        torch.autograd.grad(output, [tensors[i] for i in wanted], torch.ones_like(output), retain_graph=True)
    output.backward(torch.ones_like(output))
    assert seen == [[i in wanted for i in range(3)] for wanted in (*subsets(3), range(3))]


def test_an_output_that_is_asked_for_costs_nothing():
    """backward(inputs=[output]) runs the output's node, though nothing behind it is wanted."""
    input, weight, bias = leaves()
    output = depthwise_conv2d(input * 1, weight, bias, **CALL.options)
    ran, _ = count((output * 2).backward, torch.ones_like(output), inputs=[output])
    assert ran == {} and torch.equal(output.grad, torch.full_like(output, 2))


def test_hooks_and_retained_gradients():
    """A hook on what is not wanted does not run, and retain_grad keeps what is."""
    tensors = leaves()
    inner = [tensor * 1 for tensor in tensors]
    calls = []
    for i, tensor in enumerate(inner):
        tensor.retain_grad()
        tensor.register_hook(lambda _, i=i: calls.append(i))
    output = depthwise_conv2d(*inner, **CALL.options)
    torch.autograd.grad(output, tensors[1], torch.ones_like(output), retain_graph=True)
    assert calls == [1]
    assert [tensor.grad is not None for tensor in inner] == [False, True, False]
    output.backward(torch.ones_like(output), retain_graph=True)
    output.backward(torch.ones_like(output))
    assert sorted(calls) == [0, 0, 1, 1, 1, 2, 2]
    right = torch.autograd.grad(reference(*tensors, **CALL.options).sum(), tensors)
    for tensor, gradient in zip(tensors, right, strict=True):
        assert_close(tensor.grad, 2 * gradient)


def test_a_leaf_that_changes_after_the_forward_pass(way_to_ask):
    """Frozen, or with other data: what was recorded counts."""
    for change in (lambda leaf: leaf.requires_grad_(False), lambda leaf: setattr(leaf, "data", leaf.data.clone())):
        tensors = leaves()
        output = depthwise_conv2d(tensors[0] * 1, *tensors[1:], **CALL.options)
        right = torch.autograd.grad(output, tensors, torch.ones_like(output), retain_graph=True)
        change(tensors[1])
        for i, gradient in enumerate(right):
            edge = output.grad_fn.next_functions[i][0]
            edge = torch.autograd.graph.GradientEdge(edge.next_functions[0][0] if i == 0 else edge, 0)
            ran, got = count(gradients_by, "grad", output, [edge], torch.ones_like(output))
            assert ran == operations((i,)) and torch.allclose(got[0], gradient)


def test_many_gradients_at_once(way_to_ask):
    """is_grads_batched, which runs the pass under vmap."""
    tensors = leaves()
    output, exact = depthwise_conv2d(*tensors, **CALL.options), reference(*tensors, **CALL.options)
    vs = torch.randn(3, *output.shape, dtype=torch.float64)
    for i, wanted in enumerate(("grad_input", "grad_weight", "sum")):
        options = {"is_grads_batched": True, "retain_graph": True}
        ran, (got,) = count(torch.autograd.grad, output, [tensors[i]], vs, **options)
        assert wanted in ran and not (ran.keys() & {"grad_input", "grad_weight"}) - {wanted}
        torch.testing.assert_close(got, torch.autograd.grad(exact, [tensors[i]], vs, **options)[0])


def test_layers():
    """What is composed of the operators: parametrised, separable, and transposed layers, activations."""
    input = torch.randn(2, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    normed = weight_norm(DepthwiseConv2d(4, 4, 3, dtype=torch.float64))
    separable = SeparableConv2d(4, 5, 3, dtype=torch.float64)
    weight = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(8, dtype=torch.float64, requires_grad=True)
    active = torch.randn(4, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    cases = (
        (normed(input), list(normed.parameters()), "grad_input", "grad_weight"),
        (separable(input), [separable.depthwise_weight], "grad_input", "grad_weight"),
        (depthwise_conv2d(input, active, activation="silu"), [active], "grad_input", "grad_weight"),
        (depthwise_conv_transpose2d(input, weight, bias), [weight], "forward", "grad_weight"),
    )
    for output, parameters, cost_of_input, cost_of_weight in cases:
        for inputs, expected in (
            ([input], [cost_of_input]),
            (parameters, [cost_of_weight]),
            ([input, *parameters], [cost_of_input, cost_of_weight]),
        ):
            ran, _ = count(torch.autograd.grad, output.sum(), inputs, retain_graph=True)
            assert [name for name in ran if name != "sum"] == expected


def test_views_and_outputs_of_one_node():
    """Parts of a tensor come from one node: what is wanted of one of them is computed, and the right one."""
    tensors = leaves()
    source = torch.randn(4, *tensors[0].shape[1:], dtype=torch.float64, requires_grad=True)
    first, second = (source * 2).chunk(2)
    output = depthwise_conv2d(first, *tensors[1:], **CALL.options) + depthwise_conv2d(
        second, *tensors[1:], **CALL.options
    )
    exact = reference(first, *tensors[1:], **CALL.options) + reference(second, *tensors[1:], **CALL.options)
    grad_output = torch.randn_like(output)
    for inputs, expected in (
        ([source], {"grad_input": 2}),
        ([tensors[1]], {"grad_weight": 2}),
        ([second, tensors[2]], {"grad_input": 2, "sum": 2}),  # one node, so the gradient of the first part too
    ):
        ran, got = count(torch.autograd.grad, output, inputs, grad_output, retain_graph=True)
        assert ran == expected
        torch.testing.assert_close(got, torch.autograd.grad(exact, inputs, grad_output, retain_graph=True))
