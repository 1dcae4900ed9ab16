"""fuse: the model stays as it is, whatever it does while it is captured; what cannot be a right program is refused."""

import copy
import functools
import importlib
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from torch_dwconv import convert, fuse

pytestmark = pytest.mark.usefixtures("one_torch_thread")

IMAGE = torch.randn(2, 4, 8, 8)


class Model(nn.Module):
    def __init__(self, function=None):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("count", torch.zeros(()))
        self.calls, self.seen, self.cache, self.grid = 0, [], {}, None
        self.function = function
        self.eval()

    def forward(self, x):
        y = self.norm(self.conv(x))
        return y if self.function is None else self.function(self, y)


def snapshot(model):
    """All that a model holds: which objects, and what is in its tensors and containers."""
    state = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            state[name, key] = (id(value), repr(value))
    for name, tensor in model.state_dict(keep_vars=True).items():
        state[name] = (id(tensor), tensor._version, tensor.requires_grad, tensor.clone().detach().tolist())
    return state


def with_grid(model, y):
    if model.grid is None:
        model.grid = torch.arange(8.0)[:, None] * torch.ones(8)
    return y + model.grid


def with_cache(model, y):
    if "key" not in model.cache:
        model.cache["key"] = model.conv.weight.sum() * torch.ones(8)
    return y * model.cache["key"]


def with_list(model, y):
    model.seen.append(y)
    return y + 1


@pytest.mark.parametrize("function", [with_grid, with_cache, with_list], ids=lambda function: function.__name__)
@pytest.mark.parametrize("change", [lambda model: model, convert], ids=["plain", "converted"])
def test_what_forward_leaves_behind_is_not_in_the_model(function, change):
    """timm's levit_128s, efficientformerv2_s0 and tiny_vit_5m_224 held proxies afterwards, and did not pickle."""
    model = change(Model(function))
    before, expected = snapshot(model), copy.deepcopy(model)(IMAGE)
    fused = fuse(model, IMAGE)
    assert snapshot(model) == before
    torch.testing.assert_close(fused(IMAGE), expected, rtol=1e-4, atol=1e-5)
    pickle.dumps(model)
    torch.testing.assert_close(model(IMAGE), expected)


def count_in_a_buffer(model, y):
    model.count.add_(1)
    return y + model.count


def count_in_python(model, y):
    model.calls += 1
    return y + model.calls


def recurrent(model, y):
    """It forgets its state when it sees another size."""
    if model.grid is None or model.grid.shape != y.shape:
        model.grid = torch.zeros_like(y)
    model.grid = torch.tanh(y + model.grid)
    return model.grid


def count_by_a_new_tensor(model, y):
    model.count = model.count + 1
    return y * model.count


def on_values(model, y):
    return y + 1 if y.sum() > 0 else y - 1


REFUSED = {
    "a counter": (count_in_a_buffer, "forward writes to the buffer count, and a fused program has no state"),
    "a counter of Python": (count_in_python, "gives another result when it is called again: it is random or has state"),
    "weights that are trained": (
        lambda model, y: y * 2 if model.conv.weight.requires_grad else y,
        "does not compute what the model computes",
    ),
    "recurrent": (recurrent, "gives another result when it is called again: it is random or has state"),
    "a counter set": (count_by_a_new_tensor, "forward writes to the buffer count|cannot capture"),
    "noise": (lambda model, y: y + torch.randn_like(y), "forward calls randn_like, whose result is random"),
    "dropout": (
        lambda model, y: F.dropout(y, 0.5),
        "forward calls (dropout|bernoulli|native_dropout|rand.*), whose result",
    ),
    "values": (on_values, "torch.export cannot capture Model: .*\n.*convert"),
    "numpy": (lambda model, y: torch.from_numpy(y.numpy() + 1), "(torch.export cannot capture|does not compute)"),
    "another type": (lambda model, y: Model, "torch.export cannot capture Model"),
    "training": (
        lambda model, y: F.batch_norm(y, model.norm.running_mean, model.norm.running_var, training=True),
        "writes to",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name):
    function, text = REFUSED[name]
    model = Model(function)
    before = snapshot(model)
    reports = []
    with pytest.raises(RuntimeError, match=text):
        fuse(model, IMAGE, report=reports.append)
    assert snapshot(model) == before and reports == []


def test_a_dropout_that_does_nothing_is_none():
    model = Model(lambda model, y: F.dropout(F.dropout(y, 0.5, training=False), 0.0))
    torch.testing.assert_close(fuse(model, IMAGE)(IMAGE), model(IMAGE), rtol=1e-4, atol=1e-5)


def test_an_input_that_forward_writes_to():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, groups=4)).eval()
    image = IMAGE.clone()
    with pytest.raises(RuntimeError, match=r"forward writes to input \(USER_INPUT_MUTATION\)"):
        fuse(model, image)
    assert torch.equal(image, IMAGE)


def test_training_mode_and_no_module_are_refused():
    model = Model().train()
    with pytest.raises(RuntimeError, match=r"model must be in eval mode .* got training=True: call model\.eval\(\)"):
        fuse(model, IMAGE)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got str"):
        fuse("model", IMAGE)
    with pytest.raises(RuntimeError, match="must not be on the meta device"):
        fuse(Model().to("meta"), IMAGE.to("meta"))


def test_autocast_is_refused():
    model = Model()
    fused = fuse(model, IMAGE)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError, match="autocast must be off, a program has one dtype"):
            fuse(model, IMAGE)
        with pytest.raises(RuntimeError, match="autocast is on, and a fused program computes in the dtypes"):
            fused(IMAGE)
    fused(IMAGE)


class Uncopied(Model):
    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle a lock")


class Itself(Model):
    def __deepcopy__(self, memo):
        return self


def test_a_model_that_cannot_be_copied():
    with pytest.raises(RuntimeError, match=r"model cannot be copied, .* cannot pickle a lock") as raised:
        fuse(Uncopied(), IMAGE)
    assert isinstance(raised.value.__cause__, TypeError)
    with pytest.raises(RuntimeError, match="its copy shares tensors with it"):
        fuse(Itself(), IMAGE)
    model = Model()
    model.lock = threading.Lock()
    with pytest.raises(RuntimeError, match="model cannot be copied"):
        fuse(model, IMAGE)


def test_what_would_use_the_model_itself():
    model = Model()
    seen = []
    handle = model.conv.register_forward_hook(lambda module, args, output: seen.append(output))
    with pytest.raises(RuntimeError, match=r"conv \(Conv2d\) has a hook, .*: remove it before fuse"):
        fuse(model, IMAGE)
    handle.remove()
    assert seen == []
    forward = model.norm.forward
    model.norm.forward = lambda x: forward(x) + 1
    with pytest.raises(RuntimeError, match=r"norm \(BatchNorm2d\): its forward was replaced by a function"):
        fuse(model, IMAGE)
    model.norm.forward = functools.partial(forward)  # as accelerate does it: a copy of it is the copy's
    torch.testing.assert_close(fuse(model, IMAGE)(IMAGE), model(IMAGE), rtol=1e-4, atol=1e-5)


def test_what_another_compiler_has_made():
    model = Model()
    with pytest.raises(RuntimeError, match=r"was compiled by torch\.compile: fuse the model itself"):
        fuse(torch.compile(model, backend="eager").eval(), IMAGE)
    scripted = torch.jit.script(nn.Conv2d(4, 4, 3, groups=4))
    with pytest.raises(RuntimeError, match=r"^0 was compiled by TorchScript: fuse the model before that"):
        fuse(nn.Sequential(scripted).eval(), IMAGE)


def test_a_default_device_changes_nothing():
    model = Model(lambda model, y: y / 3).eval()
    reports = []
    with torch.device("meta"):
        fused = fuse(model, IMAGE, report=reports.append)
        assert fused(IMAGE).device.type == "cpu"
    torch.testing.assert_close(fused(IMAGE), model(IMAGE), rtol=1e-4, atol=1e-5)
    assert reports[0].fused == {"conv": "BatchNorm2d, div"} and "batch from 0" in reports[0].inputs


def test_hooks_of_torch_are_part_of_the_program():
    model = Model()
    prune.l1_unstructured(model.conv, "weight", 0.5)
    torch.testing.assert_close(fuse(model, IMAGE)(IMAGE), model(IMAGE), rtol=1e-4, atol=1e-5)


def scale_constants(program):
    for tensor in program.constants.values():
        if tensor.is_floating_point():
            tensor.mul_(1.01)


def fail(program):
    raise ValueError("on purpose")


@pytest.mark.parametrize("wrong, text", [(scale_constants, "result is off by"), (fail, "on purpose")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wrong_pass_is_noticed(monkeypatch, wrong, text, dtype):
    """A program with fewer passes takes the place of one that is wrong; if that is wrong too, there is none."""
    package = importlib.import_module("torch_dwconv.models.fuse")
    model, image = Model().to(dtype), IMAGE.to(dtype)
    monkeypatch.setattr(package, "PASSES", (*package.PASSES, wrong))
    with pytest.warns(UserWarning, match=f"Model is fused without blocks.*{text}"):
        fused = fuse(model, image)
    torch.testing.assert_close(fused(image), model(image), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(package, "_WITHOUT_BLOCKS", package.PASSES)
    with pytest.warns(UserWarning, match=f"Model is fused without anything folded.*{text}"):
        fused = fuse(model, image)
    torch.testing.assert_close(fused(image), model(image), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(package, "_AS_CAPTURED", package.PASSES)
    with pytest.raises((RuntimeError, ValueError), match=text):
        fuse(model, image)


class Deep(nn.Module):
    """Rounding errors grow on their way through it: in bfloat16 and float16 the result is far from float64's."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), nn.Hardswish(), nn.Conv2d(4, 4, 1)
                )
                for _ in range(12)
            )
        )

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
            x = (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-2)
        return x, x.argmax(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_is_no_difference(dtype):
    fuse(Deep().to(dtype).eval(), torch.randn(1, 4, 16, 16).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_result_in_another_dtype_has_the_rounding_of_what_computed_it(dtype):
    model = Model(lambda model, y: F.softmax(y.mean((2, 3)).double(), 1)).to(dtype)
    fused = fuse(model, IMAGE.to(dtype))
    assert fused(IMAGE.to(dtype)).dtype == torch.float64
