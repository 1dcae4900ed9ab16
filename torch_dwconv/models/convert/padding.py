"""What a subclass's own forward computes: whether it is our layer with a padding, and with which.

TensorFlow's SAME, static or by the input's size, and causal padding are written by many projects as subclasses of
nn.Conv2d or nn.Conv1d, each with a `forward` of its own. Two looks at such a class decide, not its name:

1. Its code (`code.py`). `forward`, and every function that it calls, may use the layer's geometry, the input's
   size, small numbers, arithmetic, padding and convolution, and may store nothing. So it depends on sizes alone, and on
   no state, flag, dtype or threshold that could differ elsewhere.
2. What it does. It is run on a stand-in for the layer, with tensors that have a shape and no values, while every call
   of PyTorch is looked at: the input, padded, must reach one convolution with the layer's weight, bias, stride,
   dilation and groups, whose result must be returned. That gives the exact padding for each size, whatever the values.

The layer itself is never run, and no hook is. The padding must be one that our layer has at every size tried, among
them all residues of the stride, sizes below the kernel's and large ones, and heights that differ from widths.
"""

import copy
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from ...functional import rules
from .code import GEOMETRY, PADDINGS, Unlike, check_code, hooked, is_sizes

BASES: tuple[type, ...] = (nn.Conv1d, nn.Conv2d)  # whose subclasses are looked at


def geometry(module: _ConvNd) -> str:
    """All of a layer that the answer depends on, beside its class."""
    children = [(name, repr(child), hooked(child)) for name, child in module._modules.items() if _is_padding(child)]
    others = [name for name, child in module._modules.items() if not _is_padding(child)]
    return repr((_plain(module), children, others, _has_bias(module)))


def _is_padding(child: nn.Module | None) -> bool:
    return type(child) in PADDINGS


def _plain(module: _ConvNd) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name in GEOMETRY or is_sizes(value)}


def _has_bias(module: _ConvNd) -> bool:
    derived: Any = module._modules.get("parametrizations") or ()
    return module._parameters.get("bias") is not None or vars(module).get("bias") is not None or "bias" in derived


def padding(module: _ConvNd, cls: type, base: type) -> Any:
    """The padding with which our layer computes what forward of `cls`, a subclass of `base`, does for `module`.

    Raises:
        Unlike: there is none, or the class may do something else as well.
    """
    try:
        check_code(module, cls, base)
        return probe(module, cls, base)
    except Unlike:
        raise
    except Exception as error:  # whatever a class that replaces parts of the language may raise
        raise Unlike(f"it raises {type(error).__name__}") from None


def probe(module: _ConvNd, cls: type, base: type) -> Any:
    """The padding with which our layer computes what `cls.forward` does, in a form that our layer's `padding` takes.

    `check_code` must have accepted the class: it is run here.

    Raises:
        Unlike: there is no such padding.
    """
    stand_in = _StandIn(module, cls, base)
    zeros = module.padding_mode == "zeros"
    candidates: list[Any] = []
    if _is_form(module.padding, stand_in) and (zeros or _is_kept(module, stand_in)):
        candidates.append(module.padding)
    if zeros or set(stand_in.stride) != {1}:
        candidates.append("same")
    candidates.append(None)  # the same amounts for every size: those of the first
    tried = 0
    for number, size in enumerate(_sizes(stand_in)):
        batch = _BATCHES[number % len(_BATCHES)]
        try:
            pads = stand_in.run(batch, size)
        except _TooSmall:
            continue
        except Unlike:
            if batch:
                raise
            continue  # such a forward may refuse what has no batch, although ours does not
        tried += 1
        if candidates[-1] is None:
            candidates[-1] = _form(pads, module.padding_mode)
        expected = stand_in.reaches(size, pads)
        candidates = [form for form in candidates if stand_in.reaches(size, _amounts(form, size, stand_in)) == expected]
        if not candidates:
            raise Unlike(f"it pads an input of {size} by {pads}")
    if tried == 0:
        raise Unlike("its forward takes no input that was tried")
    return candidates[0]


_BATCHES = ((1,), (2,), (), (3,), (4,), (5,), (64,))
Pads = tuple[tuple[int, int], ...]  # before and after, for each axis


def _form(pads: Pads, mode: str) -> Any:
    """As our layers' `padding`: with zeros as nn.Conv2d's, where that has a form for it, else of each side."""
    if mode == "zeros" and all(before == after for before, after in pads):
        return tuple(before for before, _ in pads)
    return pads if len(pads) == 2 else pads[0]


def _is_form(padding: Any, layer: "_StandIn") -> bool:
    """Whether `padding` is one of nn.Conv2d's."""
    if isinstance(padding, str):
        return padding in ("same", "valid")
    return is_sizes(padding) and (isinstance(padding, int) or len(padding) in (1, len(layer.stride)))


def _is_kept(module: _ConvNd, layer: "_StandIn") -> bool:
    """Whether `padding` says what nn.Conv2d pads by if not with zeros: amounts that it keeps in a second attribute.

    Our layer pads by these too, unless its `padding` names sides or is 'same' with a stride.
    """
    amounts = [*module._reversed_padding_repeated_twice]
    kept = tuple(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    return _amounts(module.padding, (1,) * len(kept), layer) == kept


def _amounts(form: Any, size: tuple[int, ...], layer: "_StandIn") -> Pads:
    """What our layer's `padding` means for an input of this size."""
    if form == "same":
        axes = zip(size, layer.kernel_size, layer.stride, layer.dilation, strict=True)
        return tuple(rules.resolve_padding("same", *((1, value) for value in axis))[2:] for axis in axes)
    if form == "valid":
        return ((0, 0),) * len(size)
    sides = tuple(form) if isinstance(form, (tuple, list)) else (form,)
    if len(size) == 1:
        return ((sides[0], sides[-1]),)
    if len(sides) == 1:
        sides *= 2
    return tuple(tuple(side) if isinstance(side, (tuple, list)) else (side, side) for side in sides)


def _sizes(layer: "_StandIn") -> Iterator[tuple[int, ...]]:
    """Sizes of inputs: small, round the kernel's, and large, with every residue of the stride."""
    axes = []
    for kernel, stride, dilation in zip(layer.kernel_size, layer.stride, layer.dilation, strict=True):
        reach = dilation * (kernel - 1) + 1
        near = {*range(1, min(reach + 2 * stride, 40) + 1), *range(reach, reach + 2 * min(stride, 8) + 1)}
        far = {start + residue for start in (56, 224, 1000, 65536) for residue in range(min(stride, 8))}
        axes.append(sorted(near | far))
    longest = max(map(len, axes))
    for shift in (0, 1, longest // 2) if len(axes) == 2 else (0,):
        for i in range(longest):
            yield tuple(axis[(i + shift * (number + 1)) % len(axis)] for number, axis in enumerate(axes))


class _TooSmall(Exception):
    """The convolution refuses an input smaller than its filters."""


class _StandIn:
    """A layer of class `cls` with the geometry of `module` and nothing else of it."""

    def __init__(self, module: _ConvNd, cls: type, base: type):
        axes = 2 if base is nn.Conv2d else 1
        self.channels, self.mode = module.in_channels, module.padding_mode
        self.kernel_size, self.stride, self.dilation = (
            numbers(value, axes) for value in (module.kernel_size, module.stride, module.dilation)
        )
        self.layer: Any = object.__new__(cls)
        state = _plain(module)
        state["_parameters"], state["_buffers"], state["_modules"] = {}, {}, {}  # what Module.__getattr__ looks into
        for name, child in module._modules.items():
            if child is not None and _is_padding(child):
                state[name] = child.forward  # not the call, which would run hooks
        shape = (module.out_channels, module.in_channels // module.groups, *self.kernel_size)
        state["weight"] = torch.empty(shape, device="meta")
        state["bias"] = torch.empty(module.out_channels, device="meta") if _has_bias(module) else None
        self.layer.__dict__.update(
            copy.deepcopy(state, {id(value): value for value in state.values() if callable(value)})
        )

    def run(self, batch: tuple[int, ...], size: tuple[int, ...]) -> Pads:
        """The padding that forward gives to an input of this size."""
        input = torch.empty((*batch, self.channels, *size), device="meta")
        watch = _Watch(self, input)
        try:
            with watch:
                output = type(self.layer).forward(self.layer, input)
        except (Unlike, _TooSmall):
            raise
        except Exception as error:
            raise Unlike(f"its forward raises {type(error).__name__} for an input of {tuple(input.shape)}") from None
        if watch.refusal is not None:
            raise watch.refusal if isinstance(watch.refusal, Unlike) else Unlike("its forward catches exceptions")
        if output is None or output is not watch.output:
            raise Unlike("its forward returns something else than the convolution's result")
        if watch.mode not in (None, "constant" if self.mode == "zeros" else self.mode):
            raise Unlike(f"it pads by {watch.mode}, and its padding_mode is {self.mode}")
        return watch.pads

    def outputs(self, size: tuple[int, ...], pads: Pads) -> tuple[int, ...]:
        axes = zip(size, pads, self.kernel_size, self.stride, self.dilation, strict=True)
        return tuple((length + sum(sides) - d * (k - 1) - 1) // s + 1 for length, sides, k, s, d in axes)

    def reaches(self, size: tuple[int, ...], pads: Pads) -> tuple:
        """All that a padding decides: where the outputs begin, and how many there are."""
        return tuple(before for before, _ in pads), self.outputs(size, pads)


def numbers(value: Any, axes: int) -> tuple[int, ...]:
    """A stride, dilation or kernel size as F.conv2d reads it: one number for each axis."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    values = values * axes if len(values) == 1 else values
    if len(values) != axes or not all(isinstance(number, int) for number in values):
        raise Unlike(f"{value!r} is no size for {axes} axes")
    return values


class _Watch(TorchFunctionMode):
    """Sees every call of PyTorch in one run of a forward, and answers it without computing."""

    def __init__(self, layer: _StandIn, input: Tensor):
        super().__init__()
        self.layer, self.axes = layer, len(layer.kernel_size)
        self.size = tuple(input.shape[-self.axes :])
        self.padded = input  # so far
        self.output: Tensor | None = None  # the convolution's
        self.pads: Pads = ((0, 0),) * self.axes
        self.mode: str | None = None
        self.refusal: Unlike | _TooSmall | None = None  # the first, which the forward may have caught

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _SIZES:
            return func(*args, **kwargs)
        try:
            if func not in _ANSWERS:
                raise Unlike(f"its forward calls {getattr(func, '__name__', func)}")
            return _ANSWERS[func](self, *args, **kwargs)
        except (Unlike, _TooSmall) as error:
            self.refusal = self.refusal or error
            raise

    def pad(self, input, pad, mode="constant", value=None):
        amounts = [operator.index(amount) for amount in pad]
        amounts += [0] * (2 * self.axes - len(amounts))
        pads = tuple(zip(amounts[::2], amounts[1::2], strict=True))[: self.axes][::-1]
        if input is not self.padded or min(amounts) < 0 or any(amounts[2 * self.axes :]) or value not in (None, 0):
            raise Unlike("its forward pads otherwise")
        self.add(pads, mode)
        shape = list(input.shape)
        for axis, sides in enumerate(pads):
            shape[axis - self.axes] += sum(sides)
        self.padded = torch.empty(shape, device="meta")
        return self.padded

    def add(self, pads: Pads, mode: str) -> None:
        if not any(map(any, pads)):
            return
        if self.mode is not None and (self.mode, mode) != ("constant", "constant"):
            raise Unlike(f"it pads by {self.mode} and by {mode}")
        self.mode = mode
        self.pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(self.pads, pads, strict=True))

    def convolve(self, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        layer, own = self.layer, self.layer.layer
        if self.output is not None or input is not self.padded or weight is not own.weight or bias is not own.bias:
            raise Unlike("its forward does not convolve its input, padded, by its weight and bias")
        if (numbers(stride, self.axes), numbers(dilation, self.axes), groups) != (
            *(layer.stride, layer.dilation),
            own.groups,
        ):
            raise Unlike("its forward convolves by another stride, dilation or groups than its own")
        size = tuple(input.shape[-self.axes :])
        if padding == "same":  # F.conv2d's, with a stride of 1
            self.add(_amounts("same", size, layer), "constant")
        elif padding != "valid":
            self.add(tuple((amount, amount) for amount in numbers(padding, self.axes)), "constant")
        outputs = layer.outputs(self.size, self.pads)
        if min(outputs) < 1:
            raise _TooSmall
        self.output = torch.empty((*input.shape[: -self.axes - 1], own.out_channels, *outputs), device="meta")
        return self.output

    def cut(self, output, index):
        """``output[..., :n]``, which is a padding that ends earlier."""
        if self.output is None or output is not self.output:
            raise Unlike("its forward indexes something else than the convolution's result")
        entries = list(index) if isinstance(index, tuple) else [index]
        full = slice(None)
        if any(entry is Ellipsis for entry in entries):
            at = next(i for i, entry in enumerate(entries) if entry is Ellipsis)
            entries[at : at + 1] = [full] * (self.output.dim() + 1 - len(entries))
        entries += [full] * (self.output.dim() - len(entries))
        ends = all(isinstance(e, slice) and e.start in (None, 0) and e.step in (None, 1) for e in entries)
        if not ends or any(e != full for e in entries[: -self.axes]):
            raise Unlike("its forward takes other parts of the convolution's result than its beginning")
        shape = [len(range(*e.indices(length))) for e, length in zip(entries, output.shape, strict=True)]
        if 0 in shape[-self.axes :]:
            raise _TooSmall
        pads = list(self.pads)
        for axis, (before, after) in enumerate(pads):
            at = axis - self.axes
            pads[axis] = (before, after - self.layer.stride[axis] * (output.shape[at] - shape[at]))
        if min(map(min, pads)) < 0:
            raise Unlike("its forward drops outputs that the input's end reaches")
        self.pads = tuple(pads)
        self.output = torch.empty(shape, device="meta")
        return self.output


_SIZES = (Tensor.size, Tensor.shape.__get__, Tensor.dim, Tensor.ndim.__get__)  # type: ignore[attr-defined]
_ANSWERS = {F.pad: _Watch.pad, F.conv2d: _Watch.convolve, F.conv1d: _Watch.convolve, Tensor.__getitem__: _Watch.cut}
