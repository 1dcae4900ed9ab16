"""Subclasses whose forward does more than pad, or might: convert leaves them, with the reason."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from .test_convert import conversion_report
from .test_same import same_pads

FLAG = True


class Threshold(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)) if x.size(-1) < 1000 else x)


class RelativeThreshold(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)) if x.size(-1) > 3 * self.kernel_size[0] else x)


class BatchThreshold(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)) if x.size(0) > 2 else x)


class Training(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)) if self.training else x)


class Flagged(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)) if FLAG else x)


class OwnFlag(nn.Conv2d):
    same = True

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.same = True

    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)) if self.same else x)


class Stateful(nn.Conv2d):
    def forward(self, x):
        self.calls = 1
        return super().forward(x)


class Values(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) if (x == x).all() else x


class Scaled(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


class InPlace(nn.Conv2d):
    def forward(self, x):
        x += 1
        return super().forward(x)


class OtherWeight(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight[:, :, :], self.bias, self.stride, self.padding, self.dilation, self.groups)


class NoBias(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, None, self.stride, self.padding, self.dilation, self.groups)


class NoStride(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, 1, self.padding, self.dilation, self.groups)


class Twice(nn.Conv2d):
    def forward(self, x):
        super().forward(x)
        return super().forward(x)


class Input(nn.Conv2d):
    def forward(self, x):
        super().forward(x)
        return x


class Ones(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1), value=1))


class Cropped(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (-1, 1, 1, 1)))


class Channels(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (0, 0, 0, 0, 1, 0)))


class AlmostSame(nn.Conv2d):
    """Pads one more than SAME where SAME pads an even amount."""

    def forward(self, x):
        pad = sum(same_pads(x.size(3), self.kernel_size[1], self.stride[1]))
        return super().forward(F.pad(x, (pad // 2, pad // 2 + 1, 1, 1)))


class Square(nn.Conv2d):
    """SAME of the width for both axes."""

    def forward(self, x):
        pads = same_pads(x.size(3), self.kernel_size[1], self.stride[1])
        return super().forward(F.pad(x, (*pads, *pads)))


class Masked(nn.Conv2d):
    def forward(self, x, mask=None):
        return super().forward(x)


class OwnPadding(nn.Module):
    def forward(self, x):
        return F.pad(x, (1, 1, 1, 1), value=1)


class Child(nn.Conv2d):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.pads = OwnPadding()

    def forward(self, x):
        return super().forward(self.pads(x))


class Hooked(nn.Conv2d):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.pads = nn.ZeroPad2d(1)
        self.pads.register_forward_hook(lambda module, arguments, output: 2 * output)

    def forward(self, x):
        return super().forward(self.pads(x))


class Decorated(nn.Conv2d):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Imports(nn.Conv2d):
    def forward(self, x):
        import os  # noqa: F401

        return super().forward(x)


class Dropped(nn.Conv2d):
    def forward(self, x):
        return super().forward(x)[..., 1:]


class Mixin:
    def size(self):
        return 2 * torch.ones(1)


class Mixed(nn.Conv2d, Mixin):
    def forward(self, x):
        self.size()
        return super().forward(x)


class Catching(nn.Conv2d):
    def forward(self, x):
        try:
            x = x * 2
        except:  # noqa: E722  (which names nothing)
            x = x
        return super().forward(x)


class CatchingSmall(nn.Conv2d):
    def forward(self, x):
        try:
            return super().forward(x)
        except:  # noqa: E722  (which names nothing)
            return super().forward(F.pad(x, (4, 4, 4, 4)))


class OneBatch(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)) if x.size(0) == 4 else x)


class EvenOnly(nn.Conv2d):
    def forward(self, x):
        if x.size(-1) % 2:
            raise ValueError(f"odd {x.shape}")
        return super().forward(x)


REFUSED = [
    (Threshold, "uses the number 1000"),
    (RelativeThreshold, "it pads an input of"),
    (BatchThreshold, "it pads an input of"),
    (Training, "uses its training"),
    (Flagged, "uses FLAG"),
    (OwnFlag, "uses its same"),
    (Stateful, "stores or imports calls"),
    (Values, "uses all"),
    (Scaled, "calls mul"),
    (InPlace, "calls"),
    (OtherWeight, "indexes something else"),
    (NoBias, "by its weight and bias"),
    (NoStride, "another stride"),
    (Twice, "does not convolve its input"),
    (Input, "returns something else"),
    (Ones, "pads otherwise"),
    (Cropped, "pads otherwise"),
    (Channels, "pads otherwise"),
    (AlmostSame, "it pads an input of"),
    (Square, "it pads an input of"),
    (Masked, "its forward takes x, mask"),
    (Child, "its forward calls its OwnPadding pads"),
    (Hooked, "its pads has hooks"),
    (Decorated, "uses"),
    (Imports, "stores or imports os"),
    (Dropped, "takes other parts"),
    (Mixed, "uses"),
    (Catching, "calls mul"),
    (CatchingSmall, "catches exceptions"),
    (OneBatch, "it pads an input of"),
    (EvenOnly, "raises ValueError"),
]


@pytest.mark.parametrize("cls, reason", REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_what_does_more_than_pad_stays(cls, reason):
    layer = cls(4, 4, 3, stride=2, groups=4)
    before = copy.deepcopy(vars(layer))
    report = conversion_report(nn.Sequential(layer))
    assert type(layer) is cls and vars(layer).keys() == before.keys()
    assert reason in report.left["0"]
    assert report.left["0"].endswith(f"{cls.__name__}, a subclass of nn.Conv2d that may compute something else")
