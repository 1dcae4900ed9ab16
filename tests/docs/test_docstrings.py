"""The examples in the docstrings do what they show."""

import doctest
import inspect

import pytest
import torch
from torch import nn

import torch_dwconv

NAMES = {"torch": torch, "nn": nn, **{name: getattr(torch_dwconv, name) for name in torch_dwconv.__all__}}
# The modules by themselves: each has functions of its own.
MODULES = {name: thing for name, thing in NAMES.items() if inspect.ismodule(thing) and name not in ("torch", "nn")}
WITH_EXAMPLES = [name for name in NAMES if name not in MODULES and ">>>" in (inspect.getdoc(NAMES[name]) or "")]


def check(thing, module, names=()):
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(exclude_empty=True).find(thing, module=module, extraglobs=NAMES | dict(names)):
        runner.run(test)
    assert runner.tries > 0 and runner.failures == 0


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name):
    check(NAMES[name], False)


@pytest.mark.parametrize("name", ["flops", "tf", "weights"])
def test_examples_of_a_module(name):
    check(MODULES[name], MODULES[name], vars(MODULES[name]))


def test_every_public_class_and_most_functions_have_an_example():
    classes = {name for name in torch_dwconv.__all__ if inspect.isclass(NAMES[name])}
    functions = {"convert", "fuse", "explain", "diagnose", "decompositions", "to_aten", "depthwise_conv_transpose2d"}
    assert classes | functions <= set(WITH_EXAMPLES)
