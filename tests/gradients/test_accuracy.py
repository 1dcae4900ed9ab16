"""Results are as close to the exact ones as PyTorch's own, or closer: `python -m tests.accuracy` has the figures."""

import pytest
import torch

from tests.accuracy import KERNELS, errors, exact, measure
from tests.calls import DTYPES, FORMATS

# Of PyTorch's error, which none of ours exceeds. In float64 it multiplies by a library that on some processors (MKL on
# Intel's) adds many partial sums.
FACTOR = 1.5
# Two sums in another order differ by chance in where their largest error falls.
UNITS = 0.5


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_never_worse_than_pytorch(kernel, dtype, memory_format):
    for name, (ours, theirs) in measure(kernel, dtype, memory_format).items():
        assert ours.mean <= FACTOR * theirs.mean, f"{name}: mean {ours.mean} ulp, PyTorch's {theirs.mean}"
        assert ours.largest <= FACTOR * theirs.largest + UNITS, (
            f"{name}: {ours.largest} ulp, PyTorch's {theirs.largest}"
        )


def test_what_is_exact():
    import numpy as np

    torch.manual_seed(0)
    x, w = torch.randn(1, 2, 6, 6).double().requires_grad_(), torch.randn(2, 1, 3, 3).double().requires_grad_()
    g = torch.randn(1, 2, 6, 6).double()
    output = torch.nn.functional.conv2d(x, w, padding=1, groups=2)
    right = (output, *torch.autograd.grad(output, (x, w), g))
    found = exact(*(t.detach().numpy().astype(np.longdouble) for t in (x, w, g)))
    for values, expected in zip(found.values(), right, strict=True):
        assert torch.allclose(torch.from_numpy(values.astype(np.float64)), expected, rtol=1e-12, atol=1e-12)


def test_errors_are_in_units_of_the_last_place():
    import numpy as np

    right = np.array([1.0, 1.5, 4.0], dtype=np.longdouble)
    off = torch.tensor([1.0 + 2**-23, 1.5, 4.0 - 2**-21])
    largest, mean = errors(off, right)
    assert (largest, mean) == (1.0, pytest.approx((2**-23 / 2**-22 + 0 + 1) / 3))
