"""Depthwise convolution for PyTorch, trained and run by kernels of its own. Start at convert() or DepthwiseConv2d."""

from . import _native as _native  # first: the library that it loads defines the operators
from . import flops, grad
from ._version import __version__
from .convert import convert, revert
from .functional import depthwise_conv2d
from .introspect import diagnose, explain, variants
from .modules import DepthwiseConv2d

__all__ = [
    "DepthwiseConv2d",
    "__version__",
    "convert",
    "depthwise_conv2d",
    "diagnose",
    "explain",
    "flops",
    "grad",
    "revert",
    "variants",
]
