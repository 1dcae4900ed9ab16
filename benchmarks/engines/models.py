"""Which models are timed: MobileNetV1, which is made here, and those of torchvision and timm."""

from torch import nn

from torch_dwconv.bench.models.find import Model, find_model

# With depthwise layers, against PyTorch. Each takes images of 224 x 224.
TIMM = (
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium",
    "mnasnet_100",
    "semnasnet_100",
    "lcnet_100",
    "rexnet_100",
    "mixnet_s",
    "ghostnet_100",
    "mobileone_s0",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "repvit_m1",
    "fastvit_t8",
    "edgenext_xx_small",
    "convnext_tiny",
    "inception_next_tiny",
    "tiny_vit_5m_224",
)
_OUTPUTS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)  # channels behind each pair of layers
_HALVING = (128, 256, 512, 1024)  # the first pair with so many has stride 2


def mobilenet_v1() -> nn.Sequential:
    """Pairs of a depthwise and a 1x1 layer: Howard et al., 2017, https://arxiv.org/abs/1704.04861, table 1."""
    layers, channels = _layer(3, 32, 3, stride=2), 32
    for outputs in _OUTPUTS:
        stride = 2 if outputs in _HALVING and outputs != channels else 1
        layers += _layer(channels, channels, 3, stride, groups=channels) + _layer(channels, outputs, 1)
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def _layer(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def model_of(name: str) -> Model:
    """`mobilenet_v1`, or a model of timm or torchvision.

    Raises:
        ValueError: there is none.
    """
    return Model(name, mobilenet_v1) if name == "mobilenet_v1" else find_model(name)
