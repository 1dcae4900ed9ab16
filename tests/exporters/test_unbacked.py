"""torch.export of layers on inputs whose size only the data tells, as nn.Conv2d allows: the program checks the size."""

import pytest
import torch
from torch import nn

from torch_dwconv import DepthwiseConv1d, DepthwiseConv2d, SeparableConv1d, SeparableConv2d, tf


class OfSizeInData(nn.Module):
    """The layer on an input that `make` makes of a size which is the sum of a tensor's two values."""

    def __init__(self, layer, make):
        super().__init__()
        self.layer, self.make = layer, make

    def forward(self, sizes):
        a, b = sizes.tolist()
        torch._check(a >= 0)
        torch._check(b >= 0)
        return self.layer(self.make(a + b))


def tf_same(input):
    return tf.depthwise_conv2d(input, torch.ones(3, 3, 4, 2), [1, 2, 2, 1], "SAME")


CASES = {
    "1-D": (lambda: DepthwiseConv1d(16, 16, 3, padding=1), lambda n: torch.ones(1, 16, n)),
    "1-D, (N, L, C)": (lambda: DepthwiseConv1d(16, 16, 3), lambda n: torch.ones(1, n, 16).transpose(1, 2)),
    "1-D, same": (lambda: DepthwiseConv1d(16, 32, 3, padding="same", stride=2), lambda n: torch.ones(1, 16, n)),
    "1-D, causal": (lambda: DepthwiseConv1d(16, 16, 4, padding=(3, 0)), lambda n: torch.ones(1, 16, n)),
    "1-D, reflect": (
        lambda: DepthwiseConv1d(16, 16, 3, padding=1, padding_mode="reflect"),
        lambda n: torch.ones(1, 16, n),
    ),
    "1-D, separable": (lambda: SeparableConv1d(16, 8, 3, padding="same", stride=2), lambda n: torch.ones(1, 16, n)),
    "height": (lambda: DepthwiseConv2d(16, 16, 3, padding=1, activation="relu"), lambda n: torch.ones(1, 16, n, 8)),
    "width": (lambda: DepthwiseConv2d(16, 16, 3, dilation=2), lambda n: torch.ones(1, 16, 8, n)),
    "both": (lambda: DepthwiseConv2d(16, 16, 3, padding=1), lambda n: torch.ones(1, 16, n, n + 1)),
    "batch": (lambda: DepthwiseConv2d(16, 16, 3, padding=1), lambda n: torch.ones(n, 16, 8, 8)),
    "channels_last": (
        lambda: DepthwiseConv2d(16, 16, 3, padding=1),
        lambda n: torch.ones(1, n, 8, 16).permute(0, 3, 1, 2),
    ),
    "same": (lambda: DepthwiseConv2d(16, 16, 3, padding="same", stride=2), lambda n: torch.ones(1, 16, n, n + 1)),
    "sides": (lambda: DepthwiseConv2d(16, 16, 3, 2, ((1, 0), (0, 1))), lambda n: torch.ones(1, 16, n, n + 1)),
    "unbatched": (lambda: DepthwiseConv2d(16, 16, 3, padding=1), lambda n: torch.ones(16, n, 8)),
    "separable": (lambda: SeparableConv2d(16, 8, 3, padding=1), lambda n: torch.ones(1, 16, n, 8)),
    "tensorflow": (lambda: tf_same, lambda n: torch.ones(1, n, 8, 4)),
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_exports(case, strict):
    make_layer, make_input = CASES[case]
    model = OfSizeInData(make_layer(), make_input)
    program = torch.export.export(model, (torch.tensor([3, 5]),), strict=strict)
    for sizes in ([4, 7], [0, 5], [6, 40]):
        output, expected = program.module()(torch.tensor(sizes)), model(torch.tensor(sizes))
        torch.testing.assert_close(output, expected)
        assert output.stride() == expected.stride()


@pytest.mark.parametrize("case", ["1-D, (N, L, C)", "width"])
def test_a_size_below_the_kernel_is_refused_when_the_program_runs(case):
    make_layer, make_input = CASES[case]
    model = OfSizeInData(make_layer(), make_input)
    program = torch.export.export(model, (torch.tensor([3, 5]),))
    for run in (model, program.module()):
        with pytest.raises(RuntimeError):
            run(torch.tensor([1, 1]))


def test_known_sizes_keep_the_text_of_the_error():
    layer = torch.compile(DepthwiseConv2d(4, 4, 5), backend="aot_eager", fullgraph=True, dynamic=True)
    with pytest.raises(Exception, match="the kernel must not be larger than the padded input"):
        layer(torch.ones(1, 4, 8, 3))
