"""Values for a model that nobody has trained, so that every layer has a part in its output."""

import torch
from torch import nn

_IMAGES = 4  # that statistics are taken of


def fill(model: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Gives `model` the scales and statistics of a trained one, in place, and leaves it in eval mode.

    Fresh models are not fit to be compared: some begin a residual branch with a scale of zero or 1e-6, which hides it,
    and with the statistics that BatchNorm begins with the outputs of MobileNetV2 are about 1e-9. So parameters that
    have one value everywhere get random ones, near 1 where they were 1 and near 0 else, and every BatchNorm gets the
    mean and the variance of what reaches it for random images.

    Args:
        input_size: (C, H, W) of an input.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and parameter.min() == parameter.max():
                parameter.uniform_(*((0.5, 1.5) if parameter.flatten()[0] == 1 else (-0.2, 0.2)))
        model.eval()
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        momentums = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().momentum = 1.0
        if norms:
            model(torch.randn(_IMAGES, *input_size))
        for norm, momentum in zip(norms, momentums, strict=True):
            norm.eval().momentum = momentum
