"""The operators of BatchNorm with its activation: values, derivatives, layouts, what PyTorch's tools make of them."""

import itertools

import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from torch_dwconv import batch_norm_act
from torch_dwconv.operators import batch_norm as operators
from torch_dwconv.operators.batch_norm import composed
from torch_dwconv.operators.schemas import ACTIVATIONS

NAMES = (None, *ACTIVATIONS)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SIZES = ((3, 5, 7, 6), (2, 37, 1, 9), (4, 16, 8, 8), (1, 3, 33, 32), (9, 2, 1, 1))


def numbers(*size, dtype=torch.float64, seed=0, scale=1.0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, generator=generator, dtype=torch.float64) * scale + offset).to(dtype)


def operands(size, dtype=torch.float64, parameter_dtype=None, channels_last=False):
    x = numbers(*size, dtype=dtype, seed=1, scale=1.5, offset=0.3)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    of_channels = dict(dtype=parameter_dtype or operators.parameter_dtype(x))
    weight, bias = numbers(size[1], seed=2, offset=1.0, **of_channels), numbers(size[1], seed=3, **of_channels)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def torchs(x, mean, var, weight, bias, training, momentum, eps, activation):
    output = F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    return output if activation is None else ACTIVATIONS[activation](output)


def statistics(channels, dtype):
    return numbers(channels, seed=5, dtype=dtype), numbers(channels, seed=6, dtype=dtype).square() + 0.1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("activation", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_torchs_in_float64(size, activation, channels_last, training):
    results = []
    for function in (batch_norm_act, torchs):
        tensors = operands(size, channels_last=channels_last)
        running = statistics(size[1], torch.float64)
        output = function(tensors[0], *running, *tensors[1:], training, 0.2, 1e-3, activation)
        gradients = torch.autograd.grad(output, tensors, numbers(*size, seed=4))
        results.append([output.detach(), *gradients, *running])
    for ours, right in zip(*results, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-10)
        assert ours.stride() == right.stride() or 1 in size


@pytest.mark.parametrize("offset", [0, 3, 100, 3000])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_as_accurate_as_torchs(dtype, channels_last, offset):
    """The error against float64 of the same numbers, in the norm, is at most 1.5 times PyTorch's."""
    if dtype != torch.float32 and offset == 3000:
        pytest.skip("16 bits do not tell such numbers apart")
    size = (8, 24, 20, 20)
    x = numbers(*size, dtype=dtype, offset=offset)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    weight, bias = numbers(24, dtype=torch.float32, seed=2, offset=1.0), numbers(24, dtype=torch.float32, seed=3)
    v = numbers(*size, dtype=dtype, seed=4)

    def run(function, dtype, parameter_dtype):
        tensors = [x.to(dtype, copy=True), weight.to(parameter_dtype, copy=True), bias.to(parameter_dtype, copy=True)]
        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
        running = torch.zeros(24, dtype=parameter_dtype), torch.ones(24, dtype=parameter_dtype)
        output = function(tensors[0], *running, *tensors[1:], True, 1.0, 1e-5, None)
        return [output.detach(), *torch.autograd.grad(output, tensors, v.to(dtype)), *running]

    right = run(torchs, torch.float64, torch.float64)
    theirs, ours = run(torchs, dtype, torch.float32), run(batch_norm_act, dtype, torch.float32)
    names = ("output", "grad_input", "grad_weight", "grad_bias", "running_mean", "running_var")
    for name, exact, their, our in zip(names, right, theirs, ours, strict=True):
        # PyTorch sums in float64: what it rounds once is a sum of numbers of this size.
        size = x.double().square().mean((0, 2, 3)).sqrt() if name == "running_mean" else exact
        rounding = torch.finfo(torch.float32).eps / 4 * size.norm()
        assert (our - exact).norm() <= 1.5 * (their - exact).norm() + rounding, name


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads(dtype, channels_last):
    x, weight, bias = operands((5, 37, 41, 43), dtype, channels_last=channels_last)
    results = []
    for threads in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            output = batch_norm_act(x, None, None, weight, bias, True, activation="silu")
            results.append([output, *torch.autograd.grad(output, (x, weight, bias), torch.ones_like(output))])
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_what_is_not_finite_stays_in_its_channel():
    for value, channels_last in itertools.product((torch.nan, torch.inf, -torch.inf), (False, True)):
        x = numbers(2, 6, 9, 9, dtype=torch.float32)
        x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
        clean = batch_norm_act(x, None, None, training=True, activation="relu")
        x[1, 2, 3, 4] = value
        output = batch_norm_act(x, None, None, training=True, activation="relu")
        assert output[:, 2].isnan().all()
        others = [0, 1, 3, 4, 5]
        assert torch.equal(output[:, others], clean[:, others])


@pytest.mark.parametrize("activation", [None, "silu", "gelu", "gelu_tanh", "hardswish"])
@pytest.mark.parametrize("training", [True, False])
def test_derivatives_of_second_order_and_forward_mode(training, activation):
    x, weight, bias = operands((2, 3, 3, 2))
    running = statistics(3, torch.float64)

    def call(x, weight, bias):
        stats = (None, None) if training else running
        return batch_norm_act(x, *stats, weight, bias, training, activation=activation)

    options = dict(eps=1e-6, atol=1e-4)
    assert torch.autograd.gradcheck(call, (x, weight, bias), check_forward_ad=True, **options)
    assert torch.autograd.gradgradcheck(call, (x, weight, bias), **options)


@pytest.mark.parametrize("training", [True, False])
def test_transforms(training):
    x, weight, bias = (tensor.detach() for tensor in operands((4, 3, 5, 2)))
    running = (None, None) if training else statistics(3, torch.float64)

    def of(function):
        def loss(weight, x):
            return function(x, *running, weight, bias, training, 0.1, 1e-5, "silu").square().sum()

        batch = torch.stack([x, 2 * x])
        return (
            grad(loss)(weight, x),
            vmap(grad(loss), (None, 0))(weight, batch),
            vmap(loss, (None, 0))(weight, batch),
            jvp(loss, (weight, x), (weight, x)),
            torch.func.hessian(loss)(weight, x),
        )

    torch.testing.assert_close(of(batch_norm_act), of(torchs))


def test_only_what_is_wanted_is_computed(monkeypatch):
    x, weight, bias = operands((2, 3, 4, 4))
    for wanted in itertools.product((True, False), repeat=3):
        if any(wanted):
            tensors = [t.detach().requires_grad_(w) for t, w in zip((x, weight, bias), wanted, strict=True)]
            output = batch_norm_act(tensors[0], None, None, *tensors[1:], True)
            output.square().sum().backward()
            assert [tensor.grad is not None for tensor in tensors] == [*wanted]


def test_saves_the_input_and_numbers_of_channels():
    x, weight, bias = operands((4, 8, 16, 16))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        batch_norm_act(x, None, None, weight, bias, True, activation="relu6")
    assert sorted(tensor.numel() for tensor in saved) == [8, 8, 8, 8, x.numel()]


@pytest.mark.parametrize("activation", [0, 2, 4, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_pass_opcheck(dtype, activation):
    x, weight, bias = operands((2, 3, 5, 4), dtype)
    mean, variance = statistics(3, torch.float32)
    options = 1e-5, activation, True
    torch.library.opcheck(operators.BATCH_NORM, (x, weight, bias, *options))
    torch.library.opcheck(operators.BATCH_NORM_EVAL, (x, None, bias, mean, variance, *options))
    args = x.detach(), x.detach(), weight.detach(), None, mean, variance, 1e-5, activation
    for flags in itertools.product((True, False), repeat=3):
        torch.library.opcheck(operators.BATCH_NORM_BACKWARD, (*args, *flags, False))


def test_composed_is_what_the_operators_compute():
    for activation, channels_last in itertools.product(range(7), (False, True)):
        x, weight, bias = (tensor.detach() for tensor in operands((2, 5, 4, 3)))
        mean, variance = statistics(5, torch.float64)
        options = 1e-3, activation, channels_last
        calls = (
            (operators.BATCH_NORM, composed.batch_norm, (x, weight, bias, *options)),
            (operators.BATCH_NORM_EVAL, composed.batch_norm_eval, (x, weight, None, mean, variance, *options)),
            *(
                (
                    operators.BATCH_NORM_BACKWARD,
                    composed.batch_norm_backward,
                    (numbers(2, 5, 4, 3, seed=9), x, weight, bias, mean, variance, 1e-3, activation, *flags),
                )
                for flags in itertools.product((True, False), (True, False), (True, False), (channels_last,))
            ),
        )
        for operator, function, args in calls:
            torch.testing.assert_close(operator(*args), function(*args))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": torch.ones(2, 3, 4)}, "input must have 4 dimensions"),
        ({"weight": torch.ones(4)}, r"weight must be \(3,\), contiguous"),
        ({"weight": torch.ones(3).double()}, r"weight must be \(3,\), contiguous"),
        ({"bias": torch.ones(6)[::2]}, r"bias must be \(3,\), contiguous"),
        ({"input": torch.ones(0, 3, 4, 4)}, "no elements"),
        ({"input": torch.ones(2, 3, 4, 4, dtype=torch.int32)}, "float32"),
        ({"activation": 7}, r"activation must be 0 \(none\) to 6, got 7"),
    ],
)
def test_the_operator_refuses(change, message):
    args = {"input": torch.ones(2, 3, 4, 4), "weight": None, "bias": None, "epsilon": 1e-5, "activation": 0}
    with pytest.raises(RuntimeError, match=message):
        operators.BATCH_NORM(*(args | change).values(), False)


def test_what_has_no_kernel_is_torchs():
    for x in (
        torch.randn(4, 3, 5),
        torch.randn(4, 3, 2, 2, 2),
        torch.randn(0, 3, 4, 4),
        torch.randn(2, 3, 4, 4, dtype=torch.float64),
    ):
        weight = torch.ones(3, dtype=x.dtype)
        ours = batch_norm_act(x, torch.zeros(3).to(x), torch.ones(3).to(x), weight, activation="relu")
        right = torch.relu(F.batch_norm(x, torch.zeros(3).to(x), torch.ones(3).to(x), weight))
        torch.testing.assert_close(ours, right)


@pytest.mark.parametrize(
    "args",
    [
        (torch.ones(1, 3, 1, 1), None, None, None, None, True),
        (torch.ones(2, 3, 4, 4), None, None, None, None, False),
        (torch.ones(2, 3, 4, 4), torch.zeros(4), torch.ones(4), None, None, True),
        (torch.ones(2, 3, 4, 4), torch.zeros(3), torch.ones(3), torch.ones(4), None, True),
        (torch.ones(2, 3, 4, 4), torch.zeros(3), torch.ones(3), torch.ones(3).double(), None, True),
        (torch.ones(2, 3, 4, 4).double(), torch.zeros(3), torch.ones(3), None, None, True),
        (torch.ones(3), torch.zeros(3), torch.ones(3), None, None, True),
    ],
)
def test_errors_are_torchs(args):
    with pytest.raises(Exception) as right:
        F.batch_norm(*args)
    with pytest.raises(type(right.value)) as ours:
        batch_norm_act(*args)
    assert str(ours.value) == str(right.value)


def test_an_activation_that_there_is_not():
    with pytest.raises(ValueError, match="activation must be None or one of relu"):
        batch_norm_act(torch.ones(2, 3, 4, 4), None, None, training=True, activation="tanh")


@pytest.mark.parametrize("parameter_dtype", [torch.float32, torch.bfloat16])
def test_sixteen_bits_with_parameters_of_either_width(parameter_dtype):
    x, weight, bias = operands((4, 6, 8, 8), torch.bfloat16, parameter_dtype)
    running = torch.zeros(6, dtype=parameter_dtype), torch.ones(6, dtype=parameter_dtype)
    theirs = running[0].clone(), running[1].clone()
    output = batch_norm_act(x, *running, weight, bias, True, activation="relu6")
    right = torchs(x, *theirs, weight, bias, True, 0.1, 1e-5, "relu6")
    torch.testing.assert_close(output, right, rtol=0.016, atol=4e-3)  # PyTorch rounds before the activation
    torch.testing.assert_close(running, theirs)
    ours, right = (torch.autograd.grad(o, (x, weight, bias), torch.ones_like(o)) for o in (output, right))
    assert [g.dtype for g in ours] == [g.dtype for g in right]
    # PyTorch rounds before the activation: a few values lie on another side of its kinks.
    assert all((a.float() - b.float()).norm() <= 0.1 * b.float().norm() + 0.1 for a, b in zip(ours, right, strict=True))


def test_functional_call_and_checkpoint():
    from torch_dwconv import BatchNormAct2d

    layer, plain = BatchNormAct2d(3, activation="silu").double(), torch.nn.BatchNorm2d(3).double()
    x = numbers(4, 3, 5, 5).requires_grad_()
    parameters = {"weight": numbers(3, seed=7), "bias": numbers(3, seed=8)}
    torch.testing.assert_close(functional_call(layer, parameters, x), F.silu(functional_call(plain, parameters, x)))
    output = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    right = F.silu(plain(x))
    torch.testing.assert_close(output, right)
    (ours,), (theirs,) = (torch.autograd.grad(o.square().sum(), x) for o in (output, right))
    torch.testing.assert_close(ours, theirs)
