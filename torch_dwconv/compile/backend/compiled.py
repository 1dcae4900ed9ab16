"""CompiledGraph: one functional graph, as it is and, for the weights that it has been called with, in blocks."""

import contextlib
import copy
import re
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import _disable_current_modes

from ...models.fuse import PASSES, FuseReport, report_of
from ...models.fuse.capture import tidy
from ...models.fuse.groups import grouped
from ...models.fuse.pages import in_huge_pages
from ...models.fuse.program import Program, aten, constant_name, value
from ...models.fuse.verify import difference
from ...operators.plain import is_plain, is_plain_thread
from ...operators.snapshot import Snapshot
from .recompose import recompose

_OF_DYNAMO = re.compile(r"^L\['\w+'\]\.?")  # in the names of modules, before the model's own

_one_at_a_time = threading.RLock()  # the fake tensors of a graph are not made for two threads


class CompiledGraph:
    """Runs a functional graph for inference. A call takes one list of inputs and empties it.

    Weights are inputs of a graph. Two models of the same code may share one graph, so it has a program for each. It
    makes that anew when it has seen changed weights twice: weights that change before every call, in training, are
    never packed, and the graph then runs as it is.

    The first result of each program is compared with the graph's. If they differ, the graph is what runs from then on.

    Args:
        weights: the places of the inputs that are weights.
        report: called with a FuseReport when the first program is made.
    """

    _boxed_call = True  # tells AOTAutograd of that list

    def __init__(self, graph: fx.GraphModule, weights: list[int], report: Callable[[FuseReport], object] | None):
        for node in graph.graph.find_nodes(op="call_function", target=aten.view.default):
            node.target = aten.reshape.default  # of strides that were foreseen, which oneDNN's convolutions do not keep
        graph.recompile()
        self._graph, self._weights, self._report = graph, weights, report
        count = sum(node.op == "placeholder" for node in graph.graph.nodes)
        self._others = [place for place in range(count) if place not in {*weights}]
        self._programs: dict[int, _Packed] = {}  # by the identity of the first weight
        self._changed: dict[int, Snapshot] = {}  # seen once since they are others than the program's
        self._has_program = bool(weights)

    def __call__(self, inputs: list[Any]) -> Any:
        given = [*inputs]
        inputs.clear()
        if self._has_program:
            weights = [given[place] for place in self._weights]
            if not is_plain_thread():
                if not self._programs:  # AOTAutograd watches the first call, the next one finds the program
                    self._pack(weights)
            else:
                others = [given[place] for place in self._others]
                packed = self._programs.get(id(weights[0]))
                if packed is None or not packed.weights.shows(weights):
                    packed = self._pack(weights)
                if packed is not None and all(is_plain(each, each) for each in others if isinstance(each, Tensor)):
                    return packed(others) if packed.is_right else self._compared(packed, given, others)
        return self._graph.forward(*given)

    def _compared(self, packed: "_Packed", given: list[Any], others: list[Any]) -> Any:
        """The graph's result, once the program's has been compared with it."""
        with torch.random.fork_rng(devices=[]):  # the random numbers of one are those of the other
            try:
                actual = packed(others)
                wrong = None
            except Exception as error:
                wrong = f"it fails: {type(error).__name__}: {error}"
        expected = self._graph.forward(*given)
        if wrong is None:
            wrong = _wrong(actual, expected, given)
        if wrong is not None:
            self._give_up(wrong)
        packed.is_right = wrong is None
        return expected

    def _give_up(self, wrong: str) -> None:
        """From now on the graph runs as it is."""
        self._has_program = False
        self._programs.clear()
        warnings.warn(
            f"a graph runs without blocks. A pass went wrong, which is a fault of torch_dwconv: {wrong}", stacklevel=2
        )

    def _pack(self, weights: list[Tensor]) -> "_Packed | None":
        """The program for these weights; None if there is none yet, or none at all."""
        own_state = torch.inference_mode(False), torch.no_grad(), torch._C._DisableAutocast(), _disable_current_modes()
        with _one_at_a_time, contextlib.ExitStack() as stack:
            for each in own_state:
                stack.enter_context(each)
            if any(weight.is_inference() or not weight.is_cpu or not is_plain(weight, weight) for weight in weights):
                return None  # nothing tells of changes, or there are no blocks there
            key, own = id(weights[0]), Snapshot(weights)
            known, changed = self._programs.get(key), self._changed.get(key)
            if known is not None and known.weights.shows(weights):  # another thread has been here
                return known
            if known is not None and not (changed is not None and changed.shows(weights)):
                self._changed[key] = own
                return None
            try:
                program = _program(self._graph, {*self._weights}, weights)
                if program is None:
                    self._has_program = False
                    return None
                report = report_of(program) if self._report is not None and not self._programs else None
                program.finish()
                packed = _Packed(program, own)
            except Exception as error:  # a pass must not take a model away that PyTorch can run
                self._give_up(f"it raises {type(error).__name__}: {error}")
                return None
            if self._report is not None and report is not None:
                self._report(report)
            if known is None:
                weakref.finalize(weights[0], self._programs.pop, key, None).atexit = False
            self._changed.pop(key, None)
            self._programs[key] = packed
            return packed


class _Packed:
    """A program with its constants."""

    def __init__(self, program: Program, weights: Snapshot):
        self.weights, self.owner, self.is_right = weights, program.owner, False
        source, namespace, numbers = grouped(program)
        exec(compile(source, f"<{__name__}>", "exec"), namespace)
        self.run = namespace["forward"]
        constants = {program.names[node]: tensor for node, tensor in program.constants.items()}
        held = in_huge_pages(constants)
        self.constants = [*(held[name] for name in constants), *(torch.tensor(each, device="cpu") for each in numbers)]

    def __call__(self, others: list[Any]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return self.run(self.owner, *others, *self.constants)


def _wrong(actual: Any, expected: Any, given: list[Any]) -> str | None:
    """What a program has computed wrongly; None if its floating-point results differ by rounding alone."""
    tensors = [each for each in (*given, *expected) if isinstance(each, Tensor) and each.is_floating_point()]
    coarsest = max((each.dtype for each in tensors), key=lambda dtype: torch.finfo(dtype).eps, default=torch.float64)
    of_floats = [
        (own, other)
        for own, other in zip(actual, expected, strict=True)
        if isinstance(other, Tensor) and other.is_floating_point()
    ]
    return difference([own for own, _ in of_floats], [other for _, other in of_floats], coarsest, lambda: [])


def _program(graph: fx.GraphModule, places: set[int], weights: list[Tensor]) -> Program | None:
    """The program with these weights; None if nothing of it would be ours."""
    owner = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    for node in owner.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        named = {key: (_OF_DYNAMO.sub("", name), *rest) for key, (name, *rest) in stack.items()}
        node.meta = {**node.meta, "nn_module_stack": named}
    rest = iter(weights)
    constants: dict[fx.Node, Tensor] = {}
    names: dict[fx.Node, str] = {}
    leaves: list[fx.Node | None] = []
    for place, node in enumerate(node for node in owner.graph.nodes if node.op == "placeholder"):
        if place in places:
            constants[node] = next(rest).detach()
            names[node] = constant_name(node.name, {*names.values()})
        else:
            leaves.append(node)
    program = Program(owner, leaves, constants, names)
    modes = [getattr(value(node), "fake_mode", None) for node in (*program.inputs(), *constants)]
    sizes = next((mode.shape_env for mode in modes if mode is not None), None)
    guards = 0 if sizes is None else len(sizes.guards)
    tidy(program)
    recompose(program)
    program.find_convolutions()
    for change in PASSES:
        change(program)
    if sizes is not None and len(sizes.guards) > guards:
        return None  # a pass has decided something about sizes, which no guard of Dynamo's knows
    return program if program.blocks or program.converted or program.taken else None
