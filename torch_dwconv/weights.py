"""Filters of TensorFlow, Keras and oneDNN to and from the layout of `DepthwiseConv2d`.

Everywhere output channel ``c * M + m`` is filter m of input channel c; only the order of the dimensions differs:

    torch_dwconv, nn.Conv2d(groups=C)    (C*M, 1, kernel_h, kernel_w)
    TensorFlow, Keras                    (kernel_h, kernel_w, C, M)
    oneDNN, dimensions of goihw          (C, M, 1, kernel_h, kernel_w)

Nothing is computed, and gradients flow through. Whatever torch.as_tensor takes will do, NumPy's arrays for one.
"""

import torch
from torch import Tensor

from .functional.tracing import untraced


def from_tf(filter) -> Tensor:
    """A depthwise filter of TensorFlow or Keras as our weight.

    Args:
        filter: (kernel_h, kernel_w, C, M), or (kernel, C, M) of a 1-D layer.

    Returns:
        (C*M, 1, kernel_h, kernel_w), or (C*M, 1, kernel).

    Raises:
        ValueError: `filter` has another number of dimensions.

    >>> from_tf(torch.zeros(3, 5, 8, 2)).shape
    torch.Size([16, 1, 3, 5])
    """
    filter = _tensor(filter, "filter", {4: "(kernel_h, kernel_w, C, M)", 3: "(kernel, C, M)"})
    *kernel_size, channels, multiplier = filter.shape
    return filter.movedim((-2, -1), (0, 1)).reshape(channels * multiplier, 1, *kernel_size)


def to_tf(weight, channel_multiplier: int = 1) -> Tensor:
    """Our weight as TensorFlow's and Keras' depthwise filter: undoes `from_tf`.

    Args:
        weight: (C*M, 1, kernel_h, kernel_w), or (C*M, 1, kernel).
        channel_multiplier: M, which the shape of `weight` does not tell.

    Raises:
        ValueError: `weight` has another shape, or its channels are no multiple of M.
    """
    return _by_channel(weight, channel_multiplier).squeeze(2).movedim((0, 1), (-2, -1))


def pointwise_from_tf(filter) -> Tensor:
    """A 1x1 filter of TensorFlow or Keras as the weight of nn.Conv2d or nn.Conv1d.

    Args:
        filter: (1, 1, I, O), or (1, I, O) of a 1-D layer.

    Returns:
        (O, I, 1, 1), or (O, I, 1).

    Raises:
        ValueError: `filter` has another shape.
    """
    filter = _tensor(filter, "filter", {4: "(1, 1, I, O)", 3: "(1, I, O)"})
    with untraced():
        if any(size != 1 for size in filter.shape[:-2]):
            raise ValueError(f"filter must be (1, 1, I, O) or (1, I, O), got {tuple(filter.shape)}")
    return filter.movedim((-1, -2), (0, 1))


def pointwise_to_tf(weight) -> Tensor:
    """Undoes `pointwise_from_tf`: (O, I, 1, 1) or (O, I, 1) as (1, 1, I, O) or (1, I, O).

    Raises:
        ValueError: `weight` has another shape.
    """
    weight = _tensor(weight, "weight", {4: "(O, I, 1, 1)", 3: "(O, I, 1)"})
    if any(size != 1 for size in weight.shape[2:]):
        raise ValueError(f"weight must be (O, I, 1, 1) or (O, I, 1), got {tuple(weight.shape)}")
    return weight.movedim((0, 1), (-1, -2))


def from_keras(weights) -> dict[str, Tensor]:
    """What ``get_weights()`` of a Keras layer returns, as the state_dict of ours, for ``load_state_dict``.

    Args:
        weights: of DepthwiseConv1D or DepthwiseConv2D (for `DepthwiseConv1d`, `DepthwiseConv2d`), or of SeparableConv1D
            or SeparableConv2D (for `SeparableConv1d`, `SeparableConv2d`), with or without bias.

    Raises:
        ValueError: the weights are of another kind of layer.
    """
    filters = [value for value in map(torch.as_tensor, weights) if value.ndim > 1]
    biases = [value for value in map(torch.as_tensor, weights) if value.ndim == 1]
    if len(filters) not in (1, 2) or len(biases) > 1:
        shapes = [tuple(torch.as_tensor(value).shape) for value in weights]
        raise ValueError(f"weights must be one or two filters and at most one bias, got the shapes {shapes}")
    names = ("weight",) if len(filters) == 1 else ("depthwise_weight", "pointwise_weight")
    values = [from_tf(filters[0]), *map(pointwise_from_tf, filters[1:])]
    return dict(zip(names, values, strict=True)) | ({"bias": biases[0]} if biases else {})


def from_onednn(weight) -> Tensor:
    """A weight with oneDNN's dimensions goihw, (C, M, 1, kernel_h, kernel_w), as ours, (C*M, 1, kernel_h, kernel_w).

    A view where the strides allow it. A weight in a blocked layout of oneDNN must be reordered to a plain one first.

    Raises:
        ValueError: `weight` has another shape.

    >>> from_onednn(torch.zeros(8, 2, 1, 3, 5)).shape
    torch.Size([16, 1, 3, 5])
    """
    weight = _tensor(weight, "weight", {5: "(C, M, 1, kernel_h, kernel_w)"})
    if weight.shape[2] != 1:
        raise ValueError(f"weight must be (C, M, 1, kernel_h, kernel_w), got {tuple(weight.shape)}")
    return weight.flatten(0, 1)


def to_onednn(weight, channel_multiplier: int = 1) -> Tensor:
    """Undoes `from_onednn`. A contiguous weight gives a view, to be described to oneDNN by the format tag goihw.

    Args:
        weight: (C*M, 1, kernel_h, kernel_w).
        channel_multiplier: M, which the shape of `weight` does not tell.

    Raises:
        ValueError: `weight` has another shape, or its channels are no multiple of M.
    """
    return _by_channel(_tensor(weight, "weight", {4: "(C*M, 1, kernel_h, kernel_w)"}), channel_multiplier)


def _by_channel(weight, channel_multiplier: int) -> Tensor:
    """(C*M, 1, ...) as (C, M, 1, ...)."""
    forms = {4: "(C*M, 1, kernel_h, kernel_w)", 3: "(C*M, 1, kernel)"}
    weight = _tensor(weight, "weight", forms)
    if weight.shape[1] != 1:
        raise ValueError(f"weight must be {' or '.join(forms.values())}, got {tuple(weight.shape)}")
    if channel_multiplier < 1 or weight.shape[0] % channel_multiplier:
        raise ValueError(f"channel_multiplier must divide the {weight.shape[0]} channels, got {channel_multiplier}")
    return weight.unflatten(0, (weight.shape[0] // channel_multiplier, channel_multiplier))


def _tensor(value, name: str, forms: dict[int, str]) -> Tensor:
    """`value` as a tensor, which must have one of these numbers of dimensions."""
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)  # which a trace warns of
    if tensor.ndim not in forms:
        raise ValueError(f"{name} must be {' or '.join(forms.values())}, got {tuple(tensor.shape)}")
    return tensor
