"""Long sums keep their digits: a weight or bias gradient of a large batch adds up 200,704 products.

Of positive numbers, so that a plain running sum in the dtype loses more than the bound allows, whichever way the terms
lie in memory. 16-bit dtypes get numbers of both signs: sums of positive ones leave float16's range.
"""

import pytest

from tests.kernels.harness import kernels
from tests.kernels.nets import assert_none, bounded_values
from tests.kernels.shapes import Shape

TERMS = 16 * 112 * 112
LONG_SUMS = {
    "images": Shape(16, 11, 1, 112, 112, 3, 3, 112, 112, pad_top=1, pad_left=1),  # 17 MB: from memory
    "channels": Shape(4, 17, 1, 224, 224, 1, 1, 224, 224),
    "batch": Shape(TERMS, 2, 1, 1, 1, 1, 1, 1, 1),
    "row": Shape(1, 2, 1, 1, TERMS, 1, 3, 1, TERMS, pad_left=1),
    "column": Shape(1, 2, 1, TERMS, 1, 3, 1, TERMS, 1, pad_top=1),
    "strided": Shape(16, 2, 1, 224, 224, 3, 3, 112, 112, 2, 2, 1, 1, 1, 1),
}
DATA = {"f32": "positive", "f64": "positive", "bf16": "eight_bits", "f16": "eight_bits"}


@pytest.mark.parametrize("name", LONG_SUMS)
def test_long_sums(name):
    shape = LONG_SUMS[name]
    grad_weights = [kernel for kernel in kernels(shape) if kernel.operation == "grad_weight"]
    assert_none(bounded_values(grad_weights, shape, "back", DATA))
