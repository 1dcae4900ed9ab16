"""Models in other engines: their outputs, their threads, and what they refuse."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from benchmarks.forms import FORMS
from torch_dwconv.bench.contestants import Refused

ENGINES = [name for name, form in FORMS.items() if form.package and find_spec(form.package)]
OPENVINO = [name for name in ENGINES if "openvino" in name]
pytestmark = pytest.mark.usefixtures("own_signal_stack", "fresh_compiler")
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def model():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 16, 3, groups=16), nn.Flatten()
    return nn.Sequential(*layers).eval()


def images(dtype=torch.float32, layout="nchw"):
    return torch.randn(2, 3, 14, 14).to(dtype, memory_format=LAYOUTS[layout])


def check(step, plain, given, tolerance):
    with torch.inference_mode():
        output, right = step(given), plain.float()(given.float())
    assert output.dtype == given.dtype and output.shape == right.shape
    assert (output.float() - right).norm() <= tolerance * right.norm()


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_computes_what_the_model_does(name):
    """Of images in each layout that it takes, and of others after them."""
    tolerance = 1e-2 if FORMS[name].precision else 1e-5
    for layout in FORMS[name].layouts or LAYOUTS:
        first, second = images(layout=layout), images(layout=layout)
        step = FORMS[name].make(model(), first)
        check(step, model(), first, tolerance)
        check(step, model(), second, tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [name for name in OPENVINO if not name.startswith("compiled")])
def test_openvino_takes_bfloat16(name, layout):
    given = images(torch.bfloat16, layout)
    check(FORMS[name].make(model().to(torch.bfloat16), given), model().to(torch.bfloat16), given, 1e-2)


def test_bfloat16_is_what_it_computes_in():
    """Or its tolerance would hide that it does not."""
    if "openvino-bf16" not in ENGINES:
        pytest.skip("openvino is not installed")
    given = images()
    outputs = [FORMS[name].make(model(), given)(given) for name in ("openvino", "openvino-bf16")]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-5


@pytest.mark.parametrize("name", ENGINES)
def test_another_dtype_is_refused(name):
    with pytest.raises(Refused, match=r"no torch\.float64"):
        FORMS[name].make(model().double(), images(torch.float64))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_has_as_many_threads_as_pytorch(name, threads, monkeypatch):
    seen = []
    if name == "onnxruntime":
        import onnxruntime

        def session(exported, options, providers, start=onnxruntime.InferenceSession):
            seen.append(options.intra_op_num_threads)
            return start(exported, options, providers)

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    else:
        import openvino

        def compile_model(self, model, device, config, compile=openvino.Core.compile_model):
            compiled = compile(self, model, device, config)
            seen.append(compiled.get_property("INFERENCE_NUM_THREADS"))
            return compiled

        monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        FORMS[name].make(model(), images())
    finally:
        torch.set_num_threads(before)
    assert seen and set(seen) == {threads}


def test_a_model_that_openvino_leaves_to_inductor_is_not_its_own(monkeypatch):
    if "compiled-openvino" not in ENGINES:
        pytest.skip("openvino is not installed")
    from openvino.frontend.pytorch.torchdynamo import backend

    def fail(*_):
        raise ValueError

    monkeypatch.setattr(backend, "Partitioner", fail)
    with pytest.raises(Exception, match="its backend leaves the model to Inductor"):
        FORMS["compiled-openvino"].make(model(), images())
