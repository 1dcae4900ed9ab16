"""The forms in which a model can run: as it is, converted, fused, by our backend, each compiled or frozen too."""

import copy
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from ... import convert, fuse
from ..contestants import Refused

Step = Callable[[torch.Tensor], torch.Tensor]
BACKEND = "torch_dwconv"  # of torch.compile


def as_it_is(model: nn.Module, images: torch.Tensor) -> nn.Module:
    return model


def _converted(model: nn.Module, images: torch.Tensor) -> nn.Module:
    return convert(model)


def _with_blocks(model: nn.Module, images: torch.Tensor) -> nn.Module:
    return convert(model, blocks=True)


def _in_channels_last(model: nn.Module, images: torch.Tensor) -> nn.Module:
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, but not in its stub


def _compiled(model: nn.Module, images: torch.Tensor) -> Step:
    """By Inductor as it is by default, but dropout draws what it draws in eager mode: losses can be compared."""
    return torch.compile(model, dynamic=False, options={"fallback_random": True})


def _in_backend(model: nn.Module, images: torch.Tensor) -> Step:
    if BACKEND not in torch.compiler.list_backends(exclude_tags=()):
        raise Refused(f"torch.compile has no backend {BACKEND!r} here")
    return torch.compile(model, backend=BACKEND)


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
        package: the other engine that runs it, by its name on PyPI. An error of it, or another output than the plain
            model's, leaves the form out; of our own forms both end the run.
        layouts: of the images, in place of the cell's. Of several, the one that is faster in that form is timed.
        precision: the dtype that it computes in, whatever the cell's is; its name in `problem.DTYPES`.
    """

    change: Callable[[nn.Module, torch.Tensor], nn.Module] = as_it_is
    run: Callable[[nn.Module, torch.Tensor], Step] = as_it_is
    trainable: bool = False
    compiles: bool = False
    pool: str = "openmp"
    package: str = ""
    layouts: tuple[str, ...] = ()
    precision: str = ""

    def make(self, plain: nn.Module, images: torch.Tensor) -> Step:
        """A copy of the model in eval mode, in this form: a function of images.

        Raises:
            ImportError: what the form needs is not installed.
            Refused: it does not take the images.
        """
        return self.run(self.change(copy.deepcopy(plain).eval(), images), images)


FORMS = {
    "plain": Form(trainable=True),
    "plain-nhwc": Form(_in_channels_last, layouts=("nhwc",)),
    "converted": Form(_converted, trainable=True),
    "blocks": Form(_with_blocks, trainable=True),
    "fused": Form(fuse),
    "backend": Form(run=_in_backend),
    "compiled-plain": Form(run=_compiled, trainable=True, compiles=True),
    "compiled-converted": Form(_converted, _compiled, trainable=True, compiles=True),
    "frozen-plain": Form(run=_frozen, compiles=True),
    "frozen-converted": Form(_converted, _frozen, compiles=True),
    "frozen-fused": Form(fuse, _frozen, compiles=True),
}


def forms_of(step: str, forms: Mapping[str, Form]) -> dict[str, Form]:
    """Those that can do the step."""
    return {name: form for name, form in forms.items() if step == "inference" or form.trainable}
