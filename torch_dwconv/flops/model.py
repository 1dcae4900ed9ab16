"""What the depthwise layers of a model cost, and what they save against ordinary convolutions."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import depthwise, separable, standard


class LayerCost(NamedTuple):
    """FLOPs of one call of a depthwise layer.

    `separable` adds the 1x1 convolution that consumes the result (`pointwise` is its name), None if there is none.
    `standard` is an ordinary convolution with this kernel, to the channels that come out of the two.
    """

    name: str
    pointwise: str | None
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    output_size: tuple[int, int]
    standard: int
    depthwise: int
    separable: int | None

    @property
    def saving(self) -> float:
        """How many times the work of the layer an ordinary convolution would be."""
        return self.standard / (self.separable or self.depthwise)


class _Call(NamedTuple):
    name: str
    module: nn.Conv2d | nn.Linear
    input_shape: torch.Size
    output_shape: torch.Size


def layer_costs(model: nn.Module, input: Tensor) -> list[LayerCost]:
    """The costs of all depthwise layers that run for `input`, in the order in which they run.

    A layer's 1x1 convolution is the first nn.Conv2d or nn.Linear after it, before the next depthwise layer, that maps
    as many channels at every position of its output. That may miss one where branches are joined first.

    Args:
        model: any module; it is run once, in eval mode and without gradients.
        input: what it is run on; only its size matters, so both may be on the meta device.
    """
    calls = _record(model, input)
    starts = [index for index, call in enumerate(calls) if _is_depthwise(call.module)]
    ends = [*starts[1:], len(calls)]
    return [_cost(calls[start], calls[start + 1 : end]) for start, end in zip(starts, ends, strict=False)]


def _record(model: nn.Module, input: Tensor) -> list[_Call]:
    calls: list[_Call] = []

    def recorder(name):
        def record(module, args, output):
            calls.append(_Call(name, module, args[0].shape, output.shape))

        return record

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    handles = [module.register_forward_hook(recorder(name)) for name, module in layers]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(input)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return calls


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


def _cost(call: _Call, later: list[_Call]) -> LayerCost:
    layer, batch_size, output_size = call.module, call.output_shape[0], call.output_shape[-2:]
    assert isinstance(layer, nn.Conv2d)
    channels, multiplier = layer.in_channels, layer.out_channels // layer.in_channels
    pointwise = next((other for other in later if _is_pointwise(other, layer.out_channels, output_size)), None)
    sizes = _pair(output_size), _pair(layer.kernel_size)
    together = None
    out_channels = layer.out_channels
    if pointwise is not None:
        module = pointwise.module
        out_channels = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        together = separable(batch_size, channels, out_channels, *sizes, multiplier)
    return LayerCost(
        call.name,
        pointwise.name if pointwise else None,
        channels,
        out_channels,
        sizes[1],
        sizes[0],
        standard(batch_size, channels, out_channels, *sizes),
        depthwise(batch_size, channels, *sizes, multiplier),
        together,
    )


def _pair(size: Sequence[int]) -> tuple[int, int]:
    height, width = size
    return height, width


def _is_pointwise(call: _Call, channels: int, size: torch.Size) -> bool:
    module, shape = call.module, call.input_shape
    if isinstance(module, nn.Linear):  # of a channels-last view, as ConvNeXt has it
        return module.in_features == channels and shape[1:-1] == size
    same = module.in_channels == channels and shape[-2:] == size and call.output_shape[-2:] == size
    return same and module.groups == 1 and module.kernel_size == (1, 1)
