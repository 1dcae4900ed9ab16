"""Whether a fused program computes what its model computes: on the example, and for other sizes that it takes."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .inputs import Example, Inputs, evaluated
from .module import FusedModule

# What ||fused - model|| / ||model|| may be without a closer look. Beyond it float64 is asked.
_ROUNDINGS = 16
_ALWAYS = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}
# How much further off than the model the program may be. Sums in float32 go in another order: a kernel that adds up a
# thousand products one after the other is three times as far off as one that adds sums of a few.
_TIMES = {torch.float32: 16}
_WITHOUT_REFERENCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
_ARGMAX = 1e-3  # part of a result of integers that rounding may turn


class Difference(RuntimeError):
    """The program computes something else than the model."""


class NotItself(Difference):
    """The model gives another result when it is called again: it is random or has state."""

    def __init__(self) -> None:
        super().__init__("the model itself gives another result when it is called again: it is random or has state")


class Unverified(Exception):
    """For some sizes there is no result of the model with which to compare, or another program."""


@torch.no_grad()
def verify(fused: FusedModule, model: nn.Module, example: Example, inputs: Inputs) -> None:
    """Compares, and lets sizes that vary be 1 and 0 if the program is right for them.

    Args:
        model: a copy of the model that has not run yet.

    Raises:
        Difference: the results differ.
        NotItself: the model's own do from call to call.
        Unverified: the model does not compute with other sizes, or those of the example are special.
    """
    compare = _Comparison(fused, model, example)
    untried = [name for name, allowed in inputs.ranges.items() if allowed[0] <= 2]
    for name in untried:  # torch.export takes each size that varies for one that is at least 2
        inputs.ranges[name][0] = 0
    inputs.recompile()
    hints = _sizes_of(example, inputs)
    try:
        first = compare(example.leaves)
    except Difference as error:
        if any(hints[name] < 2 for name in untried):
            raise Unverified("a batch of one is another program") from error
        raise
    # Asked before other sizes are: what a model remembers it may forget when it sees another one.
    compare.same_again(first)
    if hints:
        sizes = _other_sizes(inputs, hints)
        try:
            compare(_leaves_of(example, inputs, sizes))
        except Difference:
            raise
        except Exception as error:
            raise Unverified(
                f"the model does not compute with {sizes}, sizes that the program takes: {error}"
            ) from error
    for name in untried:
        _find_lowest(inputs, name, compare, example, hints)
    compare.same_again(first)


class _Comparison:
    def __init__(self, fused: FusedModule, model: nn.Module, example: Example):
        self.fused, self.model, self.example = fused, model, example
        tensors = (*model.parameters(), *model.buffers(), *example.leaves)
        dtypes = {leaf.dtype for leaf in tensors if isinstance(leaf, Tensor) and leaf.is_floating_point()}
        self.coarsest = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float64)

    def __call__(self, leaves: list[Any]) -> Any:
        """The model's result.

        Raises:
            Difference: the program's is another.
            NotItself: so is the model's own when it is called again.
        """
        args, kwargs = self.example.with_leaves(leaves)
        expected = self.of_model(leaves)
        try:
            actual = self.fused(*args, **kwargs)
        except Exception as error:
            raise Difference(
                f"the fused program does not compute what the model computes, but fails: {error}"
            ) from error
        found = self.differ(actual, expected, lambda: self._reference(leaves))
        if found is not None:
            if self.differ(self.of_model(leaves), expected):
                raise NotItself
            raise Difference(f"the fused program does not compute what the model computes: {found}")
        return expected

    def differ(self, actual: Any, expected: Any, reference: Any = None) -> str | None:
        return difference(actual, expected, self.coarsest, reference)

    def same_again(self, first: Any) -> None:
        """Raises NotItself if the model's result for the example is another than `first`, an earlier one."""
        if self.differ(self.of_model(self.example.leaves), first):
            raise NotItself

    def of_model(self, leaves: list[Any]) -> Any:
        args, kwargs = self.example.with_leaves(leaves)
        return self.model(*args, **kwargs)

    def _reference(self, leaves: list[Any]) -> list[Any]:
        """The leaves of the model's result in float64, none if it cannot compute that."""
        wide = [leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf for leaf in leaves]
        args, kwargs = self.example.with_leaves(wide)
        try:
            return pytree.tree_leaves(copy.deepcopy(self.model).double()(*args, **kwargs))
        except Exception:  # a dtype written down in forward
            return []


def difference(actual: Any, expected: Any, coarsest: torch.dtype, reference: Any = None) -> str | None:
    """What differs between two results, by a path into them; None if nothing does but rounding.

    Rounding is that of the result's dtype or of `coarsest`, in which part of it was computed. Without `reference`, a
    function that gives the leaves of the true result or an empty list, both come of the same computation.
    """
    actual_leaves, actual_spec = pytree.tree_flatten(actual)
    with_paths, spec = pytree.tree_flatten_with_path(expected)
    if actual_spec != spec:
        return f"its result has another structure, {actual_spec}, not {spec}"
    true: list[Any] | None = None
    for index, ((path, theirs), ours) in enumerate(zip(with_paths, actual_leaves, strict=True)):
        where = f"result{pytree.keystr(path)}"
        if not isinstance(theirs, Tensor):
            if type(ours) is not type(theirs) or ours != theirs:
                return f"{where} is {ours!r}, not {theirs!r}"
            continue
        for name in ("dtype", "shape", "device"):
            if getattr(ours, name) != getattr(theirs, name):
                return f"{where} has {name} {getattr(ours, name)}, not {getattr(theirs, name)}"
        dtype = theirs.dtype
        if dtype.is_floating_point and torch.finfo(dtype).eps < torch.finfo(coarsest).eps:
            dtype = coarsest
        error, limit = _error(ours, theirs), _ROUNDINGS * _epsilon(dtype)
        if error > limit and reference is not None:
            limit = max(limit, _WITHOUT_REFERENCE.get(dtype, 0.0))
            true = reference() if true is None and dtype != torch.float64 else true
            if true and isinstance(true[index], Tensor):
                exact = true[index].to(torch.promote_types(theirs.dtype, true[index].dtype))
                noise = _error(theirs.to(exact.dtype), exact)  # by luck it may be small
                limit = max(_TIMES.get(dtype, 4) * noise, _ALWAYS.get(dtype, _ARGMAX))
                error = _error(ours.to(exact.dtype), exact)
        if not error <= limit:
            return f"{where} is off by {error:.1e} of its norm, where rounding explains {limit:.1e}"
    return None


def _epsilon(dtype: torch.dtype) -> float:
    if dtype.is_floating_point or dtype.is_complex:
        return torch.finfo(dtype).eps
    return _ARGMAX / _ROUNDINGS


def _error(ours: Tensor, theirs: Tensor) -> float:
    """||ours - theirs|| / ||theirs||, of integers the part that differs; infinite where one of them is not finite."""
    if not theirs.numel():
        return 0.0
    if not (theirs.is_floating_point() or theirs.is_complex()):
        return (ours != theirs).double().mean().item()
    wide = torch.complex128 if theirs.is_complex() else torch.float64
    finite = torch.isfinite(theirs)
    if not torch.equal(ours.isnan(), theirs.isnan()) or not torch.equal(
        torch.where(finite | theirs.isnan(), 0, ours), torch.where(finite | theirs.isnan(), 0, theirs)
    ):
        return math.inf
    ours, theirs = torch.where(finite, ours, 0).to(wide), torch.where(finite, theirs, 0).to(wide)
    norm, distance = theirs.norm().item(), (ours - theirs).norm().item()
    return distance / norm if norm else (math.inf if distance else 0.0)


def _sizes_of(example: Example, inputs: Inputs) -> dict[str, int]:
    """The example's value of each size that varies."""
    sizes: dict[str, int] = {}
    tensors = [leaf for leaf in example.leaves if isinstance(leaf, Tensor)]
    for tensor, spec in zip(tensors, inputs.tensors, strict=True):
        for size, name in zip(tensor.shape, spec.sizes, strict=True):
            if isinstance(name, str) and name.isidentifier():
                sizes.setdefault(name, size)
    return sizes


def _other_sizes(inputs: Inputs, hints: dict[str, int]) -> dict[str, int]:
    """The nearest larger, or else smaller, sizes that the program takes, with all that vary different.

    Raises:
        Unverified: there are none near.
    """
    for step in (*range(1, 65), *range(-1, -65, -1)):
        sizes = {name: hint + step for name, hint in hints.items()}
        if min(sizes.values()) > 1 and _allowed(inputs, sizes):
            return sizes
    raise Unverified(f"no other sizes near {hints} fit {inputs.conditions}")


def _allowed(inputs: Inputs, sizes: dict[str, int]) -> bool:
    within = all(low <= sizes[name] <= (high or sizes[name]) for name, (low, high) in inputs.ranges.items())
    try:
        return within and all(evaluated(condition, sizes) for condition in inputs.conditions)
    except ZeroDivisionError:  # of conditions that hold for no size of 0
        return False


def _find_lowest(inputs: Inputs, name: str, compare: _Comparison, example: Example, hints: dict[str, int]) -> None:
    """Sizes of 1 and 0, for which torch.export does not say whether the program is right, are tried."""
    lowest = 2
    for size in (1, 0):
        sizes = {**hints, name: size}
        if not _allowed(inputs, sizes):
            break
        try:
            compare(_leaves_of(example, inputs, sizes))
        except Exception:  # the model refuses the size, or is another program there
            break
        lowest = size
    inputs.ranges[name][0] = lowest
    inputs.recompile()


def _leaves_of(example: Example, inputs: Inputs, sizes: dict[str, int]) -> list[Any]:
    """Leaves like the example's, of other sizes: normal numbers for floating point, else the example's own repeated."""
    specs = iter(inputs.tensors)
    leaves = []
    for leaf in example.leaves:
        if isinstance(leaf, Tensor):
            shape = [evaluated(size, sizes) for size in next(specs).sizes]
            leaf = _filled(leaf, shape)
        leaves.append(leaf)
    return leaves


def _filled(like: Tensor, shape: list[int]) -> Tensor:
    if like.is_floating_point():
        wide = like.float()
        spread = wide.std().item() if like.numel() > 1 else 0.0
        values = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu").to(like.device)
        values = values * spread + wide.mean().item() if spread > 0 else values
        return values.to(like.dtype)
    for dim, size in enumerate(shape):
        index = torch.arange(size, device=like.device) % max(like.shape[dim], 1)
        like = like.index_select(dim, index)
    return like
