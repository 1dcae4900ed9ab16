"""What fuzzing has found, each as the smallest call that shows it."""

import time

import pytest
import torch

import torch_dwconv
from torch_dwconv import depthwise_conv2d
from torch_dwconv.operators.schemas import FORWARD, GRAD_INPUT, GRAD_WEIGHT

ENDLESS = 2**50
GEOMETRY = (1, 1, 0, 0, 1, 1)


def test_rows_without_columns_are_not_walked():
    """A tensor of 2^50 rows and no columns holds nothing, and nothing takes no time."""
    rows, images = torch.empty(1, 1, ENDLESS, 0), torch.empty(ENDLESS, 1, 0, 2)
    weight = torch.ones(1, 1, 2, 2)
    assert FORWARD(rows, weight, torch.ones(1), 2, 2, *GEOMETRY, False).eq(1).all()
    assert FORWARD(rows, weight, None, ENDLESS, 0, *GEOMETRY, True).numel() == 0
    assert GRAD_INPUT(rows, weight, 1, 3, 3, *GEOMETRY, False).eq(0).all()
    for channels_last in (False, True):
        for input, grad_output in ((torch.ones(1, 1, 3, 3), rows), (rows, torch.ones(1, 1, 2, 2)), (images, images)):
            gradient, bias = GRAD_WEIGHT(input, grad_output, 2, 2, *GEOMETRY, True, channels_last)
            assert gradient.eq(0).all()
            assert bias.item() == grad_output.sum().item()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("step", [2**31, ENDLESS])
def test_a_huge_stride_or_dilation_costs_nothing(step, channels_last):
    """Strides and dilations were walked residue by residue, however few numbers there are."""
    ones = torch.ones(1, 1, 3, 3)
    stride, dilation = (step, step, 0, 0, 1, 1), (1, 1, 0, 0, step, step)
    for geometry, sums in ((stride, 4.0), (dilation, 1.0)):
        assert FORWARD(ones, ones[..., :2, :2], None, 1, 1, *geometry, channels_last).item() == sums
        gradient = GRAD_INPUT(ones[..., :1, :1], ones[..., :2, :2], 1, 3, 3, *geometry, channels_last)
        assert gradient.sum() == sums
        gradient, _ = GRAD_WEIGHT(ones, ones[..., :1, :1], 2, 2, *geometry, False, channels_last)
        assert gradient.sum() == sums


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("step", [64, 1000, 2**16])
def test_a_large_stride_or_dilation_takes_no_time(step, channels_last):
    """The residues of a stride of 1000 were looked up one by one, again for each of them: 20 s for 162 numbers."""
    start = time.process_time()
    for geometry in ((step, step, 0, 0, 1, 1), (1, 1, 0, 0, step, step)):
        ones, weight = torch.ones(1, 2, 2, 2), torch.ones(2, 1, 3, 3)
        assert GRAD_INPUT(ones, weight, 2, 9, 9, *geometry, channels_last).numel() == 162
        FORWARD(torch.ones(1, 2, 9, 9), weight, None, 2, 2, *geometry, channels_last)
        GRAD_WEIGHT(torch.ones(1, 2, 9, 9), ones, 3, 3, *geometry, True, channels_last)
    assert time.process_time() - start < 2


def test_a_huge_stride_is_explained():
    explanation = torch_dwconv.explain(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2), stride=2**31)
    assert "the stride is beyond 64" in str(explanation)


@pytest.mark.parametrize("dense", [True, False])
def test_freed_storage_is_refused(dense):
    """FSDP leaves parameters so. PyTorch's own operators crash on some of these."""
    input = torch.ones(1, 1, 3, 4)
    view = input if dense else input.transpose(2, 3)
    input.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="the storage of input has been freed"):
        depthwise_conv2d(view, torch.ones(1, 1, 1, 1))


def test_an_operand_without_data_among_others_is_refused():
    """With one tensor on the meta device the operator returned memory that nobody had written."""
    with pytest.raises(RuntimeError, match="operands must be on one device"):
        FORWARD(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), torch.ones(1, device="meta"), 3, 3, *GEOMETRY, False)
