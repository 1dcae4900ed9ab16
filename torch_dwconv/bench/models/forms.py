"""The forms in which a model can run: as it is, converted, fused, each compiled or frozen too."""

import copy
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from ... import convert, fuse

Step = Callable[[torch.Tensor], torch.Tensor]


def as_it_is(model: nn.Module, images: torch.Tensor) -> nn.Module:
    return model


def _converted(model: nn.Module, images: torch.Tensor) -> nn.Module:
    return convert(model)


def _compiled(model: nn.Module, images: torch.Tensor) -> Step:
    return torch.compile(model, dynamic=False)


def _frozen(model: nn.Module, images: torch.Tensor) -> Step:
    """Compiled with its weights as constants, which Inductor may reorder beforehand."""
    from torch._inductor import config

    compiled = torch.compile(model, dynamic=False)
    with config.patch(freezing=True), torch.inference_mode():
        compiled(images)
    return compiled


class Form(NamedTuple):
    """How a model is changed and what then runs it; both functions are given images too.

    Attributes:
        trainable: a training step can be timed, not only inference.
        compiles: it takes many seconds to make.
        pool: names the threads that it runs on, as `timing.Run` does.
    """

    change: Callable[[nn.Module, torch.Tensor], nn.Module] = as_it_is
    run: Callable[[nn.Module, torch.Tensor], Step] = as_it_is
    trainable: bool = False
    compiles: bool = False
    pool: str = "openmp"

    def make(self, plain: nn.Module, images: torch.Tensor) -> Step:
        """A copy of the model in eval mode, in this form: a function of images.

        Raises:
            ImportError: what the form needs is not installed.
            Refused: it does not take the images.
        """
        return self.run(self.change(copy.deepcopy(plain).eval(), images), images)


FORMS = {
    "plain": Form(trainable=True),
    "converted": Form(_converted, trainable=True),
    "fused": Form(fuse),
    "compiled-plain": Form(run=_compiled, trainable=True, compiles=True),
    "compiled-converted": Form(_converted, _compiled, trainable=True, compiles=True),
    "frozen-plain": Form(run=_frozen, compiles=True),
    "frozen-converted": Form(_converted, _frozen, compiles=True),
    "frozen-fused": Form(fuse, _frozen, compiles=True),
}


def forms_of(step: str, forms: Mapping[str, Form]) -> dict[str, Form]:
    """Those that can do the step."""
    return {name: form for name, form in forms.items() if step == "inference" or form.trainable}
