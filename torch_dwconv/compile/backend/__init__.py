"""The backend of torch.compile: graphs for inference with their convolutions in blocks, by the passes of fuse.

Dynamo hands over a graph and guards what it rests on, AOTAutograd makes it functional. Weights are arguments of such a
graph, so one graph may serve several modules, and its weights may change: each call looks whether they have.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any

import torch
from torch import Tensor, fx
from torch._dynamo.backends import registry
from torch._dynamo.backends.common import aot_autograd
from torch._guards import TracingContext

from .compiled import CompiledGraph

NAME = "torch_dwconv"  # as torch.compile knows it, and as in pyproject.toml


class _NeedsGradient(Exception):
    """Something in the graph is to be differentiated."""


def backend(graph: fx.GraphModule, example_inputs: list[Any], *, options: Mapping[str, Any] | None = None) -> Callable:
    """What ``torch.compile(model, backend="torch_dwconv")`` compiles with.

    For inference on a CPU: under torch.no_grad() or torch.inference_mode(), or where nothing requires a gradient.
    Convolutions, linear layers and what stands between them run as blocks, everything else as PyTorch's own operators,
    so no C++ compiler is needed. Where a gradient is needed the graph runs as Dynamo made it, in eager mode. Weights
    may change: what was packed of them is made again when they are the same for two calls, and until then the graph
    runs with the new weights as they are.

    Args:
        options: of torch.compile; "report": a function that is called with a `FuseReport` of each graph for which
            blocks are formed.

    Raises:
        ValueError: an unknown option.
    """
    given = dict(options or {})
    report = given.pop("report", None)
    if given:
        raise ValueError(f"options must be 'report' only, got {', '.join(map(repr, given))}")
    if _is_plainly_for_gradients(graph, example_inputs):
        return graph.forward

    def compile_inference(functional: fx.GraphModule, inputs: list[Any]) -> Callable:
        return CompiledGraph(functional, _weights_of(functional, inputs), report)

    def refuse(functional: fx.GraphModule, inputs: list[Any]) -> Callable:
        raise _NeedsGradient

    try:
        return aot_autograd(fw_compiler=refuse, inference_compiler=compile_inference)(graph, example_inputs)
    except _NeedsGradient:
        return graph.forward


def _is_plainly_for_gradients(graph: fx.GraphModule, inputs: list[Any]) -> bool:
    """Whether something is to be differentiated, unless forward turns gradients off itself."""
    needs = torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in inputs)
    return needs and not any("set_grad_enabled" in str(node.target) for node in graph.graph.nodes)


def _weights_of(functional: fx.GraphModule, inputs: list[Any]) -> list[int]:
    """The places of parameters and buffers that the graph does not write to among its inputs."""
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    if metadata is None:
        return []
    written = {index for index, info in enumerate(metadata.input_info) if info.mutates_data or info.mutates_metadata}
    places = sorted({*metadata.static_input_indices} - written)
    return [place for place in places if place < len(inputs) and isinstance(inputs[place], Tensor)]


def register() -> None:
    """Makes torch.compile find the backend in a checkout too, where there is no entry point of an installed package."""
    value = f"{__name__}:{backend.__name__}"
    registry._BACKENDS.setdefault(NAME, EntryPoint(NAME, value, "torch_dynamo_backends"))
