"""MobileNetV2 (Sandler et al., 2018, https://arxiv.org/abs/1801.04381), built on a depthwise layer of your choice.

The module tree is torchvision's: ``state_dict`` keys and shapes are equal, so its checkpoints load as they are.
"""

import torch
from torch import nn

from torch_dwconv import DepthwiseConv2d

# The paper's table 2: expansion, output channels, number of blocks, stride of the first of them.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, at least ``divisor``, and never more than 10 % below ``channels``."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def conv_norm_relu(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, project back; with a skip where the shape allows it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int, depthwise: type[nn.Conv2d]):
        super().__init__()
        hidden = in_channels * expansion
        expand = [conv_norm_relu(nn.Conv2d(in_channels, hidden, 1, bias=False))] if expansion != 1 else []
        self.use_skip = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *expand,
            conv_norm_relu(depthwise(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.use_skip else self.conv(x)


class MobileNetV2(nn.Module):
    """Classifies (N, 3, H, W) images into (N, num_classes) logits.

    Args:
        num_classes: number of logits.
        width: multiplies every channel count; results are rounded to multiples of 8.
        small_images: keep the first two strides at 1, for images of about 32x32. Parameters are not affected.
        dropout: probability in front of the classifier.
        depthwise: the class of the depthwise layers; ``torch.nn.Conv2d`` gives the plain PyTorch model.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width: float = 1.0,
        small_images: bool = False,
        dropout: float = 0.2,
        depthwise: type[nn.Conv2d] = DepthwiseConv2d,
    ):
        super().__init__()
        channels = round_channels(32 * width)
        last_channels = round_channels(1280 * max(1.0, width))
        stem = nn.Conv2d(3, channels, 3, stride=1 if small_images else 2, padding=1, bias=False)
        features = [conv_norm_relu(stem)]
        for row, (expansion, base_channels, count, stride) in enumerate(BLOCKS):
            out_channels = round_channels(base_channels * width)
            first_stride = 1 if small_images and row == 1 else stride
            for block in range(count):
                block_stride = first_stride if block == 0 else 1
                features.append(InvertedResidual(channels, out_channels, block_stride, expansion, depthwise))
                channels = out_channels
        features.append(conv_norm_relu(nn.Conv2d(channels, last_channels, 1, bias=False)))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last_channels, num_classes))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean(dim=(2, 3)))
