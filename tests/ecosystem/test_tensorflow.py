"""torch_dwconv.tf against tensorflow itself: values, gradients, defaults and errors over a grid of arguments."""

import inspect
import itertools
import os
import warnings

import pytest
import torch

from torch_dwconv import tf as ours

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when it is imported
tf = pytest.importorskip("tensorflow", reason="the extra 'tensorflow' is not installed")

EXPLICIT = [[0, 0], [2, 0], [1, 3], [0, 0]]
GRID = list(
    itertools.product(
        ["NHWC", "NCHW"],
        ["SAME", "VALID", EXPLICIT],
        [1, 2, 3],  # stride
        [None, [2, 2], [1, 3]],  # dilations
        [((9, 12, 3), (3, 3, 3, 1)), ((8, 15, 2), (2, 5, 2, 3))],  # (H, W, C), filter
    )
)


def by_format(values, data_format):
    return values if data_format == "NHWC" else [values[0], values[3], values[1], values[2]]


def to_nhwc(tensor, data_format):
    return tensor if data_format == "NHWC" else tensor.permute(0, 2, 3, 1)


def to_format(tensor, data_format):
    return tensor if data_format == "NHWC" else tensor.permute(0, 3, 1, 2).contiguous()


def dilated(filter: torch.Tensor, dilations) -> torch.Tensor:
    """The filter with zeros between its taps: TensorFlow's own dilation is wrong with a stride."""
    step_h, step_w = dilations or (1, 1)
    kernel_h, kernel_w, *channels = filter.shape
    spread = filter.new_zeros((kernel_h - 1) * step_h + 1, (kernel_w - 1) * step_w + 1, *channels)
    spread[::step_h, ::step_w] = filter
    return spread


def theirs(function, *arguments, **options) -> torch.Tensor:
    arguments = [tf.constant(value.numpy()) if isinstance(value, torch.Tensor) else value for value in arguments]
    return torch.from_numpy(function(*arguments, **options).numpy())


def calls(data_format, padding, stride, dilations, shapes):
    """Input and filter in float64, our options, and TensorFlow's for NHWC, the only layout of its float64 kernels."""
    (height, width, channels), filter_shape = shapes
    input = torch.randn(2, height, width, channels, dtype=torch.float64)
    filter = torch.randn(filter_shape, dtype=torch.float64)
    explicit = not isinstance(padding, str)
    options = {
        "strides": by_format([1, stride, stride, 1], data_format),
        "padding": by_format(padding, data_format) if explicit else padding,
        "data_format": data_format,
        "dilations": dilations,
    }
    return input, filter, options, {"strides": [1, stride, stride, 1], "padding": padding}


@pytest.mark.parametrize("arguments", GRID, ids=str)
def test_depthwise_conv2d(arguments):
    data_format, *_, dilations, _ = arguments
    input, filter, options, their_options = calls(*arguments)
    expected = theirs(tf.nn.depthwise_conv2d, input, dilated(filter, dilations), **their_options)
    output = ours.depthwise_conv2d(to_format(input, data_format), filter, **options)
    assert output.is_contiguous()
    torch.testing.assert_close(to_nhwc(output, data_format), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("arguments", GRID, ids=str)
def test_separable_conv2d(arguments):
    data_format, *_, dilations, _ = arguments
    input, filter, options, their_options = calls(*arguments)
    pointwise = torch.randn(1, 1, filter.shape[2] * filter.shape[3], 4, dtype=torch.float64)
    depthwise = dilated(filter, dilations)
    expected = theirs(tf.nn.separable_conv2d, input, depthwise, pointwise, **their_options)
    output = ours.separable_conv2d(to_format(input, data_format), filter, pointwise, **options)
    torch.testing.assert_close(to_nhwc(output, data_format), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dilations", [[2, 2], [1, 3], [2, 1]])
@pytest.mark.parametrize("padding", ["SAME", "VALID", EXPLICIT], ids=str)
def test_dilations_are_tensorflows_at_stride_1(padding, dilations):
    input, filter = torch.randn(1, 12, 13, 2, dtype=torch.float64), torch.randn(3, 3, 2, 2, dtype=torch.float64)
    options = {"strides": [1, 1, 1, 1], "padding": padding, "dilations": dilations}
    expected = theirs(tf.nn.depthwise_conv2d, input, filter, **options)
    torch.testing.assert_close(ours.depthwise_conv2d(input, filter, **options), expected, rtol=1e-12, atol=1e-12)


def test_nchw_is_tensorflows_where_it_has_it():
    """In float32, by the oneDNN in it; its own CPU kernels know only NHWC."""
    input, filter = torch.randn(2, 3, 9, 8), torch.randn(3, 2, 3, 2)
    options = {"strides": [1, 1, 2, 2], "padding": "SAME", "data_format": "NCHW"}
    try:
        expected = theirs(tf.nn.depthwise_conv2d, input, filter, **options)
    except tf.errors.UnimplementedError:
        pytest.skip("this TensorFlow has no oneDNN")
    torch.testing.assert_close(ours.depthwise_conv2d(input, filter, **options), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride, padding", [(1, "VALID"), (2, "SAME"), (1, EXPLICIT)], ids=str)
def test_gradients(stride, padding):
    tensors = [torch.randn(s, dtype=torch.float64) for s in [(2, 8, 9, 3), (3, 4, 3, 2), (1, 1, 6, 5)]]
    options = {"strides": [1, stride, stride, 1], "padding": padding}
    constants = [tf.Variable(tensor.numpy()) for tensor in tensors]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.nn.separable_conv2d(*constants, **options) ** 2)
    expected = [torch.from_numpy(gradient.numpy()) for gradient in tape.gradient(loss, constants)]
    leaves = [tensor.requires_grad_() for tensor in tensors]
    gradients = torch.autograd.grad(ours.separable_conv2d(*leaves, **options).square().sum(), leaves)
    torch.testing.assert_close(list(gradients), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["depthwise_conv2d", "separable_conv2d"])
def test_arguments_have_the_names_order_and_defaults_of_tensorflow(name):
    pairs = [
        [(p.name, p.default) for p in inspect.signature(getattr(module, name)).parameters.values()]
        for module in (ours, tf.nn)
    ]
    assert pairs[0] == pairs[1]


def test_positional_and_named():
    input, filter = torch.randn(1, 6, 6, 2), torch.randn(3, 3, 2, 1)
    expected = theirs(tf.nn.depthwise_conv2d, input, filter, (1, 2, 2, 1), "SAME", "NHWC", None, "name")
    output = ours.depthwise_conv2d(input, filter, (1, 2, 2, 1), "SAME", "NHWC", None, "name")
    torch.testing.assert_close(output, expected)


X, F, P = (2, 6, 7, 3), (3, 3, 3, 2), (1, 1, 6, 4)
ONES = [1, 1, 1, 1]
# (arguments that differ from a good call, exception, text)
ERRORS = [
    ({"strides": 2}, TypeError, "strides must be a list of four ints, got 2"),
    ({"strides": [2, 2]}, ValueError, r"strides must be four ints.*got \[2, 2\]"),
    ({"strides": [2, 1, 1, 1]}, ValueError, "strides must be 1 for the batch and the channels"),
    ({"strides": [1, 1, 1, 2]}, ValueError, "strides must be 1 for the batch and the channels"),
    ({"strides": [1, 0, 0, 1]}, ValueError, "strides must be positive"),
    ({"strides": [1, 1, 2, 1]}, ValueError, "strides must be the same for height and width"),
    ({"padding": [[1, 0], [0, 0], [0, 0], [0, 0]]}, ValueError, r"padding must be \(0, 0\) for the batch"),
    ({"padding": "same"}, ValueError, "padding must be 'SAME', 'VALID' or a list of four pairs, got 'same'"),
    ({"padding": "EXPLICIT"}, ValueError, "padding must be 'SAME'"),
    ({"padding": [[1, 1], [1, 1]]}, ValueError, r"padding must have four pairs.*got \[\[1, 1\], \[1, 1\]\]"),
    ({"padding": [[0, 0], [1], [1, 1], [0, 0]]}, ValueError, "padding must have four pairs"),
    ({"padding": [[0, 0], [-1, 0], [0, 0], [0, 0]]}, ValueError, "padding must not be negative"),
    ({"data_format": "NDHW"}, ValueError, "data_format must be 'NHWC', 'NCHW' or None, got 'NDHW'"),
    ({"dilations": [0, 1]}, ValueError, r"dilations must be two positive ints.*got \[0, 1\]"),
    ({"dilations": [1, 2, 2, 1]}, ValueError, "dilations must be two positive ints"),
    ({"filter": (3, 3, 2, 2)}, ValueError, r"filter must be .* C = 3, got \(3, 3, 2, 2\)"),
    ({"filter": (3, 3, 3)}, ValueError, r"filter must be .* got \(3, 3, 3\)"),
    ({"input": (6, 7, 3)}, ValueError, r"input must be 4-D, NHWC, got \(6, 7, 3\)"),
    ({"filter": (9, 3, 3, 2), "padding": "VALID"}, RuntimeError, "kernel must not be larger"),
]


@pytest.mark.parametrize("changes, exception, text", ERRORS, ids=lambda value: str(value)[:40])
def test_errors_of_depthwise_conv2d(changes, exception, text):
    """In float64, which TensorFlow's own kernels compute: the oneDNN in it ends the process at some of these."""
    arguments = {"input": X, "filter": F, "strides": ONES, "padding": "SAME"} | changes
    tensors = {name: torch.zeros(arguments.pop(name), dtype=torch.float64) for name in ("input", "filter")}
    with pytest.raises(exception, match=text):
        ours.depthwise_conv2d(**tensors, **arguments)
    with pytest.raises((TypeError, ValueError, tf.errors.OpError)):
        theirs(tf.nn.depthwise_conv2d, *tensors.values(), **arguments)


def test_tensorflow_warns_of_a_stride_with_a_dilation():
    """Why the grid gives it a filter with zeros instead: it says itself that it does not support them together."""
    options = {"strides": [1, 2, 2, 1], "padding": "SAME", "dilations": [2, 2]}
    with pytest.warns(UserWarning, match="all values of strides must be 1"):
        wrong = theirs(tf.nn.depthwise_conv2d, torch.ones(1, 9, 9, 1), torch.ones(3, 3, 1, 1), **options)
    with warnings.catch_warnings(action="error"):
        right = ours.depthwise_conv2d(torch.ones(1, 9, 9, 1), torch.ones(3, 3, 1, 1), **options)
    assert right[0, 0, :, 0].tolist() == [4, 6, 6, 6, 4] and not torch.equal(right, wrong)


@pytest.mark.parametrize("shape", [(1, 1, 5, 4), (2, 1, 6, 4), (6, 4)])
def test_errors_of_separable_conv2d(shape):
    with pytest.raises(ValueError, match=r"pointwise_filter must be \(1, 1, 6, O\), got"):
        ours.separable_conv2d(torch.zeros(X), torch.zeros(F), torch.zeros(shape), ONES, "SAME")
    with pytest.raises((ValueError, tf.errors.OpError)):
        theirs(tf.nn.separable_conv2d, *map(torch.zeros, (X, F, shape)), ONES, "SAME")
