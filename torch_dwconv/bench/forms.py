"""The forms in which a model can run: as it is, converted, fused, each compiled or frozen too, in ONNX Runtime."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from .. import convert, fuse
from .contestants import Refused

Step = Callable[[torch.Tensor], torch.Tensor]


def _compiled(model: nn.Module, images: torch.Tensor) -> Step:
    return torch.compile(model, dynamic=False)


def _frozen(model: nn.Module, images: torch.Tensor) -> Step:
    """Compiled with its weights as constants, which Inductor may pack beforehand."""
    from torch._inductor import config

    compiled = torch.compile(model, dynamic=False)
    with config.patch(freezing=True), torch.inference_mode():
        compiled(images)
    return compiled


def _in_onnxruntime(model: nn.Module, images: torch.Tensor) -> Step:
    """What plain torch.onnx.export makes of the model, with ONNX Runtime's own optimisations."""
    import onnxruntime

    if images.dtype != torch.float32:
        raise Refused(f"no {images.dtype}")
    program = torch.onnx.export(model, (images.contiguous(),), dynamo=True, verbose=False)
    assert program is not None
    exported = program.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(exported, options, ["CPUExecutionProvider"])
    (name,) = (argument.name for argument in session.get_inputs())
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def _as_it_is(model: nn.Module, images: torch.Tensor) -> Step:
    return model


def _plain(model: nn.Module, images: torch.Tensor) -> nn.Module:
    return model


def _converted(model: nn.Module, images: torch.Tensor) -> nn.Module:
    return convert(model)


# name: what is done to a copy of the model, given images, and what then runs it
_FORMS: dict[str, tuple[Callable[[nn.Module, torch.Tensor], nn.Module], Callable[[nn.Module, torch.Tensor], Step]]] = {
    "plain": (_plain, _as_it_is),
    "converted": (_converted, _as_it_is),
    "fused": (fuse, _as_it_is),
    "compiled-plain": (_plain, _compiled),
    "compiled-converted": (_converted, _compiled),
    "frozen-plain": (_plain, _frozen),
    "frozen-converted": (_converted, _frozen),
    "frozen-fused": (fuse, _frozen),
    "onnxruntime": (_plain, _in_onnxruntime),
}
FORMS = tuple(_FORMS)
_TRAINABLE = ("plain", "converted", "compiled-plain", "compiled-converted")


def forms_of(step: str, names: list[str]) -> list[str]:
    """Those of `names` that can do the step."""
    return [name for name in names if step == "inference" or name in _TRAINABLE]


def make(name: str, plain: nn.Module, images: torch.Tensor) -> Step:
    """A copy of the model in eval mode, in that form: a function of images.

    Raises:
        ImportError: what the form needs is not installed.
        Refused: it does not take the images.
    """
    change, run = _FORMS[name]
    return run(change(copy.deepcopy(plain).eval(), images), images)
