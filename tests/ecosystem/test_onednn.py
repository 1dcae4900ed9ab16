"""oneDNN itself, by its own API, on the descriptors that torch_dwconv.weights makes: the same numbers as ours.

Compiled when it is first used, and so slow.
"""

import pytest
import torch

from benchmarks.contestants import onednn
from torch_dwconv import depthwise_conv2d, grad, weights

pytestmark = pytest.mark.slow

# (N, C, M, H, W, KH, KW, stride, padding, dilation)
PROBLEMS = [
    (2, 16, 1, 14, 15, 3, 3, (1, 1), (1, 1), (1, 1)),
    (1, 5, 3, 12, 9, 3, 5, (2, 2), (1, 2), (1, 1)),
    (2, 6, 2, 13, 13, 3, 3, (1, 1), (2, 2), (2, 2)),
]


@pytest.fixture(scope="module", autouse=True)
def installed():
    if onednn.prefix() is None:
        pytest.skip("the extra 'onednn' is not installed")
    assert onednn.version()


@pytest.mark.parametrize("layout", range(len(onednn.LAYOUTS)), ids=onednn.LAYOUTS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_all_operations(problem, layout):
    batch, channels, multiplier, *size, kernel_h, kernel_w, stride, padding, dilation = problem
    input, weight = torch.randn(batch, channels, *size), torch.randn(channels * multiplier, 1, kernel_h, kernel_w)
    output = depthwise_conv2d(input, weight, None, stride, padding, dilation)
    grad_output = torch.randn_like(output)
    options = stride, padding, dilation
    expected = {
        "forward": output,
        "grad_input": grad.depthwise_conv2d_input(input.shape, weight, grad_output, *options),
        "grad_weight": grad.depthwise_conv2d_weight(input, weight.shape, grad_output, *options),
    }
    goihw = weights.to_onednn(weight, multiplier)
    for operation, ours in expected.items():
        convolution = onednn.Convolution(operation, layout, input, goihw, grad_output, *options)
        theirs = convolution.result(convolution.execute())
        if operation == "grad_weight":
            theirs = weights.from_onednn(theirs)
        torch.testing.assert_close(
            ours, theirs, rtol=1e-4, atol=1e-4, msg=lambda text, operation=operation: f"{operation}: {text}"
        )


def test_another_order_of_the_weight_gives_other_numbers():
    """Or the test above could not fail: filters swapped within a channel, as (M, C, ...) would have them."""
    batch, channels, multiplier, *size, kernel_h, kernel_w, stride, padding, dilation = PROBLEMS[2]
    input, weight = torch.randn(batch, channels, *size), torch.randn(channels * multiplier, 1, kernel_h, kernel_w)
    output = depthwise_conv2d(input, weight, None, stride, padding, dilation)
    wrong = weight.unflatten(0, (multiplier, channels)).transpose(0, 1)
    convolution = onednn.Convolution("forward", 0, input, wrong, output, stride, padding, dilation)
    assert (convolution.result(convolution.execute()) - output).norm() > 0.1 * output.norm()
