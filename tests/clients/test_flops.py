"""FLOP counters: the numbers of the plain model, as they come or by the page's recipes."""

import pytest
import torch

from torch_dwconv import convert, revert

INPUT = (torch.ones(1, 3, 64, 64),)


def plain():
    return pytest.importorskip("torchvision").models.mobilenet_v2().eval()


def profiled(model) -> int:
    with torch.profiler.profile(with_flops=True) as profiler:
        model(*INPUT)
    return sum(event.flops for event in profiler.key_averages())


def by_fvcore(model) -> float:
    analysis = pytest.importorskip("fvcore.nn").FlopCountAnalysis(model, INPUT)
    return analysis.unsupported_ops_warnings(False).total()


def by_torchinfo(model) -> int:
    summary = pytest.importorskip("torchinfo").summary(model, input_data=INPUT[0], verbose=0)
    return summary.total_mult_adds


def by_pytorch(model) -> int:
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model(*INPUT)
    return counter.get_total_flops()


def by_calflops(model) -> float:
    calflops = pytest.importorskip("calflops")
    options = {"output_as_string": False, "print_results": False, "print_detailed": False}
    return calflops.calculate_flops(model, input_shape=tuple(INPUT[0].shape), **options)[0]


@pytest.mark.parametrize("count", [by_fvcore, by_torchinfo, by_pytorch])
def test_as_they_come(count):
    assert count(convert(plain())) == count(plain()) > 1e7


@pytest.mark.parametrize("count", [profiled, by_calflops])
def test_reverted(count):
    assert count(revert(convert(plain()))) == count(plain()) > 1e7


def test_profiler(recipe):
    assert recipe("FLOP counters", 0)["flops"] == profiled(plain())


def test_thop(recipe):
    names = recipe("FLOP counters", 1)
    assert (names["macs"], names["parameters"]) == names["thop"].profile(plain(), INPUT, verbose=False)


def test_ptflops(recipe):
    names = recipe("FLOP counters", 2)
    expected = names["ptflops"].get_model_complexity_info(plain(), (3, 64, 64), as_strings=False, backend="pytorch")
    assert (names["macs"], names["parameters"]) == expected
