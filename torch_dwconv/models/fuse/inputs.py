"""The arguments that a fused program takes: those of the example, of which sizes may vary that torch.export let vary.

Everything else about them, dtype, device, the value of what is no tensor, is part of the program, and is checked.
"""

import copy
import inspect
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...operators.formats import suggests_channels_last


class TensorSpec(NamedTuple):
    """One tensor argument. A size is a number, or the name of one that varies."""

    name: str
    dtype: torch.dtype
    device: torch.device
    sizes: tuple[int | str, ...]
    memory_format: torch.memory_format

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.sizes)) + ("," if len(self.sizes) == 1 else "")
        return f"{self.name}: {str(self.dtype).removeprefix('torch.')} ({sizes})"


_TOLD = 3  # conditions in a report: with free height and width there are dozens
_FORMATS = torch.contiguous_format, torch.channels_last, torch.channels_last_3d


def memory_format_of(tensor: Tensor) -> torch.memory_format:
    """The format in which the program gets tensors like this one."""
    if tensor.dim() == 5 and tensor.is_contiguous(memory_format=torch.channels_last_3d) and not tensor.is_contiguous():
        return torch.channels_last_3d
    return torch.channels_last if tensor.dim() == 4 and suggests_channels_last(tensor) else torch.contiguous_format


class Example:
    """The arguments of the example: by name, and as leaves in the order that torch.export gives them.

    Raises:
        TypeError: they are not arguments of the model's forward.
    """

    def __init__(self, forward, args: tuple, kwargs: dict[str, Any]):
        signature = inspect.signature(forward)
        self.signature = signature.replace(
            parameters=[p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()],
            return_annotation=inspect.Signature.empty,
        )
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"example_inputs must be arguments of the model's forward: {error}") from None
        self.arguments = dict(bound.arguments)
        self.paths, self.leaves, self.spec = flatten(self.arguments)

    def with_leaves(self, leaves) -> tuple[tuple, dict[str, Any]]:
        """Positional and keyword arguments with other leaves."""
        arguments = pytree.tree_unflatten(leaves, self.spec)
        bound = inspect.BoundArguments(self.signature, arguments)
        return bound.args, bound.kwargs

    def shapes(self, of_leaf: list[Any]) -> dict[str, Any]:
        """What torch.export takes as dynamic_shapes, from one entry for each leaf."""
        return pytree.tree_unflatten(of_leaf, self.spec)


def flatten(arguments: dict[str, Any]) -> tuple[list[str], list[Any], Any]:
    """The leaves of arguments by name, what each is called in an error, and the structure."""
    with_paths, spec = pytree.tree_flatten_with_path(arguments)
    paths = [f"{path[0].key}{pytree.keystr(path[1:])}" for path, _ in with_paths]  # type: ignore[attr-defined]
    return paths, [leaf for _, leaf in with_paths], spec


class Inputs:
    """Checks the arguments of a call and gives the tensors among them."""

    def __init__(self, example: Example, tensors: list[TensorSpec], ranges: dict[str, list], conditions: list[str]):
        """`ranges`: the smallest and the largest value (or None) of each size that varies; `conditions`: code."""
        self.signature, self.spec, self.paths = example.signature, example.spec, example.paths
        self.names = [*example.arguments]
        self.constants = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in example.leaves]
        self.tensors, self.ranges, self.conditions = tensors, ranges, conditions
        self.positional = self._all_positional()
        self.recompile()

    def _all_positional(self) -> int:
        """How many arguments there are if all are positional and tensors, else -1."""
        kinds = [self.signature.parameters[name].kind for name in self.names]
        plain = all(k in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for k in kinds)
        return len(self.names) if plain and self.paths == self.names and not any(self.constants) else -1

    def __getstate__(self) -> dict[str, Any]:
        tensors = [
            (*spec[:-1], str(spec.memory_format)) for spec in self.tensors
        ]  # formats do not pickle by protocol 2
        return {name: value for name, value in vars(self).items() if name != "_fits"} | {"tensors": tensors}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        formats = {str(each): each for each in _FORMATS}
        self.tensors = [TensorSpec._make((*fields[:-1], formats[fields[-1]])) for fields in state["tensors"]]
        self.recompile()

    def recompile(self) -> None:
        """Makes one function of the shapes that says whether they fit: an expression costs less than a loop."""
        bound: set[str] = set()
        tests = []
        for index, spec in enumerate(self.tensors):
            tests.append(f"len(x{index}) == {len(spec.sizes)}")
            for axis, size in enumerate(spec.sizes):
                if isinstance(size, str) and size.isidentifier() and size not in bound:
                    bound.add(size)
                    low, high = self.ranges[size]
                    tests.append(
                        f"({size} := x{index}[{axis}]) >= {low}" + ("" if high is None else f" and {size} <= {high}")
                    )
                else:
                    tests.append(f"x{index}[{axis}] == {size}")
        names = ", ".join(f"x{index}" for index in range(len(self.tensors)))
        self._fits = eval(f"lambda {names}: {' and '.join((*tests, *self.conditions)) or True}", {"math": math})

    def described(self) -> list[str]:
        """For a report: the arguments, and what the sizes that vary may be."""
        ranges = (
            f"{name} from {low}" + ("" if high is None else f" to {high}") for name, (low, high) in self.ranges.items()
        )
        constants = (
            f"{path}={constant[0]!r}" for path, constant in zip(self.paths, self.constants, strict=True) if constant
        )
        conditions = self.conditions
        if len(conditions) > _TOLD:
            conditions = [*conditions[:_TOLD], f"and {len(conditions) - _TOLD} more conditions on sizes"]
        return [*map(str, self.tensors), *constants, *ranges, *conditions]

    def moved(self, devices: dict[torch.device, torch.device]) -> "Inputs":
        """The same for a program that has been moved: its arguments have to be where it is."""
        twin = copy.copy(self)
        twin.tensors = [spec._replace(device=devices.get(spec.device, spec.device)) for spec in self.tensors]
        return twin

    def of_call(self, args: tuple, kwargs: dict[str, Any]) -> list[Tensor]:
        """The tensors of a call, in the memory formats of the program.

        Raises:
            TypeError: an argument that is missing or unknown, or of another type than the example's.
            ValueError: an argument that is no tensor has another value.
            RuntimeError: the dtype, device or size of a tensor.
        """
        if kwargs or len(args) != self.positional:
            args = self._bind(args, kwargs)
        tensors = []
        for tensor, spec in zip(args, self.tensors, strict=True):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{spec.name} must be a tensor, as in example_inputs, got {type(tensor).__name__}")
            if tensor.dtype != spec.dtype:
                raise RuntimeError(f"{spec.name} must be {spec.dtype}, as in example_inputs, got {tensor.dtype}")
            if tensor.device != spec.device:
                raise RuntimeError(f"{spec.name} must be on {spec.device}, where the program is, got {tensor.device}")
            tensors.append(_in_format(tensor, spec.memory_format))
        if not self._fits(*[tensor.shape for tensor in tensors]):
            self._explain(tensors)
        return tensors

    def _bind(self, args: tuple, kwargs: dict[str, Any]) -> tuple:
        """The tensors of arguments in any order, after all else was checked."""
        try:
            given = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(
                f"the fused program takes the arguments of example_inputs, {self._names()}: {error}"
            ) from None
        parameters = self.signature.parameters
        for name, value in given.items():
            if name not in self.names and not is_same(value, parameters[name].default):
                raise TypeError(
                    f"the fused program takes the arguments of example_inputs, {self._names()}, got {name} too: fuse "
                    "the model with an example of it"
                )
        empty: dict[Any, Any] = {inspect.Parameter.VAR_POSITIONAL: (), inspect.Parameter.VAR_KEYWORD: {}}
        arguments = {n: given.get(n, empty.get(parameters[n].kind, parameters[n].default)) for n in self.names}
        paths, leaves, spec = flatten(arguments)
        if spec != self.spec or paths != self.paths:
            raise TypeError(f"arguments must have the structure of example_inputs, {self.paths}, got {paths}")
        tensors = []
        for path, leaf, constant in zip(self.paths, leaves, self.constants, strict=True):
            if constant is None:
                tensors.append(leaf)
            elif not is_same(leaf, constant[0]):
                got = type(leaf).__name__ if isinstance(leaf, Tensor) else repr(leaf)
                raise ValueError(f"{path} must be {constant[0]!r}, as in example_inputs, got {got}")
        return tuple(tensors)

    def _names(self) -> str:
        return ", ".join(self.names) or "none"

    def _explain(self, tensors: list[Tensor]) -> None:
        """Raises RuntimeError about sizes that do not fit."""
        sizes: dict[str, int] = {}
        for tensor, spec in zip(tensors, self.tensors, strict=True):
            shape = tuple(tensor.shape)
            text = f"{spec.name} must be {spec.sizes}, of which the program was made, got {shape}"
            if len(shape) != len(spec.sizes):
                raise RuntimeError(text)
            for size, wanted in zip(shape, spec.sizes, strict=True):
                if isinstance(wanted, str) and wanted.isidentifier() and wanted not in sizes:
                    sizes[wanted] = size
                    low, high = self.ranges[wanted]
                    if size < low or (high is not None and size > high):
                        raise RuntimeError(f"{text}; {wanted} must be {low} to {'any' if high is None else high}")
                elif size != evaluated(wanted, sizes):
                    raise RuntimeError(text)
        broken = [condition for condition in self.conditions if not evaluated(condition, sizes)]
        raise RuntimeError(f"sizes must fit {', '.join(broken)}, of which the program was made, got {sizes}")


def _in_format(tensor: Tensor, memory_format: torch.memory_format) -> Tensor:
    try:
        if tensor.is_contiguous(memory_format=memory_format):
            return tensor
        return tensor.contiguous(memory_format=memory_format)
    except RuntimeError:  # vmap knows one format only; another makes the program slower, not wrong
        return tensor


def evaluated(size: int | str, sizes: dict[str, int]) -> Any:
    """A size, or a condition, for these values of those that vary."""
    return size if isinstance(size, int) else eval(size, {"math": math}, sizes)


def is_same(value: Any, other: Any) -> bool:
    """Whether a program made for one of them is right for the other."""
    if value is other:
        return True
    if isinstance(value, Tensor) or isinstance(other, Tensor) or type(value) is not type(other):
        return False
    if isinstance(value, float):
        return repr(value) == repr(other)  # of 0.0 and -0.0 too
    try:
        return bool(value == other)
    except Exception:  # of a class of the user's
        return False
