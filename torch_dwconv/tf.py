"""depthwise_conv2d and separable_conv2d as tf.nn has them: its names, argument order, defaults and filter layouts.

They take and return torch tensors and differentiate like the rest. NHWC tensors are computed where they lie, as
channels_last tensors of PyTorch. Two things are better than in TensorFlow: a stride together with a dilation, where it
warns and returns other numbers, and data_format='NCHW' on a CPU. Its InvalidArgumentError is a ValueError here.

https://www.tensorflow.org/api_docs/python/tf/nn/depthwise_conv2d
"""

from torch import Tensor

from . import functional, weights
from .functional.tracing import untraced

_FORMATS = ("NHWC", "NCHW")


def depthwise_conv2d(
    input: Tensor, filter: Tensor, strides, padding, data_format: str | None = None, dilations=None, name=None
) -> Tensor:
    """tf.nn.depthwise_conv2d.

    Args:
        input: (N, H, W, C), or (N, C, H, W) with data_format='NCHW'.
        filter: (kernel_h, kernel_w, C, M).
        strides: four ints in the order of `data_format`; 1 for batch and channels, the same for height and width.
        padding: 'SAME', 'VALID', or four pairs (before, after) in the order of `data_format`, (0, 0) for batch and
            channels.
        data_format: 'NHWC' (also None) or 'NCHW'.
        dilations: two ints (h, w), one for both, or None for 1.
        name: ignored; of TensorFlow's graphs.

    Returns:
        (N, OH, OW, C*M) or (N, C*M, OH, OW).

    Raises:
        ValueError: an argument that is out of its range or does not fit the others.
        TypeError: `strides` is no sequence.
        RuntimeError: tensors of different dtypes or devices; a kernel larger than the padded input.

    >>> depthwise_conv2d(torch.zeros(1, 8, 8, 4), torch.zeros(3, 3, 4, 2), strides=[1, 2, 2, 1], padding='SAME').shape
    torch.Size([1, 4, 4, 8])
    """
    data_format = _check_format(data_format)
    _check_filter("filter", filter, input, data_format)
    options = _options(strides, padding, data_format, dilations)
    input, weight = _to_nchw(input, data_format), weights.from_tf(filter)
    return _from_nchw(functional.depthwise_conv2d(input, weight, None, *options), data_format)


def separable_conv2d(
    input: Tensor,
    depthwise_filter: Tensor,
    pointwise_filter: Tensor,
    strides,
    padding,
    data_format: str | None = None,
    dilations=None,
    name=None,
) -> Tensor:
    """tf.nn.separable_conv2d: `depthwise_conv2d`, then a 1x1 convolution.

    Args:
        input, strides, padding, data_format, dilations, name: as in `depthwise_conv2d`.
        depthwise_filter: (kernel_h, kernel_w, C, M).
        pointwise_filter: (1, 1, C*M, O).

    Returns:
        (N, OH, OW, O) or (N, O, OH, OW).

    Raises:
        ValueError, TypeError, RuntimeError: as `depthwise_conv2d`.
    """
    data_format = _check_format(data_format)
    _check_filter("depthwise_filter", depthwise_filter, input, data_format)
    with untraced():
        middle = depthwise_filter.shape[2] * depthwise_filter.shape[3]
        if pointwise_filter.dim() != 4 or tuple(pointwise_filter.shape[:3]) != (1, 1, middle):
            raise ValueError(f"pointwise_filter must be (1, 1, {middle}, O), got {tuple(pointwise_filter.shape)}")
    options = _options(strides, padding, data_format, dilations)
    input, depthwise_weight = _to_nchw(input, data_format), weights.from_tf(depthwise_filter)
    pointwise_weight = weights.pointwise_from_tf(pointwise_filter)
    output = functional.separable_conv2d(input, depthwise_weight, pointwise_weight, None, *options)
    return _from_nchw(output, data_format)


def _to_nchw(tensor: Tensor, data_format: str) -> Tensor:
    return tensor.permute(0, 3, 1, 2) if data_format == "NHWC" else tensor


def _from_nchw(tensor: Tensor, data_format: str) -> Tensor:
    return tensor.permute(0, 2, 3, 1) if data_format == "NHWC" else tensor


def _check_format(data_format: str | None) -> str:
    if data_format not in (None, *_FORMATS):
        raise ValueError(f"data_format must be 'NHWC', 'NCHW' or None, got {data_format!r}")
    return data_format or "NHWC"


def _check_filter(name: str, filter: Tensor, input: Tensor, data_format: str) -> None:
    if input.dim() != 4:
        raise ValueError(f"input must be 4-D, {data_format}, got {tuple(input.shape)}")
    with untraced():
        channels = input.shape[data_format.index("C")]
        if filter.dim() != 4 or filter.shape[2] != channels:
            raise ValueError(
                f"{name} must be (kernel_h, kernel_w, C, M) with the input's C = {channels}, got {tuple(filter.shape)}"
            )


def _options(strides, padding, data_format: str, dilations) -> tuple:
    """stride, padding and dilation of functional.depthwise_conv2d."""
    if not isinstance(strides, (list, tuple)):
        raise TypeError(f"strides must be a list of four ints, got {strides!r}")
    if len(strides) != 4:
        raise ValueError(f"strides must be four ints, one per dimension of {data_format}, got {strides!r}")
    stride, outer = _split(strides, data_format)
    if tuple(outer) != (1, 1):
        raise ValueError(f"strides must be 1 for the batch and the channels, got {strides!r} in {data_format}")
    if stride[0] != stride[1]:
        raise ValueError(
            f"strides must be the same for height and width, as in TensorFlow, got {strides!r} in {data_format}; "
            "torch_dwconv.depthwise_conv2d takes any"
        )
    if stride[0] < 1:
        raise ValueError(f"strides must be positive, got {strides!r}")
    dilation = (1, 1) if dilations is None else dilations
    dilation = tuple(dilation) if isinstance(dilation, (list, tuple)) else (dilation, dilation)
    if len(dilation) not in (1, 2) or min(dilation) < 1:
        raise ValueError(f"dilations must be two positive ints (h, w), or None, got {dilations!r}")
    return stride, _padding(padding, data_format), dilation


def _padding(padding, data_format: str):
    if padding in ("SAME", "VALID"):
        return padding.lower()
    if not isinstance(padding, (list, tuple)):
        raise ValueError(f"padding must be 'SAME', 'VALID' or a list of four pairs, got {padding!r}")
    if len(padding) != 4 or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in padding):
        raise ValueError(f"padding must have four pairs, one per dimension of {data_format}, got {padding!r}")
    sides, outer = _split(padding, data_format)
    if any(side != 0 for pair in outer for side in pair):
        raise ValueError(f"padding must be (0, 0) for the batch and the channels, got {padding!r} in {data_format}")
    if min(min(pair) for pair in sides) < 0:
        raise ValueError(f"padding must not be negative, got {padding!r}")
    return tuple(tuple(pair) for pair in sides)


def _split(values, data_format: str) -> tuple[list, list]:
    """The entries for height and width, and those for batch and channels."""
    by_name = dict(zip(data_format, values, strict=True))
    return [by_name["H"], by_name["W"]], [by_name["N"], by_name["C"]]
