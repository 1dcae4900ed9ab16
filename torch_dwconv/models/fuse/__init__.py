"""fuse: a model as one program for inference, with BatchNorm, constants and activations folded into its convolutions.

torch.export says what the model computes, for arguments like the example's. Passes over the graph that it gives make
the program; each of them has a file here. The result is compared with the model before anyone gets it.
"""

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .activations import fold_activations
from .blocks import form_blocks
from .capture import Refused, capture, copied
from .constants import copy_constant_outputs, fold_constants
from .depthwise import is_depthwise, to_operator
from .inplace import make_inplace
from .inputs import Example
from .module import FusedModule
from .norms import fold_norms
from .program import CONVOLUTIONS, TRANSPOSED, Pass, Program, module_name, norm_behind, operator_name
from .report import FuseReport
from .verify import NotItself, Unverified, verify
from .written import recognise_activations

__all__ = ["FuseReport", "FusedModule", "fuse"]

PASSES: tuple[Pass, ...] = (
    fold_constants,
    recognise_activations,
    to_operator,
    fold_norms,
    fold_activations,
    form_blocks,
    make_inplace,
    copy_constant_outputs,
)

# What is tried if a program of PASSES fails or is wrong: a fault of ours, which costs speed and no result.
_WITHOUT_BLOCKS = tuple(change for change in PASSES if change is not form_blocks)
_AS_CAPTURED: tuple[Pass, ...] = (copy_constant_outputs,)

_one_at_a_time = threading.RLock()  # torch.export changes the state of the process while it traces


def fuse(
    model: nn.Module,
    example_inputs: Tensor | tuple[Any, ...],
    *,
    example_kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    report: Callable[[FuseReport], object] | None = None,
) -> nn.Module:
    """Makes a new module for inference that computes what `model` computes for arguments like the example's, faster.

    torch.export captures what forward does with the example. Depthwise convolutions become this package's operator,
    converted before or not. What depends on weights alone is computed once. BatchNorm in its form for inference, frozen
    or synchronised too, and other scales and shifts of each channel are folded into the convolution before them, of any
    kind. ReLU, ReLU6, Hardswish, SiLU and GELU (either `approximate`), modules or functions, shared or not, become the
    `activation` of the depthwise convolution before them. On a CPU, in float32, bfloat16 and float16, convolutions,
    linear layers and what stands between them become blocks, each of which one call computes. All else runs as it is.
    The result is compared with the model on the example and on another batch. If it differs, a program without blocks
    is tried, then one with nothing folded, with a warning.

    `model` is not changed, not even for a moment: fuse works on copies. The module that it returns is one fixed
    program. It has no other method than forward, no attributes of the model, and no parameters: weights are
    constants, and gradients flow to inputs only. Its state_dict does not fit the model's, nor the other way round.

    While torch.export traces it changes the state of the process: run no model in another thread meanwhile.

    Args:
        model: any module in eval mode that torch.export can capture.
        example_inputs: a tensor, or a tuple of positional arguments. Everything about them but the size of the batch is
            fixed in the program: sizes, dtypes, devices, the values of what is no tensor, which arguments there are.
            Arguments in another memory format are copied to the example's.
        example_kwargs: keyword arguments.
        dynamic_shapes: which sizes may vary, as torch.export.export takes it. By default the first dimension of each
            tensor that has the first tensor's, if the model allows that.
        report: called once with the `FuseReport`; ``report=print`` prints it.

    Returns:
        A `FusedModule`. It raises TypeError, ValueError or RuntimeError for arguments that it was not made for.

    Raises:
        RuntimeError: `model` is in training mode; it cannot be copied or captured; it changes state, is random, or is
            on the meta device; the program does not compute what the model computes; autocast is on.
        TypeError: `model` is no nn.Module; `example_inputs` are not what its forward takes.

    >>> block = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
    >>> fused = fuse(block.eval(), torch.randn(1, 8, 16, 16), report=print)
    inputs: input: float32 (batch, 8, 16, 16); batch from 0
    converted: 1
      0
    fused: 1
      BatchNorm2d, relu6: 0
    blocks: 0
    left: 0
    >>> fused(torch.randn(4, 8, 16, 16)).shape
    torch.Size([4, 8, 14, 14])
    """
    _check(model)
    args = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    if not isinstance(args, (tuple, list)):
        raise TypeError(f"example_inputs must be a tensor or a tuple of arguments, got {type(args).__name__}")
    example = Example(model.forward, tuple(args), dict(example_kwargs or {}))
    if any(tensor.device.type == "meta" for tensor in _tensors(model, example)):
        raise RuntimeError("model and example_inputs must not be on the meta device: fuse computes with them")
    with _one_at_a_time, torch.inference_mode(False), torch.enable_grad():
        fused, done = _fused(model, example, dynamic_shapes)
    if report is not None:
        report(done)
    return fused


def _check(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if model.training:
        raise RuntimeError("model must be in eval mode to be fused, got training=True: call model.eval() first")
    if torch._C._is_any_autocast_enabled():
        raise RuntimeError("autocast must be off, a program has one dtype: fuse model.to(dtype) to compute in another")


def _tensors(model: nn.Module, example: Example) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
    yield from (leaf for leaf in example.leaves if isinstance(leaf, Tensor))


def _fused(model: nn.Module, example: Example, dynamic_shapes: Any) -> tuple[FusedModule, FuseReport]:
    """With the batch free if that is right, and else with every size as it is in the example."""
    if dynamic_shapes is None:
        with contextlib.suppress(Refused, Unverified):
            return _attempt(model, example, "batch")
    try:
        return _attempt(model, example, dynamic_shapes)
    except Unverified as error:
        raise RuntimeError(str(error)) from error


def _attempt(model: nn.Module, example: Example, dynamic_shapes: Any) -> tuple[FusedModule, FuseReport]:
    """The program of all passes; if that is wrong, one of fewer, with a warning."""
    try:
        return _made(model, example, dynamic_shapes, PASSES)
    except (Refused, Unverified, NotItself):
        raise
    except Exception as error:
        fault = error
    for passes, without in ((_WITHOUT_BLOCKS, "blocks"), (_AS_CAPTURED, "anything folded")):
        with contextlib.suppress(Exception):
            made = _made(model, example, dynamic_shapes, passes)
            warnings.warn(
                f"{type(model).__name__} is fused without {without}. A pass went wrong, which is a fault of "
                f"torch_dwconv: {type(fault).__name__}: {fault}",
                stacklevel=4,
            )
            return made
    raise fault


def _made(
    model: nn.Module, example: Example, dynamic_shapes: Any, passes: tuple[Pass, ...]
) -> tuple[FusedModule, FuseReport]:
    program, inputs, outputs = capture(copied(model).requires_grad_(False), example, dynamic_shapes)
    for change in passes:
        change(program)
    done = report_of(program)
    program.finish()
    fused = FusedModule(type(model).__name__, program, inputs, outputs)
    verify(fused, copied(model), example, inputs)
    done.inputs = inputs.described()
    return fused, done


def report_of(program: Program) -> FuseReport:
    done = FuseReport(converted=program.converted, blocks=program.blocks, no_blocks=[*program.no_blocks])
    for node, name in program.convolutions.items():
        if node in program.taken:
            done.fused[name] = ", ".join(program.taken[node])
        if node in program.in_blocks:
            continue
        if reason := program.unfit.get(node):
            done.left[name] = reason
        elif node.target in TRANSPOSED and is_depthwise(node):
            done.left[name] = "it is a transposed convolution"
        elif (norm := norm_behind(node)) is not None:
            done.left[name] = f"{operator_name(norm)} follows"
    for part, module in program.parts():
        for node in module.graph.nodes:
            if node.target in CONVOLUTIONS | TRANSPOSED and (is_depthwise(node) or norm_behind(node) is not None):
                name = module_name(node) if node.meta.get("nn_module_stack") else f"{part}.{node.name}"
                done.left[name] = f"it is in {part}, a branch of the program that stays as it is"
    return done
