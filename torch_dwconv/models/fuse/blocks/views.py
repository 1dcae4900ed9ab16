"""Views: which axes of a tensor are which of another one that it is a view of.

A step sees images, (N, C, H, W). Models hold the same numbers as (N, H, W, C), as tokens (N, H*W, C) or as (N, C), and
what computes pixel by pixel may as well come before such a view as after it.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from typing import Any

from torch import fx

from ....operators.symbolic import is_always
from ..program import Program, aten, same_sizes, value

_PERMUTES = (aten.permute.default, aten.transpose.int)
_COPIES = (aten.contiguous.default,)  # they change strides only
_RESHAPES = (
    aten.reshape.default,
    aten.reshape_as.default,
    aten.flatten.using_ints,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
)
_BY_DIMS = (aten.flatten.using_ints, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default)
VIEWS = {*_PERMUTES, *_COPIES, *_RESHAPES}

CHANNELS = 1  # the axis of an image

# Of each axis of a view those of the source that lie in it, the outer first. Axes of size 1 are in none.
Axes = tuple[tuple[int, ...], ...]


def call(program: Program, target, *args, **kwargs) -> fx.Node:
    """A new node, where the graph inserts, with its fake value."""
    node = program.graph.call_function(target, args, kwargs)
    fakes = fx.node.map_arg((args, kwargs), value)
    node.meta["val"] = target(*fakes[0], **fakes[1])
    return node


def _is_one(size) -> bool:
    return isinstance(size, int) and size == 1


def own_axes(node: fx.Node) -> Axes:
    return tuple(() if _is_one(size) else (axis,) for axis, size in enumerate(value(node).shape))


def axes_through(view: fx.Node, axes: Axes, source) -> Axes | None:
    """The axes of a view of what has `axes`; None if an axis of the source is divided, or it is no view.

    Args:
        source: the sizes of the source's axes.
    """
    if view.target in _COPIES:
        return axes
    if view.target in _PERMUTES:
        return tuple(axes[dim] for dim in _order(view))
    if view.target not in _RESHAPES:
        return None
    rest, result = [axis for group in axes for axis in group], []
    for size in value(view).shape:
        group: list[int] = []
        while not is_always(math.prod(source[axis] for axis in group) == size):
            if not rest:
                return None
            group.append(rest.pop(0))
        result.append(tuple(group))
    return None if rest else tuple(result)


def axis_through(view: fx.Node, axis: int) -> int | None:
    """The axis of a view that is one axis of its operand and nothing else; None if there is none, or it has size 1."""
    source = value(view.args[0]).shape
    if _is_one(source[axis]):
        return None
    if view.target in _COPIES:
        return axis
    if view.target in _PERMUTES:
        return _order(view).index(axis)
    sizes, wanted = value(view).shape, (math.prod(source[:axis]), source[axis], math.prod(source[axis + 1 :]))
    for own in range(len(sizes)):
        parts = math.prod(sizes[:own]), sizes[own], math.prod(sizes[own + 1 :])
        if all(is_always(part == other) for part, other in zip(parts, wanted, strict=True)):
            return own
    return None


def axes_along(path: list[fx.Node], axes: Axes, source) -> Axes | None:
    """axes_through of all views of a path. Of two reshapes in a row the first may divide axes as it likes."""
    current: Axes | None = axes
    for view, follower in zip_longest(path, path[1:]):
        if current is not None and not (follower and {view.target, follower.target} <= {*_RESHAPES}):
            current = axes_through(view, current, source)
    return current


def _order(view: fx.Node) -> list[int]:
    given: Any = view.args
    dims = value(view).dim()
    if view.target is aten.permute.default:
        return [dim % dims for dim in given[1]]
    order, (first, second) = [*range(dims)], (dim % dims for dim in given[1:3])
    order[first], order[second] = order[second], order[first]
    return order


def sources(node: fx.Node) -> list[tuple[fx.Node, list[fx.Node], Axes]]:
    """Of what a node is a view, the farthest first: the source, the views that lead from it, and the node's axes."""
    path: list[fx.Node] = []
    found: list[tuple[fx.Node, list[fx.Node], Axes]] = []
    current = node
    while True:
        axes = axes_along(path, own_axes(current), value(current).shape)
        if axes is not None:
            found.insert(0, (current, [*path], axes))
        if current.target not in VIEWS:
            return found
        path.insert(0, current)
        current = current.args[0]  # type: ignore[assignment]


def channel_axis(axes: Axes) -> int | None:
    """The axis of a view that is the channels of an image and nothing else."""
    return axes.index((CHANNELS,)) if (CHANNELS,) in axes else None


def as_image(program: Program, node: fx.Node) -> tuple[fx.Node, Callable[[fx.Node], fx.Node]]:
    """An image whose pixels are the rows of a tensor that has its channels last.

    Returns:
        The image, and what makes of another image of its height and width what `node` would be then.
    """
    for source, path, axes in sources(node):
        if value(source).dim() != 4 or axes[-1] != (CHANNELS,):
            continue
        if all(_may_be_repeated(view, source, path) for view in path):
            return source, partial(_repeated, program, path, source)
    dims = value(node).dim()
    if dims == 2:
        image = call(program, aten.unsqueeze.default, call(program, aten.unsqueeze.default, node, -1), -1)
        return image, lambda image: call(program, aten.squeeze.dims, image, [2, 3])
    rows, sizes = node, [*value(node).shape[:-1]]
    if dims == 3 and (plane := _plane(node)) is not None:
        batch, _, channels = value(node).shape
        split = _reshape_argument([batch, *plane, channels])
        image = call(program, aten.permute.default, call(program, aten.reshape.default, node, split), [0, 3, 1, 2])
        return image, lambda image: call(
            program, aten.flatten.using_ints, call(program, aten.permute.default, image, [0, 2, 3, 1]), 1, 2
        )
    if dims == 3:
        rows = call(program, aten.unsqueeze.default, node, 1)
    elif dims > 4:
        rows = call(program, aten.flatten.using_ints, node, 0, dims - 4)

    def back(image: fx.Node) -> fx.Node:
        last = call(program, aten.permute.default, image, [0, 2, 3, 1])
        if dims == 3:
            return call(program, aten.squeeze.dim, last, 1)
        return last if dims == 4 else call(program, aten.reshape.default, last, _static(sizes, value(image).shape[1]))

    return call(program, aten.permute.default, rows, [0, 3, 1, 2]), back


_PIXELWISE = {
    aten.layer_norm.default,
    aten.add.Tensor,
    aten.mul.Tensor,
    aten.gelu.default,
    aten.relu.default,
    aten.silu.default,
    aten.hardswish.default,
}
_FAR = 8  # calls: beyond, tokens are taken for a row of pixels


def _plane(tokens: fx.Node, far: int = _FAR) -> tuple[int, int] | None:
    """Height and width of the image whose pixels are these tokens, by what they were computed from."""
    batch, length, _ = value(tokens).shape
    for source, _, axes in sources(tokens):
        sizes = value(source).shape
        if len(sizes) == 4 and axes == ((0,), (2, 3), (CHANNELS,)) and all(isinstance(size, int) for size in sizes[2:]):
            return sizes[2], sizes[3]
    if far and tokens.target in _PIXELWISE:
        for operand in tokens.args[:2]:
            shape = getattr(value(operand), "shape", ())
            if not isinstance(operand, fx.Node) or len(shape) != 3 or not same_sizes(shape[:2], (batch, length)):
                continue
            if (plane := _plane(operand, far - 1)) is not None:
                return plane
    return None


def fits_an_image(node: fx.Node) -> bool:
    """Whether as_image takes a tensor."""
    shape = value(node).shape
    return len(shape) in (2, 3, 4) or (len(shape) > 4 and _static(shape[:-1], 1) is not None)


def _static(sizes, channels: int) -> list | None:
    """The argument of a reshape to these sizes and the channels; None if more than one of them varies."""
    varying = [at for at, size in enumerate(sizes) if not isinstance(size, int)]
    if len(varying) > 1:
        return None
    return [-1 if at in varying else size for at, size in enumerate(sizes)] + [channels]


def _may_be_repeated(view: fx.Node, source: fx.Node, path: list[fx.Node]) -> bool:
    """Whether a view can be made of an image with other channels: those are an axis of their own in it."""
    axes: Axes | None = own_axes(source)
    for each in path:
        axes = None if axes is None else axes_through(each, axes, value(source).shape)
        if each is view:
            break
    if axes is None or (axis := channel_axis(axes)) is None:
        return False
    return view.target in (*_BY_DIMS, *_PERMUTES, *_COPIES) or _sizes_with(view, axis, 1) is not None


def _sizes_with(view: fx.Node, axis: int, channels) -> list | None:
    """The sizes of a reshape with other channels, as its argument."""
    sizes: Any = view.args[1] if view.target is not aten.reshape_as.default else None
    if isinstance(sizes, (list, tuple)):
        sizes = [*sizes]
        if any(size == -1 for at, size in enumerate(sizes) if at != axis) or -1 not in sizes:
            sizes[axis] = channels
            return sizes
    shape = [*value(view).shape]
    varying = [at for at, size in enumerate(shape) if not isinstance(size, int) and at != axis]
    if len(varying) > 1:
        return None
    return [channels if at == axis else -1 if at in varying else size for at, size in enumerate(shape)]


def _repeated(program: Program, path: list[fx.Node], source: fx.Node, image: fx.Node) -> fx.Node:
    axes: Axes | None = own_axes(source)
    channels = value(image).shape[1]
    for view in path:
        assert axes is not None
        axes = axes_through(view, axes, value(source).shape)
        if view.target in _COPIES:
            continue
        if view.target in (*_BY_DIMS, *_PERMUTES):
            image = call(program, view.target, image, *view.args[1:], **view.kwargs)
        else:
            sizes = _sizes_with(view, channel_axis(axes), channels)  # type: ignore[arg-type]
            image = call(program, aten.reshape.default, image, sizes)
    return image


def image_like(program: Program, other: fx.Node, axes: Axes, image: fx.Node) -> fx.Node | None:
    """The image of which `other` is the view that has these axes of `image`; None if it cannot be made.

    New nodes are made where the graph inserts.
    """
    sizes = value(image).shape
    for source, _, own in sources(other):
        if own == axes and same_sizes(value(source).shape, sizes):
            return source
    order = [axis for group in axes for axis in group]
    if len([axis for axis in order if not isinstance(sizes[axis], int)]) > 1 and len(order) != len(axes):
        return None
    if not all(len(group) == 1 for group in axes):
        split = _reshape_argument([sizes[axis] for axis in order])
        if split is None:
            return None
        other = call(program, aten.reshape.default, other, split)
    ascending = sorted(range(len(order)), key=order.__getitem__)
    if ascending != [*range(len(order))]:
        other = call(program, aten.permute.default, other, ascending)
    if len(order) < len(sizes):
        whole = _reshape_argument([*sizes])
        if whole is None:
            return None
        other = call(program, aten.reshape.default, other, whole)
    return other


def _reshape_argument(sizes: list) -> list | None:
    varying = [at for at, size in enumerate(sizes) if not isinstance(size, int)]
    return None if len(varying) > 1 else [-1 if at in varying else size for at, size in enumerate(sizes)]


def read_sizes_of_inputs(program: Program) -> None:
    """Nobody reads the result of a call for its size alone, where that is the size of an input or known."""
    for node in program.calls(aten.reshape_as.default):
        if (sizes := _reshape_argument([*value(node).shape])) is not None:
            node.target, node.args = aten.reshape.default, (node.args[0], sizes)
    inputs = {str(size): (input, dim) for input in program.inputs() for dim, size in enumerate(value(input).shape)}
    for node in program.calls(aten.sym_size.int):
        place = inputs.get(str(value(node)))
        if place is not None and not isinstance(value(node), int):
            node.args = place


def simplify(program: Program) -> None:
    """Views of views become one view, or none."""
    for node in program.calls(*VIEWS):
        for source, path, axes in sources(node) if node.users else ():
            copies = any(view.target in _COPIES for view in path)
            if source is node or (copies and source.op == "placeholder"):  # the caller may have both, and write to one
                continue
            if axes == own_axes(source) and same_sizes(value(source).shape, value(node).shape):
                program.replace(node, source)
                break
            if len(path) > 1 and len(axes) == value(source).dim() and all(len(group) == 1 for group in axes):
                order = [axis for group in axes for axis in group]
                node.target, node.args, node.kwargs = aten.permute.default, (source, order), {}
                break
    program.eliminate_dead_code()
