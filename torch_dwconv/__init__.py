"""Depthwise convolution for PyTorch, trained and run by kernels of its own. Start at convert() or DepthwiseConv2d."""

from . import flops, grad, tf, weights
from .compile import backend as _backend
from .compile.decompositions import decompositions
from .compile.to_aten import to_aten
from .functional import batch_norm_act, depthwise_conv2d, depthwise_conv_transpose2d, separable_conv2d
from .introspect import diagnose, explain, kernels
from .layers.batch_norm import BatchNormAct2d
from .layers.convolution import DepthwiseConv1d, DepthwiseConv2d
from .layers.pointwise import PointwiseConv2d
from .layers.separable import SeparableConv1d, SeparableConv2d
from .layers.transposed import DepthwiseConvTranspose1d, DepthwiseConvTranspose2d
from .models.convert import convert, revert
from .models.fuse import fuse
from .version import __version__

__all__ = [
    "BatchNormAct2d",
    "DepthwiseConv1d",
    "DepthwiseConv2d",
    "DepthwiseConvTranspose1d",
    "DepthwiseConvTranspose2d",
    "PointwiseConv2d",
    "SeparableConv1d",
    "SeparableConv2d",
    "__version__",
    "batch_norm_act",
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

# Pickles and graphs of torch.fx name a class or a function by its module: this one, wherever the files lie.
for _name in __all__:
    if getattr(globals()[_name], "__module__", __name__).startswith(f"{__name__}."):
        globals()[_name].__module__ = __name__

_backend.register()
