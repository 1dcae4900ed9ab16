"""What fuse returns, as a module: copies, files, state_dict, devices, gradients, compilers, threads."""

import copy
import io
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from torch_dwconv import fuse
from torch_dwconv.operators import native

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.SiLU())
        self.project = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)
        self.register_buffer("range", torch.arange(5.0))

    def forward(self, x):
        x = self.stem(x)
        x = x + self.project(self.block(x))
        return self.head(x.mean((2, 3))) + torch.zeros(5, device=x.device) + self.range.flip(0)


@pytest.fixture(scope="module")
def model():
    return Net().eval()


IMAGE = torch.randn(2, 3, 16, 16)


@pytest.fixture(scope="module")
def fused(model):
    return fuse(model, IMAGE)


def near(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save", "state_dict"])
def test_copies(way, fused, model):
    if way == "deepcopy":
        twin = copy.deepcopy(fused)
    elif way == "pickle":
        twin = pickle.loads(pickle.dumps(fused))
    elif way == "torch.save":
        torch.save(fused, file := io.BytesIO())
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    else:
        torch.manual_seed(1)  # every test starts from 0, and so may the model of this file
        twin = fuse(Net().eval(), IMAGE)
        assert not torch.equal(twin(IMAGE), fused(IMAGE))
        twin.load_state_dict(fused.state_dict())
    assert repr(twin) == repr(fused) and torch.equal(twin(IMAGE), fused(IMAGE))
    with pytest.raises(RuntimeError, match="x must be"):
        twin(IMAGE[..., 1:])
    assert repr(fused) == "FusedModule(Net, x: float32 (batch, 3, 16, 16), depthwise convolutions: 1, blocks: 3)"
    with torch.no_grad():
        twin.get_buffer("fused_head_bias").add_(1)
    assert not torch.equal(twin(IMAGE), fused(IMAGE))
    near(fused(IMAGE), model(IMAGE))


def test_a_state_dict_fits_neither_way(fused, model):
    assert not [*fused.parameters()] and all(name.startswith("fused_") for name in fused.state_dict())
    expected = fused(IMAGE)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\)(.|\n)*Unexpected key\(s\)"):
        copy.deepcopy(model).load_state_dict(fused.state_dict())
    for strict in (True, False):
        with pytest.raises(
            RuntimeError, match="the weights of a fused module, Net, are folded: a state_dict of the model"
        ):
            fused.load_state_dict(model.state_dict(), strict=strict)
    assert torch.equal(fused(IMAGE), expected)


def test_moved_and_cast(fused):
    for cast in (
        lambda module: module.double(),
        lambda module: module.half(),
        lambda module: module.to(torch.bfloat16),
        lambda module: module.to("cpu", torch.float64),
    ):
        with pytest.raises(
            RuntimeError, match=r"a fused program computes in the dtypes .* cannot become .*: fuse model\.to"
        ):
            cast(copy.deepcopy(fused))
    twin = copy.deepcopy(fused)
    assert twin.to("cpu") is twin and twin.float() is twin and twin.to(torch.float32) is twin
    assert torch.equal(twin(IMAGE), fused(IMAGE))
    assert twin.to("meta")(IMAGE.to("meta")).shape == (2, 5)
    with pytest.raises(RuntimeError, match="x must be on meta, where the program is, got cpu"):
        twin(IMAGE)


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_of_inputs(order, fused, model):
    results = []
    for module in (model, fused):
        image = IMAGE.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(module(image).square().sum(), image, create_graph=order == 2)
        if order == 2:
            (gradient,) = torch.autograd.grad(gradient.square().sum(), image)
        results.append(gradient)
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


class Stopped(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way, self.conv = way, nn.Conv2d(3, 3, 3, groups=3)

    def forward(self, x):
        y = self.conv(x)
        if self.way == "detach":
            return y * y.detach().mean()
        if self.way == "detach, in-place":
            part = y[:, 0]
            part.add_(1)
            return y * y.detach().mean()
        with torch.no_grad():
            z = y.mean()
        return y * z


@pytest.mark.parametrize("way, right", [("detach", True), ("detach, in-place", False), ("no_grad", False)])
def test_gradients_that_forward_stops(way, right):
    model = Stopped(way).eval()
    fused, gradients = fuse(model, IMAGE), []
    with torch.no_grad():
        near(fused(IMAGE), model(IMAGE))
    for module in (model, fused):
        image = IMAGE.clone().requires_grad_()
        if module is fused and not right:
            with pytest.raises(RuntimeError, match="forward of Stopped turns gradients off in parts"):
                module(image)
            return
        gradients += torch.autograd.grad(module(image).sum(), image)
    near(*gradients)


def test_transforms(fused, model):
    stack, tangent = torch.randn(3, 2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    near(torch.func.vmap(fused)(stack), torch.stack([model(image) for image in stack]))
    for actual, expected in zip(
        torch.func.jvp(fused, (IMAGE,), (tangent,)), torch.func.jvp(model, (IMAGE,), (tangent,)), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)
    gradient = torch.func.grad(lambda image: fused(image).square().sum())(IMAGE)
    near(gradient, torch.func.grad(lambda image: model(image).square().sum())(IMAGE))
    constants = {name: tensor * 1.5 for name, tensor in fused.state_dict().items()}
    twin = copy.deepcopy(fused)
    twin.load_state_dict(constants)
    near(torch.func.functional_call(fused, constants, (IMAGE,)), twin(IMAGE))
    loss = torch.func.grad(lambda c: torch.func.functional_call(fused, c, (IMAGE,)).sum())(constants)
    assert all(gradient.abs().sum() > 0 for gradient in loss.values())


def test_modes(fused, model):
    expected = model(IMAGE).detach()
    with torch.no_grad():
        near(fused(IMAGE), expected)
    with torch.inference_mode():
        near(fused(IMAGE), expected)
        again = fuse(model, IMAGE)
    image = IMAGE.clone().requires_grad_()
    again(image).sum().backward()
    assert image.grad is not None


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile(backend, fused, model, fresh_compiler):
    compiled = torch.compile(fused, backend=backend, fullgraph=True, dynamic=True)
    for batch in (2, 5):
        image = torch.randn(batch, 3, 16, 16)
        with torch.no_grad():
            near(compiled(image), model(image))
    image = IMAGE.clone().requires_grad_()
    compiled(image).sum().backward()
    twin = IMAGE.clone().requires_grad_()
    model(twin).sum().backward()
    near(image.grad, twin.grad)


def test_exported_again(fused, model, tmp_path):
    program = torch.export.export(fused, (IMAGE,), dynamic_shapes={"args": ({0: torch.export.Dim("n")},)})
    torch.export.save(program, tmp_path / "fused.pt2")
    image = torch.randn(7, 3, 16, 16)
    near(torch.export.load(tmp_path / "fused.pt2").module()(image), model(image))


PACKAGE = """
import sys, torch, torch_dwconv
package = torch._inductor.aoti_load_package(sys.argv[1])
image, result = torch.load(sys.argv[2])
with torch.no_grad():
    torch.testing.assert_close(package(image), result, rtol=1e-4, atol=1e-5)
print(torch_dwconv.operators.native.cpu_library.dwconv_isa().decode())
"""


@pytest.mark.slow
def test_aot_inductor_package(fused, model, tmp_path):
    """A package has the weights as they were, not packed: a machine with other instructions packs them its own way."""
    program = torch.export.export(fused, (IMAGE,), dynamic_shapes={"args": ({0: torch.export.Dim("n", max=64)},)})
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "fused.pt2"))
    image = torch.randn(7, 3, 16, 16)
    torch.save((image, model(image).detach()), tmp_path / "expected.pt")
    for isa in native.ISA_LEVELS[: native.ISA_LEVELS.index(native.cpu_library.dwconv_isa().decode()) + 1]:
        result = subprocess.run(
            [sys.executable, "-c", PACKAGE, path, str(tmp_path / "expected.pt")],
            env=os.environ | {"TORCH_DWCONV_ISA": isa},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == isa


def test_torch_jit_is_refused(fused):
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace would fix the sizes of a fused program"):
        torch.jit.trace(fused, IMAGE)
    with pytest.raises((RuntimeError, torch.jit.frontend.NotSupportedError)):  # it has no variable arguments
        torch.jit.script(fused)


def test_threads(fused, model):
    images = [torch.randn(1 + n % 3, 3, 16, 16) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        results = [*pool.map(fused, images)]
    for image, result in zip(images, results, strict=True):
        near(result, model(image))


def test_part_of_another_model(fused, model):
    whole = nn.Sequential(fused, nn.ReLU())
    near(whole(IMAGE), model(IMAGE).relu())
    near(fuse(whole.eval(), IMAGE)(IMAGE), model(IMAGE).relu())
    with pytest.raises(RuntimeError, match="a fused program is for inference"):
        whole.train()
