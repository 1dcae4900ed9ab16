"""OpenVINO: the plain model converted to a model of its own, and its backend of torch.compile."""

from typing import Any
from unittest import mock

import torch
from torch import nn

from torch_dwconv.bench.contestants import Refused
from torch_dwconv.bench.models.forms import Step


def step(model: nn.Module, images: torch.Tensor, precision: torch.dtype | None = None) -> Step:
    """A function of images in that engine: on the CPU, on as many threads as PyTorch has, on the images' own memory.

    Sizes and memory format are fixed. Weights begin as float32, and the engine computes in `precision`, by default the
    dtype of the images.

    Raises:
        ImportError: openvino is not installed.
        Refused: it has no such dtype.
    """
    import openvino

    from ..contestants.openvino import TYPES, settings, shared

    if images.dtype not in TYPES:
        raise Refused(f"no {images.dtype}")
    nhwc = not images.is_contiguous()
    converted = openvino.convert_model(
        model.float(), example_input=images.float().contiguous(), input=[list(images.shape)]
    )
    editor = openvino.preprocess.PrePostProcessor(converted)
    editor.input().model().set_layout(openvino.Layout("NCHW"))
    editor.input().tensor().set_layout(openvino.Layout("NHWC" if nhwc else "NCHW"))
    for end in (editor.input(), editor.output()):
        end.tensor().set_element_type(TYPES[images.dtype])
    options = settings(TYPES[precision or images.dtype], torch.get_num_threads())
    compiled = openvino.Core().compile_model(editor.build(), "CPU", options)
    request = compiled.create_infer_request()
    output = torch.empty(list(compiled.output().shape), dtype=images.dtype)
    request.set_output_tensor(shared(output))
    bound: list[torch.Tensor] = []  # OpenVINO borrows their memory and does not keep them

    def infer(images: torch.Tensor) -> torch.Tensor:
        if not bound or bound[0] is not images:
            bound[:] = [images, (images.permute(0, 2, 3, 1) if nhwc else images).contiguous()]
            request.set_input_tensor(shared(bound[1]))
        request.infer(share_inputs=True, share_outputs=True)
        return output.clone()

    return infer


def compiled_step(model: nn.Module, images: torch.Tensor) -> Step:
    """torch.compile with the backend of the package openvino, in the images' dtype.

    Raises:
        ImportError: openvino is not installed.
        Refused: it has no such dtype, or it would leave the model to PyTorch's own compiler.
    """
    from openvino.frontend.pytorch.torchdynamo import backend

    from ..contestants.openvino import TYPES, settings

    if images.dtype not in TYPES:
        raise Refused(f"no {images.dtype}")
    settled = settings(TYPES[images.dtype], torch.get_num_threads())
    backend.openvino_options = {}  # it prefers those of the model before
    options: dict[str, Any] = {"device": "CPU", "config": settled, "aot_autograd": True}
    compiled = torch.compile(model, backend="openvino", dynamic=False, options=options)
    with mock.patch.object(backend, "compile_fx", _not_inductor), torch.inference_mode():
        compiled(images)
    return compiled


def _not_inductor(*_, **__):
    raise Refused("its backend leaves the model to Inductor")
