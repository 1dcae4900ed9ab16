"""The operator of a block: packed weights and steps by their definitions, derivatives, transforms, errors."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from torch_dwconv.operators.block import BLOCK
from torch_dwconv.operators.block.composed import composed
from torch_dwconv.operators.block.packing import packed, packed_size, unpacked
from torch_dwconv.operators.block.steps import (
    DENSE,
    DEPTHWISE,
    FUNCTIONS,
    LAYER_NORM,
    MEAN,
    NAMES,
    SQUEEZE_EXCITE,
    Step,
    decoded,
    encoded,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "size, dilation_w",
    [((1, 1, 1, 1), 1), ((5, 3, 3, 3), 1), ((16, 7, 1, 1), 1), ((33, 5, 2, 3), 2), ((20, 3, 3, 1), 2)],
)
def test_packed_weights(dtype, size, dilation_w):
    """Each tap of each output where the definition says, zeros elsewhere, and back."""
    weight = torch.randn(size).to(dtype)
    outputs, channels, kernel_h, kernel_w = size
    result = packed(weight, dilation_w)
    assert tuple(result.shape) == packed_size(dtype, outputs, channels, kernel_h, kernel_w, dilation_w)
    expected = torch.zeros_like(result)
    for output, kh, kw, c in itertools.product(range(outputs), range(kernel_h), range(kernel_w), range(channels)):
        place = [output // 16, (kh * kernel_w + kw) * channels + c, output % 16]
        if dtype == torch.bfloat16:
            length = channels if dilation_w > 1 and kernel_w > 1 else kernel_w * channels
            segment, tap = divmod(place[1], length)
            place = [place[0], segment * -(-length // 2) + tap // 2, place[2], tap % 2]
        expected[tuple(place)] = weight[output, c, kh, kw]
    assert torch.equal(result, expected)
    assert torch.equal(unpacked(result, outputs, channels, kernel_h, kernel_w, dilation_w), weight)


def test_steps_and_their_integers():
    steps = [
        Step(DENSE, 2, 12),
        Step(DEPTHWISE, 4, 24, 3, 5, 2, 1, 1, 2, 1, 4, 0, 4),
        Step(SQUEEZE_EXCITE, 1, 5, gate=7),
    ]
    assert decoded(encoded(steps)) == steps and len(encoded(steps)) == 42
    assert [name for name in NAMES if name] == [*FUNCTIONS] and NAMES.index("hardsigmoid") == 7
    for numbers, message in (
        ([], "14 integers for each step, got 0"),
        ([0] * 13, "14 integers for each step, got 13"),
        ([5] + [0] * 13, "the kind of a step must be 0 to 4, got 5"),
        ([0, 9] + [0] * 12, "activation must be 0 .none. to 8, got 9"),
        ([3] + [1] * 13, "the gate of squeeze_excite must not be 1"),
        ([0] * 13 + [7], "the gate of dense must not be 7"),
    ):
        with pytest.raises(RuntimeError, match=message):
            decoded(numbers)


def operands(dtype=torch.float32, batch=2):
    """A block with every kind of step, and the plain weights of its layers."""
    torch.manual_seed(0)
    shapes = [
        (12, 6, 1, 1),
        (12,),
        (24, 1, 3, 3),
        (24,),
        (5, 24, 1, 1),
        (5,),
        (24, 5, 1, 1),
        (24,),
        (7, 24, 2, 3),
        (7,),
    ]
    plain = [torch.randn(shape) * 0.5 for shape in shapes]
    steps = [
        Step(DENSE, 2, 12),
        Step(DEPTHWISE, 4, 24, 3, 3, 2, 1, 1, 1, 1, 1, 1, 2),
        Step(SQUEEZE_EXCITE, 1, 5, gate=8),
        Step(LAYER_NORM, 0, 24),
        Step(DENSE, 3, 7, 2, 3, 1, 2, 1, 1, 0, 1, 1, 0),
    ]
    constants = [
        (packed(tensor.to(dtype)) if tensor.dim() == 4 else tensor.float()) if at not in (2, 3) else tensor.to(dtype)
        for at, tensor in enumerate(plain)
    ]
    return torch.randn(batch, 6, 9, 8).to(dtype), constants, torch.randn(batch, 7, 5, 4).to(dtype), steps, plain


def by_hand(x, residual, plain):
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = plain
    x = F.relu6(F.conv2d(x, w1, b1))
    x = F.silu(F.conv2d(F.pad(x, (1, 2, 1, 1)), w2, b2, stride=(2, 1), groups=12))
    gate = F.conv2d(F.relu(F.conv2d(x.mean((2, 3), keepdim=True), w3, b3)), w4, b4)
    x = x * torch.sigmoid(gate)
    x = F.layer_norm(x.movedim(1, -1), (24,), eps=1e-3).movedim(-1, 1)
    x = F.conv2d(F.pad(x, (1, 0, 0, 1)), w5, b5, stride=(1, 2))
    return F.hardswish(x if residual is None else x + residual)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_values_and_strides(dtype, with_residual, layout):
    x, constants, residual, steps, plain = operands(dtype)
    residual = residual if with_residual else None
    expected = by_hand(x.double(), None if residual is None else residual.double(), [each.double() for each in plain])
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    elif layout == "strided":
        x = torch.cat([x, x], 3)[..., : x.shape[3]]
    for function in (BLOCK, composed):
        result = function(x, constants, residual, encoded(steps), 1e-3)
        assert result.dtype == dtype and result.stride() == (7 * 20, 1, 28, 7)
        tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.15, torch.float16: 0.02}[dtype]
        torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


def test_mean_and_sizes_of_one():
    x, steps = torch.randn(3, 20, 5, 4), [Step(MEAN, 0, 20)]
    result = BLOCK(x, [], None, encoded(steps))
    torch.testing.assert_close(result, x.mean((2, 3), keepdim=True))
    assert result.stride() == (20, 1, 20, 20)
    assert BLOCK(x[:0], [], None, encoded(steps)).shape == (0, 20, 1, 1)


@pytest.mark.parametrize("size", [(3, 8, 1, 1), (3, 8, 4, 5), (1, 8, 1, 5), (4, 1, 3, 1)], ids=str)
@pytest.mark.parametrize("dims", itertools.permutations(range(4)), ids=str)
def test_every_order_of_memory(size, dims):
    """The input's axes in memory in any order, those of size 1 too."""
    weight, bias = torch.randn(5, size[1], 1, 1), torch.randn(5)
    x = torch.randn([size[dim] for dim in dims]).permute(*torch.argsort(torch.tensor(dims)))
    assert x.shape == size
    result = BLOCK(x, [packed(weight), bias], None, encoded([Step(DENSE, 0, 5)]))
    torch.testing.assert_close(result, F.conv2d(x, weight, bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_activations(activation):
    x, weight = torch.randn(1, 3, 4, 5) * 4, torch.randn(19, 3, 1, 1)
    result = BLOCK(x, [packed(weight), torch.ones(19)], None, encoded([Step(DENSE, NAMES.index(activation), 19)]))
    torch.testing.assert_close(result, FUNCTIONS[activation](F.conv2d(x, weight, torch.ones(19))), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("needs_gradient", [True, False])
def test_opcheck(needs_gradient):
    x, constants, residual, steps, _ = operands()
    tensors = [x, *constants, residual]
    for tensor in tensors:
        tensor.requires_grad_(needs_gradient)
    torch.library.opcheck(BLOCK, (x, constants, residual, encoded(steps), 1e-3))


def test_gradients():
    x, _, residual, steps, plain = operands()
    leaves = [x, residual, *plain]
    for leaf in leaves:
        leaf.requires_grad_()
    packs = [
        (packed(tensor) if tensor.dim() == 4 else tensor) if at not in (2, 3) else tensor
        for at, tensor in enumerate(plain)
    ]
    actual = torch.autograd.grad(BLOCK(x, packs, residual, encoded(steps), 1e-3).square().sum(), leaves)
    expected = torch.autograd.grad(by_hand(x, residual, plain).square().sum(), leaves)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


def test_transforms():
    x, constants, residual, steps, plain = operands()

    def run(x, constants=constants, residual=residual):
        return BLOCK(x, constants, residual, encoded(steps), 1e-3)

    stack = torch.randn(3, *x.shape)
    torch.testing.assert_close(torch.vmap(run)(stack), torch.stack([run(each) for each in stack]))
    many = [torch.stack([constant, constant * 0.5]) for constant in constants]
    result = torch.vmap(lambda own: run(x, own))(many)
    torch.testing.assert_close(result, torch.stack([run(x, [each[at] for each in many]) for at in (0, 1)]))
    near = {"rtol": 1e-3, "atol": 1e-4}
    for actual, expected in zip(
        torch.func.jvp(run, (x,), (x,)),
        torch.func.jvp(lambda x: by_hand(x, residual, plain), (x,), (x,)),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, **near)
    hessians = [
        torch.func.jacrev(torch.func.jacrev(lambda x, f=function: f(x[None])[0, 0, 0, 0]))(x[0, :, :5, :4])
        for function in (lambda x: run(x, residual=None), lambda x: by_hand(x, None, plain))
    ]
    assert hessians[0].abs().sum() > 0
    torch.testing.assert_close(*hessians, **near)


def test_fake_tensors_refuse_what_does_not_fit():
    x, constants, residual, steps, _ = operands()
    numbers = encoded(steps)
    meta = [tensor.to("meta") for tensor in constants]
    for args, message in (
        ((x, meta[1:], residual, numbers), "constants must be 10 tensors, got 9"),
        ((x[0], meta, residual, numbers), "input must have 4 dimensions, got 3"),
        ((x[:, 1:], meta, residual, numbers), "the weight of dense must be .1, 5, 16., got .1, 6, 16."),
        ((x, meta, residual[:, 1:], numbers), "residual must be"),
        ((x, meta, residual.half(), numbers), "residual must have the dtype of the other operands"),
        ((x, [meta[0], meta[0], *meta[2:]], residual, numbers), "the bias of dense must be"),
        ((x, [], x, encoded([Step(MEAN, 0, 6)])), "a residual needs a dense step at the end, not mean"),
    ):
        with pytest.raises(RuntimeError, match=message):
            BLOCK(*(each.to("meta") if isinstance(each, torch.Tensor) else each for each in args), 1e-3)
