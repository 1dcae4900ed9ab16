"""Whether the code of a forward depends on sizes alone: the first of the two looks that `padding.py` describes."""

import builtins
import dis
import inspect
import math
import types
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd


class Unlike(Exception):
    """Why a class is not taken for our layer with a padding."""


_LARGEST_CONSTANT = 4
GEOMETRY = (
    *("stride", "padding", "dilation", "groups", "padding_mode", "kernel_size", "in_channels", "out_channels"),
    *("transposed", "output_padding", "_reversed_padding_repeated_twice"),
)
_ATTRIBUTES = {
    *GEOMETRY,
    *("weight", "bias", "size", "shape", "dim", "ndim", "append", "extend"),  # of layers, tensors and lists
    *("nn", "functional", "pad", "conv1d", "conv2d", "Conv1d", "Conv2d", "Tensor", "clamp", "ceil", "floor"),  # modules
    *("forward", "_conv_forward"),
}
_MODULES = (torch, torch.nn, F, math)
_BUILTINS = {
    *(abs, all, any, divmod, enumerate, float, int, isinstance, len, list, map, max, min, range, reversed, round),
    *(sum, super, tuple, zip, AssertionError, ValueError),
}
_FUNCTIONS = {F.pad, F.conv1d, F.conv2d, math.ceil, math.floor}
PADDINGS = (nn.Identity, nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d)


def check_code(module: _ConvNd, cls: type, base: type) -> None:
    """Raises `Unlike` unless `forward` of `cls`, a subclass of `base`, uses nothing but sizes and geometry."""
    forward = inspect.getattr_static(cls, "forward")
    if not isinstance(forward, types.FunctionType):
        raise Unlike(f"its forward is a {type(forward).__name__}")
    names = list(inspect.signature(forward).parameters)
    if len(names) != 2:
        raise Unlike(f"its forward takes {', '.join(names[1:]) or 'no input'}")
    _Code(module, cls, base).check_method("forward")


class _Code:
    def __init__(self, module: _ConvNd, cls: type, base: type):
        self.module, self.cls, self.seen = module, cls, set[Any]()
        self.own = [parent for parent in cls.__mro__ if parent not in base.__mro__]

    def check_method(self, name: str) -> None:
        for definition in (vars(cls)[name] for cls in self.own if name in vars(cls)):
            if isinstance(definition, (staticmethod, classmethod)):
                self.check(definition.__func__, name)
            elif isinstance(definition, property) and definition.fget is not None:
                self.check(definition.fget, name)
            elif isinstance(definition, cached_property):
                self.check(definition.func, name)
            elif not is_sizes(definition):
                self.check(definition, name)

    def check(self, value: Any, name: str) -> None:
        """A function, or something else that code can name by itself."""
        if isinstance(value, types.FunctionType):
            if value not in self.seen:
                self.seen.add(value)
                self.check_function(value)
        elif not (
            any(value is module for module in _MODULES)
            or (isinstance(value, type) and (value in self.cls.__mro__ or value in (Tensor, *_BUILTINS)))
            or (isinstance(value, types.BuiltinFunctionType) and value in (*_FUNCTIONS, *_BUILTINS))
        ):
            raise Unlike(f"its forward uses {name}")

    def check_function(self, function: types.FunctionType) -> None:
        if function in _FUNCTIONS:
            return
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.check_constant(default)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self.check(cell.cell_contents, name)
        for code in _nested(function.__code__):
            for constant in code.co_consts:
                self.check_constant(constant)
            for instruction in dis.get_instructions(code):
                self.check_instruction(instruction, function)

    def check_instruction(self, instruction: dis.Instruction, function: types.FunctionType) -> None:
        kind, name = instruction.opname, instruction.argval
        if kind == "LOAD_GLOBAL":
            value = function.__globals__.get(name, vars(builtins).get(name))
            self.check(value, name)
        elif kind in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            self.check_attribute(name)
        elif kind == "LOAD_SMALL_INT":
            self.check_constant(name)
        elif instruction.opcode in dis.hasname or kind.startswith(("STORE_SUBSCR", "STORE_SLICE", "DELETE_")):
            raise Unlike(f"its forward stores or imports {name or 'something'}")

    def check_constant(self, value: Any) -> None:
        if isinstance(value, (tuple, frozenset)):
            for element in value:
                self.check_constant(element)
        elif isinstance(value, slice):
            self.check_constant((value.start, value.stop, value.step))
        elif isinstance(value, (int, float)) and not abs(value) <= _LARGEST_CONSTANT:
            raise Unlike(f"its forward uses the number {value}")
        elif not isinstance(value, (type(None), int, float, str, types.EllipsisType, types.CodeType)):
            raise Unlike(f"its forward uses {value!r}")

    def check_attribute(self, name: str) -> None:
        module = self.module
        if name in module._modules:
            _check_padding(module._modules[name], name)
        elif name in vars(module) and name not in (*GEOMETRY, "weight", "bias", "forward"):
            if not is_sizes(vars(module)[name]):
                raise Unlike(f"its forward uses its {name}")
        elif any(name in vars(cls) for cls in self.own):
            if name in GEOMETRY:
                raise Unlike(f"it has a {name} of its own")
            self.check_method(name)
        elif name not in _ATTRIBUTES:
            raise Unlike(f"its forward uses {name}")


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def hooked(child: nn.Module | None) -> bool:
    state = {} if child is None else vars(child)
    return "forward" in state or any(held for name, held in state.items() if name.endswith("_hooks"))


def is_sizes(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(is_sizes, value))
    return isinstance(value, int) and not isinstance(value, bool)


def _check_padding(child: nn.Module | None, name: str) -> None:
    if type(child) not in PADDINGS:
        raise Unlike(f"its forward calls its {type(child).__name__} {name}")
    if hooked(child):
        raise Unlike(f"its {name} has hooks")
