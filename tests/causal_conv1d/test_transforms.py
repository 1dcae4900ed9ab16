"""Derivatives of any order, torch.func, compiled and exported programs, and the module in another's place."""

import importlib
import importlib.util
import subprocess
import sys

import pytest
import torch

from torch_dwconv import causal_conv1d
from torch_dwconv.causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from torch_dwconv.operators.sequence import BACKWARD, CAUSAL_CONV1D, UPDATE
from torch_dwconv.operators.sequence.composed import composed, composed_backward, composed_update

from .reference import convolved
from .test_function import close


def operands(dtype=torch.float64, grad=True, batch=2):
    torch.manual_seed(0)
    sizes = (batch, 5, 11), (5, 4), (5,), (batch, 5, 3)
    return [torch.randn(size, dtype=dtype, requires_grad=grad) for size in sizes]


SEQ_IDX = torch.tensor([[0] * 4 + [1] * 7, [0] * 9 + [-1] * 2], dtype=torch.int32)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("seq_idx", [None, SEQ_IDX], ids=["one", "many"])
def test_first_and_second_derivatives(activation, seq_idx):
    def function(x, weight, bias, states):
        return causal_conv1d_fn(x, weight, bias, seq_idx, states, True, activation=activation)

    torch.autograd.gradcheck(function, operands())
    torch.autograd.gradgradcheck(function, operands())


def test_only_what_is_asked_for():
    x, weight, bias, states = operands()
    out = causal_conv1d_fn(x.detach(), weight, bias.detach(), None, states.detach(), activation="silu")
    (grad,) = torch.autograd.grad(out.sum(), weight)
    assert grad.shape == weight.shape and x.grad is None


def test_torch_func():
    x, weight, bias, states = operands(grad=False)

    def loss(x, weight, bias, states):
        return causal_conv1d_fn(x, weight, bias, None, states, activation="silu").square().sum()

    found = torch.func.grad(loss, argnums=(0, 1, 2, 3))(x, weight, bias, states)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias, states)]
    wanted = torch.autograd.grad(convolved(*leaves[:3], None, leaves[3], "silu").square().sum(), leaves)
    for got, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, right)
    _, tangent = torch.func.jvp(lambda x: loss(x, weight, bias, states), (x,), (x,))
    torch.testing.assert_close(tangent, (wanted[0] * x).sum())
    weights = torch.stack([weight, 2 * weight])
    batched = torch.vmap(lambda w: causal_conv1d_fn(x, w, bias, SEQ_IDX, activation="silu"))(weights)
    for i in range(2):
        assert close(batched[i], convolved(x, weights[i], bias, SEQ_IDX, None, "silu"), torch.float64)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        primal, tangent = torch.autograd.forward_ad.unpack_dual(causal_conv1d_fn(dual, weight))
        assert close(tangent, primal, torch.float64)


@pytest.mark.parametrize("layout", ["ncl", "nlc"])
def test_operators_keep_their_promises(layout):
    """Schemas, fake kernels, autograd registrations and compiled calls, by PyTorch's own check."""
    for grad in (False, True):
        x, weight, bias, states = operands(torch.float32, grad)
        if layout == "nlc":
            x = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_(grad)
        for given in ((x, weight, bias, states, SEQ_IDX, 1, 4), (x, weight, None, None, None, 1, 0)):
            torch.library.opcheck(CAUSAL_CONV1D, given)
    x, weight, bias, states = operands(torch.float32, False)
    torch.library.opcheck(
        BACKWARD, (x, x, weight, bias, states, SEQ_IDX, 1, 4), test_utils=("test_schema", "test_faketensor")
    )
    for ring in (None, torch.zeros(2, dtype=torch.int32)):
        torch.library.opcheck(
            UPDATE,
            (x, torch.randn(2, 5, 4), weight, bias, ring, None, 4),
            test_utils=("test_schema", "test_faketensor"),
        )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ncl", "nlc"])
def test_compiled(layout):
    def step(x, weight, bias, states):
        if layout == "nlc":
            x = x.transpose(1, 2).contiguous().transpose(1, 2)
        out, final = causal_conv1d_fn(x * 2, weight, bias, None, states, True, activation="silu")
        return (out + 1).sum() + final.square().sum(), out

    leaves, others = operands(torch.float32), operands(torch.float32)
    expected, right = step(*leaves)
    got, out = torch.compile(step, fullgraph=True)(*others)
    torch.testing.assert_close((got, out), (expected, right))
    for a, b in zip(torch.autograd.grad(expected, leaves), torch.autograd.grad(got, others), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_a_compiled_update_writes_to_its_cache():
    def step(x, state, weight):
        return causal_conv1d_update(x + 1, state, weight, activation="silu") * 2

    x, weight = torch.randn(2, 8), torch.randn(8, 4)
    state = torch.randn(2, 8, 4)
    other = state.clone()
    expected = step(x, state, weight)
    torch.testing.assert_close(torch.compile(step, fullgraph=True)(x, other, weight), expected)
    assert torch.equal(state, other)


def test_exported():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(5, 4))

        def forward(self, x):
            return causal_conv1d_fn(x, self.weight, activation="silu")

    model, length = Model(), torch.export.Dim("length", min=2, max=1000)
    program = torch.export.export(model, (torch.randn(2, 5, 11),), dynamic_shapes=({2: length},))
    assert "causal_conv1d" in str(program.graph)
    x = torch.randn(2, 5, 40)
    assert torch.equal(program.module()(x), model(x))


def test_composed_is_the_operator():
    """What runs where there is no kernel, and what the kernels are differentiated by."""
    for dtype in (torch.float32, torch.bfloat16):
        x, weight, bias, states = (t.to(dtype) for t in operands(grad=False))
        given = (x, weight, bias, states, SEQ_IDX, 2, 4)
        given = (x, weight, bias, torch.randn(2, 5, 6).to(dtype), SEQ_IDX, 2, 4)
        assert close(composed(*given), CAUSAL_CONV1D(*given).double(), dtype)
        for got, right in zip(composed_backward(x, *given), BACKWARD(x, *given), strict=True):
            assert got.dtype == right.dtype and close(got, right.double(), dtype)
        indices = torch.tensor([2, -1], dtype=torch.int32)
        for ring in (None, torch.tensor([7, 3], dtype=torch.int32)):
            for count in (1, 3, 9):
                one, other = (torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1)).to(dtype) for _ in "ab")
                new = x[:, :, :count]
                assert close(
                    composed_update(new, one, weight, bias, ring, indices, 4),
                    UPDATE(new, other, weight, bias, ring, indices, 4).double(),
                    dtype,
                )
                assert torch.equal(one, other)


def test_install(monkeypatch):
    names = ("causal_conv1d", "causal_conv1d.causal_conv1d_interface", "causal_conv1d.causal_conv1d_varlen")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    causal_conv1d.install()
    import causal_conv1d as found
    from causal_conv1d.causal_conv1d_interface import causal_conv1d_fn as by_module

    assert found.causal_conv1d_update is causal_conv1d_update and by_module is causal_conv1d_fn
    assert importlib.util.find_spec("causal_conv1d") is not None
    causal_conv1d.install()
    monkeypatch.setitem(sys.modules, "causal_conv1d", importlib)
    with pytest.raises(RuntimeError, match="imported already"):
        causal_conv1d.install()
    causal_conv1d.install(force=True)
    assert sys.modules["causal_conv1d"] is causal_conv1d
    for name in names:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_other_instruction_sets(isa):
    """The same tests on the kernels of older machines."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "tests/causal_conv1d", "-k"]
    done = subprocess.run(
        [*command, "random and (seed0 or 0) or grid or long or infinit"],
        env={**__import__("os").environ, "TORCH_DWCONV_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
