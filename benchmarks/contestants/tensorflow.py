"""TensorFlow's eager kernels, NHWC, the only layout that they have on a CPU. Results are always fresh."""

import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when it is imported

import tensorflow as tf
import torch

from torch_dwconv.bench.contestants import Refused
from torch_dwconv.bench.timing import Run

_started_with = None  # it fixes its number of threads when it first computes


def version() -> str:
    return tf.__version__


def _start(threads: int) -> None:
    global _started_with
    if _started_with is None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.set_visible_devices([], "GPU")
        _started_with = threads
    if _started_with != threads:
        raise Refused(f"its threads stay {_started_with} once it runs: use a run of its own")


def runs(problem) -> dict[str, Run]:
    if problem.dilation != (1, 1):
        raise Refused("no dilation")
    if problem.stride[0] != problem.stride[1]:
        raise Refused("strides must be equal")
    _start(problem.cell.threads)
    layer, (pad_h, pad_w) = problem.cell.layer, problem.padding
    input, grad_output = (_to_tf(tensor.permute(0, 2, 3, 1)) for tensor in (problem.input, problem.grad_output))
    # (C*M, 1, KH, KW) to TensorFlow's (KH, KW, C, M).
    weight = _to_tf(
        problem.weight.reshape(layer.channels, layer.multiplier, *problem.weight.shape[2:]).permute(2, 3, 0, 1)
    )
    options = {
        "strides": [1, *problem.stride, 1],
        "padding": "EXPLICIT",
        "explicit_paddings": [0, 0, pad_h, pad_h, pad_w, pad_w, 0, 0],
    }
    ops = tf.raw_ops
    if problem.cell.operation == "forward":
        call = functools.partial(ops.DepthwiseConv2dNative, input=input, filter=weight, **options)
    elif problem.cell.operation == "grad_input":
        call = functools.partial(
            ops.DepthwiseConv2dNativeBackpropInput,
            input_sizes=tf.constant(input.shape),
            filter=weight,
            out_backprop=grad_output,
            **options,
        )
    else:
        call = functools.partial(
            ops.DepthwiseConv2dNativeBackpropFilter,
            input=input,
            filter_sizes=tf.constant(weight.shape),
            out_backprop=grad_output,
            **options,
        )

    def to_torch(result: tf.Tensor) -> torch.Tensor:
        tensor = torch.from_numpy(tf.cast(result, tf.float64).numpy())
        if problem.cell.operation == "grad_weight":
            return tensor.permute(2, 3, 0, 1).reshape(problem.weight.shape)
        return tensor.permute(0, 3, 1, 2)

    return {"fresh": Run(call, to_torch, pool="tensorflow", note="nhwc")}


def _to_tf(tensor: torch.Tensor) -> tf.Tensor:
    """A copy; by way of float64, which holds every value of the dtypes that numpy lacks."""
    return tf.cast(tf.constant(tensor.double().contiguous().numpy()), str(tensor.dtype).removeprefix("torch."))
