"""FusedModule: a program as a module. It has the constants as buffers and nothing of the model that it was made of."""

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...functional.dispatch import native_reason
from ...operators.block import BLOCK
from ...operators.block.steps import DEPTHWISE, decoded
from ...operators.plain import is_plain
from ...operators.schemas import FORWARD
from .groups import grouped
from .inputs import Inputs
from .pages import in_huge_pages
from .program import Program

_AUTOCAST = (
    "autocast is on, and a fused program computes in the dtypes that it was made with: turn autocast off round the "
    "call, or fuse model.to(dtype)"
)


_MADE_BY_COMPILE = ("_run", "_run_grouped", "_held")


class FusedModule(nn.Module):
    """What `fuse` returns: one program for inference, with the weights as buffers.

    It takes arguments like the example's and refuses all others. Inputs in another memory format than the example's are
    copied to that. Gradients flow to inputs, not to weights, which are constants. It can be copied, pickled, moved to
    another device, compiled by torch.compile and exported again. It cannot be trained, cast to another dtype, traced by
    torch.jit or given attributes, and it has no methods of the model but forward.
    """

    _model: str
    _inputs: Inputs
    _source: str
    _grouped_source: str
    _globals: dict[str, Any]
    _numbers: list[list[int]]
    _outputs: Any
    _convolutions: int
    _blocks: int
    _gradients: bool

    def __init__(self, model: str, program: Program, inputs: Inputs, outputs: Any):
        super().__init__()
        super().train(False)
        code = program.graph.python_code("self")
        grouped_source, grouped_globals, numbers = grouped(program)
        blocks = [decoded(node.args[3]) for node in program.calls(BLOCK)]  # type: ignore[arg-type]
        in_blocks = sum(step.kind == DEPTHWISE for steps in blocks for step in steps)
        fixed = {
            "_model": model,
            "_inputs": inputs,
            "_source": code.src,
            "_grouped_source": grouped_source,
            "_globals": {**code.globals, **grouped_globals},
            "_numbers": numbers,
            "_outputs": None if outputs.is_leaf() else outputs,
            "_convolutions": in_blocks + len([*program.calls(FORWARD)]),
            "_blocks": len(blocks),
            "_gradients": program.gradients,
        }
        vars(self).update(fixed)
        for name, child in program.owner.named_children():  # the graphs of higher-order operators
            self.add_module(name, child)
        constants = {program.names[node]: tensor for node, tensor in program.constants.items()}
        for name, tensor in in_huge_pages(constants).items():
            self.register_buffer(name, tensor)
        self._compile()

    def _compile(self) -> None:
        namespace = dict(self._globals)
        exec(compile(self._source, f"<fused {self._model}>", "exec"), namespace)
        vars(self)["_run"] = namespace["forward"]
        exec(compile(self._grouped_source, f"<fused {self._model}, in groups>", "exec"), namespace)
        vars(self)["_run_grouped"] = namespace["forward"]
        vars(self)["_held"] = [torch.tensor(numbers, device="cpu") for numbers in self._numbers]

    def forward(self, *args, **kwargs):
        if torch._C._is_any_autocast_enabled():
            raise RuntimeError(_AUTOCAST)
        if torch.jit.is_tracing():
            raise RuntimeError(
                "torch.jit.trace would fix the sizes of a fused program: use torch.export, torch.onnx.export(..., "
                "dynamo=True), or trace the model instead of the fused one"
            )
        tensors = self._inputs.of_call(args, kwargs)
        constants = self._buffers.values()
        results = None
        if _needs_no_autograd(tensors, constants):
            try:
                with torch._C._AutoDispatchBelowAutograd():
                    if self._held and tensors[0].is_cpu:
                        results = self._run_grouped(self, *tensors, *constants, *self._held)
                    else:
                        results = self._run(self, *tensors, *constants)
            except RuntimeError as error:
                if "API call failed" not in str(error):  # out of memory, which the longer way says in PyTorch's words
                    raise
        if results is None:
            if not self._gradients and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
                raise RuntimeError(
                    f"a gradient is needed, and forward of {self._model} turns gradients off in parts, which the fused "
                    "program does not: call it under torch.no_grad(), or differentiate the model"
                )
            results = self._run(self, *tensors, *constants)
        return results[0] if self._outputs is None else pytree.tree_unflatten(results, self._outputs)

    @property
    def code(self) -> str:
        """The program, as Python."""
        return self._source

    def extra_repr(self) -> str:
        inputs = "; ".join(map(str, self._inputs.tensors))
        return f"{self._model}, {inputs}, depthwise convolutions: {self._convolutions}, blocks: {self._blocks}"

    def train(self, mode: bool = True) -> "FusedModule":
        """Returns self for ``mode=False``.

        Raises:
            RuntimeError: `mode` is true: a fused program is for inference.
        """
        if mode:
            raise RuntimeError("a fused program is for inference: train the model that it was made of, and fuse again")
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name == "training" or name in self._buffers or name in self._modules:
            super().__setattr__(name, value)
            return
        raise AttributeError(
            f"{name} cannot be set: the program of a fused module is fixed. Set it on the model and fuse that again"
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            raise AttributeError(
                f"a fused module has no attribute {name!r}: of the model, {self._model}, only forward with the "
                "arguments of example_inputs was captured. Fuse a module whose forward calls what you need, or, for "
                "features, timm.create_model(..., features_only=True)"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in _MADE_BY_COMPILE}
        modules = {name: value.__name__ for name, value in self._globals.items() if inspect.ismodule(value)}
        others = {name: value for name, value in self._globals.items() if name not in modules}
        # The state of the inputs rather than the object: a pickle names no class of ours but this one.
        return {**state, "_globals": (modules, others), "_inputs": self._inputs.__getstate__()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        modules, others = state["_globals"]
        found: dict[str, Any] = {name: importlib.import_module(module) for name, module in modules.items()}
        inputs = Inputs.__new__(Inputs)
        inputs.__setstate__(state["_inputs"])
        super().__setstate__({**state, "_globals": {**others, **found}, "_inputs": inputs})
        self._compile()

    def _apply(self, fn, recurse: bool = True):
        devices = self._moved(fn)
        super()._apply(fn, recurse)
        if any(old != new for old, new in devices.items()):
            vars(self)["_inputs"] = self._inputs.moved(devices)
            for old, new in devices.items():
                for source in ("_source", "_grouped_source"):
                    vars(self)[source] = vars(self)[source].replace(repr(old), repr(new))
            self._compile()
        return self

    def _moved(self, fn) -> dict[torch.device, torch.device]:
        """Where `fn` takes tensors of each device.

        Raises:
            RuntimeError: it changes a dtype, or the program cannot run there.
        """
        used = {(spec.dtype, spec.device) for spec in self._inputs.tensors}
        used |= {(tensor.dtype, tensor.device) for tensor in self._buffers.values() if tensor is not None}
        devices = {}
        for dtype, device in used:
            moved = fn(torch.empty(0, dtype=dtype, device=device))
            if moved.dtype != dtype:
                raise RuntimeError(
                    f"a fused program computes in the dtypes that it was made with, {dtype}, and cannot become "
                    f"{moved.dtype}: fuse model.to({moved.dtype})"
                )
            if moved.device != device and [*self.children()]:
                raise RuntimeError(f"the program has parts that stay on {device}: fuse the model on {moved.device}")
            known = not self._convolutions or moved.device.type == "meta" or not dtype.is_floating_point
            if not known and (reason := native_reason(moved, moved)):
                raise RuntimeError(f"the program cannot run on {moved.device}: {reason}. Fuse the model there")
            devices[device] = moved.device
        return devices

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        if any(prefix + name not in state_dict for name in self._buffers):
            errors.append(
                f"the weights of a fused module, {self._model}, are folded: a state_dict of the model does not fit. "
                "Load it into the model, and fuse that again"
            )


def _needs_no_autograd(tensors: list[Tensor], constants) -> bool:
    """Whether these are plain tensors of which nothing is differentiated: then no operator has to ask."""
    if torch.compiler.is_compiling():
        return False
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*tensors, *constants):
        return False
    return bool(tensors) and all(is_plain(tensor, tensor) for tensor in tensors)
