"""The functions. Their arguments' rules are in rules.py; dispatch.py says who computes a call."""

from .batch_norm import batch_norm_act
from .convolution import depthwise_conv2d
from .separable import separable_conv2d
from .transposed import depthwise_conv_transpose2d

__all__ = ["batch_norm_act", "depthwise_conv2d", "depthwise_conv_transpose2d", "separable_conv2d"]
