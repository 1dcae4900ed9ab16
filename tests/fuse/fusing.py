"""What the tests of fuse share."""

import copy

import torch
from torch import nn

from torch_dwconv import fuse
from torch_dwconv.models.fuse.inputs import memory_format_of


def randomised(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, every BatchNorm with statistics and parameters that matter."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in [(module.running_mean, -1, 1), (module.running_var, 0.5, 2)]:
                if tensor is not None:
                    nn.init.uniform_(tensor, low, high)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias, -1, 1)
    return model.double().eval()


class Call(nn.Module):
    """A function as a module, with modules of its own by name."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *args):
        return self.function(self, *args)


def fused_and_report(model, input, tolerance=1e-12):
    """Fuses, checks the output on other data and another batch too, and returns (fused, report)."""
    reports = []
    fused = fuse(model, input, report=reports.append)
    assert fused is not model
    for example in (input, torch.randn(3, *input.shape[1:], dtype=torch.float64).to(input.dtype)):
        with torch.no_grad():
            torch.testing.assert_close(fused(example), model(example), rtol=tolerance, atol=tolerance)
    return fused, reports[0]


def calls(fused) -> list[str]:
    """The operators that a fused module calls."""
    lines = [line.partition(" = ")[2].partition("(")[0] for line in fused.code.splitlines()]
    return [line.removeprefix("torch.ops.").removesuffix(".default") for line in lines if line.startswith("torch.ops.")]


def depthwise(**options) -> nn.Conv2d:
    return nn.Conv2d(4, 8, 3, padding=1, groups=4, **options)


class OutOfOrder(nn.Module):
    """Defined in an order that is not the order of the calls: pairs by position would be wrong."""

    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm_of_first = nn.BatchNorm2d(4)
        self.first = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm_of_second = nn.BatchNorm2d(4)
        self.gelu, self.relu = nn.GELU(), nn.ReLU()

    def forward(self, x):
        x = self.relu(self.norm_of_first(self.first(x)))
        return self.gelu(self.norm_of_second(self.second(x))) + x


def kernel(forward, **modules):
    model = OutOfOrder()
    for name, module in modules.items():
        setattr(model, name, module)
    model.forward = forward.__get__(model)
    return randomised(model)


def in_blocks(model: nn.Module, image: torch.Tensor, **options):
    """Fuses a model of float64 in the image's dtype, compares with float64, and returns (fused, report).

    What comes out has the strides of what the model returns.
    """
    reports = []
    narrow = copy.deepcopy(model).to(image.dtype)
    fused = fuse(narrow, image, report=reports.append, **options)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.1, torch.float16: 0.02}[image.dtype]
    wide = copy.deepcopy(narrow).double()
    for example in (image, *(torch.randn(batch, *image.shape[1:]).to(image.dtype) for batch in (1, 3))):
        example = example.contiguous(memory_format=memory_format_of(image))
        with torch.no_grad():
            results, expected, plain = fused(example), wide(example.double()), narrow(example)
        if isinstance(results, torch.Tensor):
            results, expected, plain = (results,), (expected,), (plain,)
        for ours, exact, theirs in zip(results, expected, plain, strict=True):
            norm = exact.norm().clamp_min(1e-30)
            assert ((ours.double() - exact).norm() / norm).item() < tolerance
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
            dense = exact.numel() == 1 + sum(
                (n - 1) * step for n, step in zip(theirs.shape, theirs.stride(), strict=True)
            )
            if len(example) > 1 and dense:  # of one image PyTorch's own layers take either format
                strides = zip(ours.stride(), theirs.stride(), ours.shape, strict=True)
                assert all(own == other for own, other, size in strides if size > 1)
    return fused, reports[0]


def as_list(results) -> list[torch.Tensor]:
    return [results] if isinstance(results, torch.Tensor) else [*results]


def assert_as_exact(ours, theirs, exact) -> None:
    """Whether results are off from float64 by what rounding may do to a model: no more than `theirs` are, by and large.

    What is not finite is not compared: an operator may overflow in float16 and another sum up in float32.
    """
    dtypes = {each.dtype for each in theirs}
    least = 0.05 if torch.bfloat16 in dtypes else 0.02 if torch.float16 in dtypes else 1e-4
    assert len(ours) == len(theirs)
    for own, other, true in zip(ours, theirs, exact, strict=True):
        assert own.dtype == other.dtype and own.shape == other.shape
        if not torch.isfinite(true).all() or not torch.isfinite(other).all():
            continue
        norm = true.norm().clamp_min(1e-20)
        limit = max(least, 16 * ((other - true).norm() / norm).item())
        assert ((own - true).norm() / norm).item() <= limit
