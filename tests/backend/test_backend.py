"""torch.compile(model, backend="torch_dwconv"): right for every batch, weight and mode, and in blocks."""

import copy
import importlib
import threading

import pytest
import torch
from torch import nn

from torch_dwconv import DepthwiseConv2d, convert, fuse
from torch_dwconv.operators.block import BLOCK

from .compiling import InvertedResidual, assert_right, compiled_and_reports, made


def steps_of(reports) -> list[str]:
    return [steps for report in reports for steps in report.blocks.values()]


def test_torch_knows_it_by_name():
    assert "torch_dwconv" in torch.compiler.list_backends()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("prepare", [lambda model: model, convert], ids=["plain", "converted"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_blocks_are_those_of_fuse(mode, prepare, memory_format):
    model = prepare(made()).to(memory_format=memory_format)
    images = torch.randn(2, 3, 20, 24).to(memory_format=memory_format)
    compiled, reports = compiled_and_reports(model)
    with mode():
        assert_right(compiled, model, images)
    expected = []
    fuse(model, images, report=expected.append)
    assert len(reports) == 1 and steps_of(reports) == steps_of(expected)
    assert {*reports[0].blocks} == {*expected[0].blocks}
    assert compiled(images).stride() == model(images).stride()


@pytest.mark.parametrize("dynamic", [None, True, False])
def test_batches(dynamic):
    model = made()
    compiled, reports = compiled_and_reports(model, dynamic=dynamic)
    with torch.no_grad():
        for batch in (2, 1, 5, 3):
            assert_right(compiled, model, torch.randn(batch, 3, 20, 20))
        assert reports and all(len(steps_of([report])) == len(steps_of(reports[:1])) for report in reports)
        assert_right(compiled, model, torch.randn(0, 3, 20, 20))


def test_marked_sizes():
    model = made()
    compiled, reports = compiled_and_reports(model)
    with torch.no_grad():
        for batch, height, width in [(2, 20, 24), (3, 33, 17), (4, 9, 64)]:
            images = torch.randn(batch, 3, height, width)
            for axis in (0, 2, 3):
                torch._dynamo.mark_dynamic(images, axis)
            assert_right(compiled, model, images)
    assert len(reports) == 1, "the program was made for more than one size"


def test_changed_weights():
    model, other = made(), made(1)
    compiled, reports = compiled_and_reports(model)
    images = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        assert_right(compiled, model, images)
        model.load_state_dict(other.state_dict())
        assert_right(compiled, other, images)
        model[2].project.weight.mul_(2)
        assert_right(compiled, model, images)
        model[2].norm1.running_mean.add_(1)
        assert_right(compiled, model, images)
        model[3].expand.weight.data = torch.randn_like(model[3].expand.weight)
        assert_right(compiled, model, images)
        for parameter, average in zip(model.parameters(), made(2).parameters(), strict=True):
            parameter.data.copy_(average)  # changes no version
        assert_right(compiled, model, images)
        model[4].scale = nn.Parameter(torch.randn(8))
        assert_right(compiled, model, images)
    assert reports


def test_weights_that_change_at_every_call_are_never_packed():
    model, images = made(), torch.randn(2, 3, 20, 20)
    compiled, _ = compiled_and_reports(model)
    with torch.no_grad():
        assert_right(compiled, model, images)
        expected = made()
        for _ in range(4):
            for each in (model, expected):
                each[2].project.weight.add_(0.5)
            assert torch.equal(compiled(images), model(images))  # to the bit: the graph as it is
        assert torch.equal(expected[2].project.weight, model[2].project.weight)
        assert_right(compiled, model, images)


def test_regions_that_share_a_graph_have_their_own_weights():
    model = nn.Sequential(*(InvertedResidual() for _ in range(3))).eval()
    expected = copy.deepcopy(model)
    reports = []
    for block in model:
        block.compile(backend="torch_dwconv", options={"report": reports.append})
    images = torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        assert_right(model, expected, images)
        expected[1].project.weight.mul_(2), model[1].project.weight.mul_(2)
        assert_right(model, expected, images)


def test_weights_are_freed_with_the_model():
    import gc
    import weakref

    model, images = made(), torch.randn(1, 3, 16, 16)
    compiled, _ = compiled_and_reports(model)
    with torch.no_grad():
        assert_right(compiled, model, images)
    weight = weakref.ref(model[0].weight)
    del model, compiled
    torch._dynamo.reset()
    gc.collect()
    assert weight() is None


def test_threads():
    model = made()
    compiled, reports = compiled_and_reports(model, dynamic=True)
    inputs = [torch.randn(batch, 3, 20, 20) for batch in (2, 3, 4, 5)]
    with torch.no_grad():
        expected = [model(images) for images in inputs]
        compiled(inputs[0])
    wrong = []

    def run(images, right):
        with torch.inference_mode():
            for _ in range(10):
                if (compiled(images) - right).norm() > 1e-5 * right.norm():
                    wrong.append(images.shape)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and reports


def test_autocast():
    model, images = made(), torch.randn(2, 3, 20, 20)
    compiled, reports = compiled_and_reports(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert compiled(images).dtype == torch.bfloat16
    with torch.no_grad():
        right = copy.deepcopy(model).double()(images.double())
        with torch.autocast("cpu", torch.bfloat16):
            for _ in range(2):
                actual = compiled(images)
                assert actual.dtype == torch.bfloat16
                assert (actual.double() - right).norm() < 0.05 * right.norm()
    assert any("depthwise 3x3" in steps and "squeeze_excite" in steps for steps in steps_of(reports))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype):
    model, images = made().to(dtype), torch.randn(2, 3, 20, 20, dtype=dtype)
    compiled, reports = compiled_and_reports(model)
    with torch.no_grad():
        assert_right(compiled, model, images, tolerance=0.05)
    assert len(steps_of(reports)) >= 4


def test_float64_has_no_blocks():
    model, images = made().double(), torch.randn(2, 3, 20, 20, dtype=torch.float64)
    compiled, reports = compiled_and_reports(model)
    with torch.no_grad():
        assert_right(compiled, model, images, tolerance=1e-12)
    assert not steps_of(reports) and reports[0].converted


def test_with_a_gradient_the_graph_is_eager():
    model, images = made(), torch.randn(2, 3, 20, 20, requires_grad=True)
    compiled, reports = compiled_and_reports(model)
    leaves = [images, *model.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(compiled(images).square().sum(), leaves),
        torch.autograd.grad(model(images).square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    assert not reports
    with torch.no_grad():
        assert_right(compiled, model, images.detach())
    assert reports


def test_forward_that_turns_gradients_off():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = made()[:4], nn.Conv2d(8, 2, 1)

        def forward(self, x):
            with torch.no_grad():
                x = self.trunk(x)
            return self.head(x)

    model, images = Frozen().eval(), torch.randn(2, 3, 20, 20)
    compiled, _ = compiled_and_reports(model)
    compiled(images).sum().backward()
    assert model.head.weight.grad is not None and model.trunk[0].weight.grad is None
    model.head.requires_grad_(False)
    compiled, reports = compiled_and_reports(model)
    assert_right(compiled, model, images)
    assert reports


def test_training_mode_updates_statistics():
    model, images = made().train(), torch.randn(4, 3, 20, 20)
    expected = copy.deepcopy(model)
    compiled, _ = compiled_and_reports(model)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(compiled(images), expected(images), rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(model.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    model.eval(), expected.eval()
    with torch.no_grad():
        assert_right(compiled, expected, images)


def test_graph_breaks():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = made()[:3], made()[3:]

        def forward(self, x):
            x = self.first(x)
            torch._dynamo.graph_break()
            return self.second(x)

    model, images = Broken().eval(), torch.randn(2, 3, 20, 20)
    compiled, reports = compiled_and_reports(model)
    with torch.no_grad():
        assert_right(compiled, model, images)
    assert len(reports) == 2


def test_outputs_that_are_inputs_weights_and_views():
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = made()[:4]
            self.register_buffer("table", torch.randn(4, 8))

        def forward(self, x):
            y = self.body(x)
            x.add_(1)
            return y, y.flatten(1), x, self.table, self.table * 2, y.transpose(1, 2)

    model, images = Many().eval(), torch.randn(2, 3, 20, 20)
    compiled, reports = compiled_and_reports(model)
    with torch.no_grad():
        for _ in range(2):
            first, second = images.clone(), images.clone()
            actual, expected = compiled(first), model(second)
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(first, second)
            assert [each.stride() for each in actual] == [each.stride() for each in expected]
            actual[4].zero_()
            assert actual[2] is first and actual[3].data_ptr() == model.table.data_ptr()
    assert reports


def test_random_operators_stay():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = DepthwiseConv2d(3, 3, 3)

        def forward(self, x):
            return nn.functional.dropout(self.conv(x), 0.5) + torch.rand(1)

    model, images = Noisy().eval(), torch.randn(2, 3, 20, 20)
    compiled, _ = compiled_and_reports(model)
    with torch.no_grad():
        for _ in range(3):
            torch.manual_seed(0)
            actual = compiled(images)
            torch.manual_seed(0)
            torch.testing.assert_close(actual, model(images))


def test_nothing_of_ours_runs_as_it_is():
    compiled, reports = compiled_and_reports(nn.MaxPool2d(2))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(compiled(images), nn.functional.max_pool2d(images, 2)) and not reports


def test_models_of_inference_mode_run_as_they_are():
    with torch.inference_mode():
        model, images = made(), torch.randn(2, 3, 20, 20)
        compiled, reports = compiled_and_reports(model)
        assert torch.equal(compiled(images), model(images)) or not reports
        model[0].weight.mul_(2)
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-4)


def test_options():
    with pytest.raises(Exception, match="options must be 'report' only, got 'speed'"):
        torch.compile(nn.ReLU(), backend="torch_dwconv", options={"speed": 2})(torch.ones(2))


def scale_constants(program):
    for tensor in program.constants.values():
        tensor.mul_(1.01)


def fail_when_run(program):
    for node in program.calls(BLOCK):
        node.args = (*node.args[:3], [*node.args[3], 0], 0.0)


def fail(program):
    raise KeyError("planted")


@pytest.mark.parametrize("wrong", [scale_constants, fail_when_run, fail])
def test_a_wrong_pass_is_noticed(monkeypatch, wrong):
    """The first result is compared with the graph's, and so is the first one with other weights."""
    module = importlib.import_module("torch_dwconv.compile.backend.compiled")
    model, image = made(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        monkeypatch.setattr(module, "PASSES", (*module.PASSES, wrong))
        compiled, _ = compiled_and_reports(model)
        with pytest.warns(UserWarning, match="a graph runs without blocks"):
            assert_right(compiled, model, image)
        assert_right(compiled, model, image)
        monkeypatch.undo()
        compiled, _ = compiled_and_reports(model)
        assert_right(compiled, model, image)
        monkeypatch.setattr(module, "PASSES", (*module.PASSES, wrong))
        for parameter in model.parameters():
            parameter.mul_(1.1)
        with pytest.warns(UserWarning, match="a graph runs without blocks"):
            assert_right(compiled, model, image)
            assert_right(compiled, model, image)
