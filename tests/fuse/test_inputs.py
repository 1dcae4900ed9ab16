"""fuse: what a program takes, and that everything else is an error and never a wrong result."""

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from torch_dwconv import DepthwiseConv2d, fuse

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Block(nn.Module):
    """Its forward takes other ways for other arguments and flags."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.flag = False
        self.norm.running_mean.uniform_(-1, 1)
        self.eval()

    def forward(self, x, skip=None, scale=1.0):
        y = self.conv(x)
        if skip is None:
            return y * scale if not self.flag else -y
        return F.relu(self.norm(y)) * scale + skip

    def features(self, x):
        return [self.conv(x)]


@pytest.fixture
def block():
    return Block()


IMAGE = torch.randn(2, 4, 8, 8)


def near(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_another_branch_is_refused(block):
    """It computed the branch of the trace."""
    fused = fuse(block, (IMAGE,))
    near(fused(IMAGE), block(IMAGE))
    with pytest.raises(TypeError, match="takes the arguments of example_inputs, x, got skip too"):
        fused(IMAGE, skip=IMAGE)
    with pytest.raises(TypeError, match="got skip too"):
        fused(IMAGE, IMAGE)
    with pytest.raises(TypeError, match="got scale too"):
        fused(IMAGE, scale=2.0)
    near(fused(IMAGE, skip=None), block(IMAGE))  # the default says nothing new
    near(fused(x=IMAGE), block(IMAGE))


def test_the_other_branch_can_be_the_program(block):
    fused = fuse(block, (IMAGE,), example_kwargs={"skip": IMAGE, "scale": 2.0})
    near(fused(IMAGE, scale=2.0, skip=-IMAGE), block(IMAGE, -IMAGE, 2.0))
    near(fused(IMAGE, -IMAGE, 2.0), block(IMAGE, -IMAGE, 2.0))
    for args, kwargs, error, text in [
        ((IMAGE, IMAGE), {}, ValueError, r"scale must be 2\.0, as in example_inputs, got 1\.0"),
        ((IMAGE, IMAGE, 3.0), {}, ValueError, r"scale must be 2\.0, as in example_inputs, got 3\.0"),
        ((IMAGE, IMAGE, 2), {}, ValueError, r"scale must be 2\.0, as in example_inputs, got 2"),
        ((IMAGE, IMAGE, IMAGE), {}, ValueError, r"scale must be 2\.0, as in example_inputs, got Tensor"),
        ((IMAGE,), {"scale": 2.0}, TypeError, "skip must be a tensor, as in example_inputs, got NoneType"),
        ((IMAGE, IMAGE[:1], 2.0), {}, RuntimeError, r"skip must be .* got \(1, 4, 8, 8\)"),
        ((), {"skip": IMAGE, "scale": 2.0}, TypeError, "missing a required argument: 'x'"),
        ((IMAGE, IMAGE, 2.0), {"other": 1}, TypeError, "unexpected keyword argument 'other'"),
    ]:
        with pytest.raises(error, match=text):
            fused(*args, **kwargs)


def test_a_flag_cannot_be_set_and_other_methods_are_absent(block):
    fused = fuse(block, IMAGE)
    with pytest.raises(AttributeError, match=r"flag cannot be set: the program of a fused module is fixed\. Set it on"):
        fused.flag = True
    for name in ("features", "flag", "conv", "forward_intermediates"):
        with pytest.raises(
            AttributeError, match=rf"no attribute '{name}': of the model, Block, only forward .* was captured"
        ):
            getattr(fused, name)
        assert not hasattr(fused, name)
    assert fused.training is False and fused.eval() is fused and fused.train(False) is fused
    with pytest.raises(RuntimeError, match="a fused program is for inference: train the model"):
        fused.train()
    block.flag = True
    near(fuse(block, IMAGE)(IMAGE), block(IMAGE))

    class Wrapper(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model.features(x)

    (expected,), result = block.features(IMAGE), fuse(Wrapper(block).eval(), IMAGE)(IMAGE)
    assert isinstance(result, list)
    near(result[0], expected)


@pytest.mark.parametrize(
    "image, error, text",
    [
        (torch.randn(2, 4, 9, 8), RuntimeError, r"x must be \('batch', 4, 8, 8\), of which .* got \(2, 4, 9, 8\)"),
        (torch.randn(2, 5, 8, 8), RuntimeError, r"got \(2, 5, 8, 8\)"),
        (torch.randn(4, 8, 8), RuntimeError, r"got \(4, 8, 8\)"),
        (torch.randn(2, 4, 8, 8).double(), RuntimeError, "x must be torch.float32, .* got torch.float64"),
        (torch.zeros(2, 4, 8, 8, dtype=torch.int64), RuntimeError, "x must be torch.float32, .* got torch.int64"),
        (torch.randn(2, 4, 8, 8, device="meta"), RuntimeError, "x must be on cpu, .* got meta"),
        (None, TypeError, "x must be a tensor, .* got NoneType"),
        (1.0, TypeError, "x must be a tensor, .* got float"),
        ([IMAGE], TypeError, "x must be a tensor, .* got list"),
    ],
    ids=["height", "channels", "unbatched", "dtype", "integers", "device", "None", "number", "list"],
)
def test_what_the_program_was_not_made_for(image, error, text, block):
    fused = fuse(block, IMAGE)
    for call in (lambda: fused(image), lambda: fused(x=image)):
        with pytest.raises((error, TypeError), match=text if not isinstance(image, list) else "must"):
            call()
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        fused()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_varies(batch, block):
    fused = fuse(block, torch.randn(batch, 4, 8, 8))
    for size in (0, 1, 2, 3, 17):
        image = torch.randn(size, 4, 8, 8)
        near(fused(image), block(image))


class OfBatch(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(4, 4, 3, groups=4), function

    def forward(self, *args):
        return self.function(self.conv(args[0]), *args[1:])


@pytest.mark.parametrize(
    "function, right, wrong",
    [
        (lambda x: x + 1 if x.shape[0] == 1 else x, [2, 3, 9], [0, 1]),
        (lambda x: x + 1 if x.shape[0] > 6 else x, [1, 2, 6], [7]),
        (lambda x: x + 1 if x.shape[0] % 2 else x, [2, 4], [3, 5]),
        (lambda x: x.squeeze(), [1, 2, 5], []),
        (lambda x: x[:2], [2, 3, 5], []),
        (lambda x: x.reshape(-1, 2, 4, 6, 6), [2, 4], [1, 3]),
    ],
    ids=["one", "large", "odd", "squeeze", "slice", "pairs"],
)
def test_a_batch_for_which_the_model_is_another(function, right, wrong):
    model = OfBatch(function).eval()
    fused = fuse(model, torch.randn(2, 4, 8, 8))
    for size in right:
        image = torch.randn(size, 4, 8, 8)
        try:
            result = fused(image)
        except RuntimeError as error:
            assert "must be" in str(error)
            assert size != 2
        else:
            near(result, model(image))
    for size in wrong:
        with pytest.raises(RuntimeError, match="must"):
            fused(torch.randn(size, 4, 8, 8))


def test_a_batch_of_one_that_is_special():
    model = OfBatch(lambda x: x + 1 if x.shape[0] == 1 else x).eval()
    reports = []
    fused = fuse(model, torch.randn(1, 4, 8, 8), report=reports.append)
    image = torch.randn(1, 4, 8, 8)
    near(fused(image), model(image))
    assert reports[0].inputs == ["args[0]: float32 (1, 4, 8, 8)"]
    with pytest.raises(RuntimeError, match=r"must be \(1, 4, 8, 8\)"):
        fused(torch.randn(2, 4, 8, 8))


def test_a_batch_that_is_fixed():
    model = OfBatch(lambda x: x + torch.ones(3, 1, 1, 1)).eval()
    reports = []
    image = torch.randn(3, 4, 8, 8)
    near(fuse(model, image, report=reports.append)(image), model(image))
    assert reports[0].inputs == ["args[0]: float32 (3, 4, 8, 8)"]


def test_several_inputs_have_one_batch_or_their_own():
    model = OfBatch(lambda x, y, z: x * y[:, None, None, None] + z.sum()).eval()
    fused = fuse(model, (torch.randn(2, 4, 8, 8), torch.randn(2), torch.randn(7)))
    args = torch.randn(5, 4, 8, 8), torch.randn(5), torch.randn(7)
    near(fused(*args), model(*args))
    with pytest.raises(
        RuntimeError, match=r"args\[1\] must be \('batch',\), of which the program was made, got \(4,\)"
    ):
        fused(args[0], args[1][:4], args[2])


def test_structures():
    model = OfBatch(lambda x, options, *rest: {"x": x * options["a"][0], "more": (options["b"], None)}).eval()
    example = torch.randn(2, 4, 8, 8), {"a": [torch.tensor(2.0)], "b": 3}
    fused = fuse(model, example)
    result = fused(example[0], {"a": [torch.tensor(5.0)], "b": 3})
    near(result["x"], model.conv(example[0]) * 5)
    assert result["more"] == (3, None)
    with pytest.raises(ValueError, match=r"args\[1\]\['b'\] must be 3, as in example_inputs, got 4"):
        fused(example[0], {"a": [torch.tensor(5.0)], "b": 4})
    with pytest.raises(TypeError, match="arguments must have the structure of example_inputs"):
        fused(example[0], {"a": [torch.tensor(5.0)] * 2, "b": 3})


def test_dynamic_shapes_are_handed_on(block):
    fused = fuse(block, IMAGE, dynamic_shapes=({2: Dim("h", min=3, max=20)},))
    image = torch.randn(2, 4, 20, 8)
    near(fused(image), block(image))
    with pytest.raises(RuntimeError, match="height must be 3 to 20"):
        fused(torch.randn(2, 4, 21, 8))
    with pytest.raises(RuntimeError, match=r"x must be \(2, 4, 'height', 8\)"):
        fused(torch.randn(3, 4, 20, 8))
    with pytest.raises(RuntimeError, match=r"torch\.export cannot capture Block"):
        fuse(block, IMAGE, dynamic_shapes=({1: Dim("c")},))


def test_sizes_that_pad_by_themselves():
    """SAME with a stride: the conditions on its sizes have max() in them."""
    model = nn.Sequential(DepthwiseConv2d(4, 4, 3, stride=2, padding="same"), nn.BatchNorm2d(4), nn.SiLU()).eval()
    fused = fuse(model, IMAGE, dynamic_shapes=({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},))
    for size in ((3, 4, 9, 12), (1, 4, 8, 5)):
        image = torch.randn(size)
        near(fused(image), model(image))


def test_a_condition_that_divides_by_a_size():
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, groups=4)

        def forward(self, x):
            return self.conv(torch.cat([x, x])).chunk(2)[0]

    model = Doubled().eval()
    near(fuse(model, IMAGE)(IMAGE), model(IMAGE))


def test_tokens():
    model = OfBatch(lambda y, tokens, mask: y.mean() + tokens.masked_fill(mask, 0)).eval()
    reports = []
    args = torch.randn(2, 4, 8, 8), torch.randint(0, 9, (2, 5)), torch.rand(2, 5) > 0.5
    fused = fuse(model, args, report=reports.append)
    assert "args[1]: int64 (batch2, 5)" in reports[0].inputs
    args = torch.randn(3, 4, 8, 8), torch.randint(0, 9, (3, 5)), torch.rand(3, 5) > 0.5
    near(fused(*args), model(*args))


def test_examples_that_are_none(block):
    with pytest.raises(TypeError, match=r"example_inputs must be a tensor or a tuple of arguments, got int"):
        fuse(block, 3)
    with pytest.raises(TypeError, match=r"example_inputs must be arguments of the model's forward: too many"):
        fuse(block, (IMAGE,) * 4)
    with pytest.raises(TypeError, match=r"example_inputs must be arguments of the model's forward: missing .* 'x'"):
        fuse(block, ())
