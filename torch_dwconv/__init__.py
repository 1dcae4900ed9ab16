"""Depthwise convolution for PyTorch, trained and run by kernels of its own. Start at convert() or DepthwiseConv2d."""

from . import _native as _native  # first: the library that it loads defines the operators
from . import flops, grad, tf, weights
from ._version import __version__
from .convert import convert, revert
from .decompositions import decompositions, to_aten
from .functional import depthwise_conv2d
from .fuse import fuse
from .introspect import diagnose, explain, kernels
from .modules import DepthwiseConv1d, DepthwiseConv2d
from .separable import SeparableConv1d, SeparableConv2d, separable_conv2d
from .transpose import DepthwiseConvTranspose1d, DepthwiseConvTranspose2d, depthwise_conv_transpose2d

__all__ = [
    "DepthwiseConv1d",
    "DepthwiseConv2d",
    "DepthwiseConvTranspose1d",
    "DepthwiseConvTranspose2d",
    "SeparableConv1d",
    "SeparableConv2d",
    "__version__",
    "convert",
    "decompositions",
    "depthwise_conv2d",
    "depthwise_conv_transpose2d",
    "diagnose",
    "explain",
    "flops",
    "fuse",
    "grad",
    "kernels",
    "revert",
    "separable_conv2d",
    "tf",
    "to_aten",
    "weights",
]
