"""The examples in the docstrings do what they show."""

import doctest
import importlib

import pytest
import torch
from torch import nn


@pytest.mark.parametrize(
    "name", ["modules", "convert", "fuse", "introspect", "flops", "separable", "tf", "transpose", "weights"]
)
def test_examples(name):
    module = importlib.import_module(f"torch_dwconv.{name}")  # the package's attribute `convert` is the function
    failed, attempted = doctest.testmod(module, extraglobs={"torch": torch, "nn": nn})
    assert attempted > 0 and failed == 0
