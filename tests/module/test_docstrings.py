"""The examples in the docstrings do what they show."""

import doctest
import importlib

import pytest
import torch
from torch import nn

import torch_dwconv


@pytest.mark.parametrize(
    "name",
    [
        *("layers.convolution", "layers.separable", "layers.transposed", "models.convert.swap", "models.fuse"),
        *("compile.decompositions", "introspect", "flops", "tf", "weights"),
    ],
)
def test_examples(name):
    names = {"torch": torch, "nn": nn, "DepthwiseConv2d": torch_dwconv.DepthwiseConv2d}
    module = importlib.import_module(f"torch_dwconv.{name}")  # the package's attribute `convert` is the function
    failed, attempted = doctest.testmod(module, extraglobs=names)
    assert attempted > 0 and failed == 0
