"""ONNX Runtime on bound buffers: a standard Conv, as its optimiser runs it, or its blocked (NCHWc) operator alone."""

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch.nn import functional as F

from torch_dwconv.bench.contestants import dtypes_only, forward_only
from torch_dwconv.bench.timing import Run, fastest

_BLOCKS = (16, 8)  # channels that NCHWc keeps together: with AVX-512, and without


def version() -> str:
    return onnxruntime.__version__


def runs(problem) -> dict[str, Run]:
    forward_only(problem)
    dtypes_only(problem, "f32")
    input, weight = (tensor.contiguous().numpy() for tensor in (problem.input, problem.weight))
    size = tuple(problem.grad_output.shape)
    candidates = {"nchw": _run(problem, "", input, weight, size, lambda result: result)}
    for block in _BLOCKS:
        run = _blocked_run(problem, block, input, weight, size)
        if run is not None:
            candidates["NCHWc"] = run
            break
    return {"reused": fastest(candidates)[1]}


def _blocked_run(problem, block: int, input, weight, size) -> Run | None:
    """The optimiser's own operator without the reorders round it; None where it would not be used."""
    batch, channels, height, width = input.shape
    if problem.cell.layer.multiplier != 1 or channels % block:
        return None
    # (N, C, H, W) as blocks of channels, innermost; the operator takes it under the plain sizes.
    blocked = input.reshape(batch, channels // block, block, height, width).transpose(0, 1, 3, 4, 2)
    packed = weight.reshape(channels // block, block, *weight.shape[2:]).transpose(0, 2, 3, 1)
    out_h, out_w = size[2:]

    def plain(result: np.ndarray) -> np.ndarray:
        return result.reshape(batch, channels // block, out_h, out_w, block).transpose(0, 1, 4, 2, 3).reshape(size)

    arrays = (np.ascontiguousarray(blocked).reshape(input.shape), np.ascontiguousarray(packed).reshape(weight.shape))
    try:
        run = _run(problem, "com.microsoft.nchwc", *arrays, size, plain)
        result = run.tensor(run.call())
    except Exception:  # a build without the operator, each with an exception of its own
        return None
    # Blocks of another size than the CPU's give other numbers.
    options = problem.stride, problem.padding, problem.dilation, problem.groups
    right = F.conv2d(problem.input, problem.weight, None, *options)
    return run if torch.allclose(result, right, rtol=1e-3, atol=1e-3) else None


def _run(problem, domain: str, input, weight, size, plain) -> Run:
    """A model of one Conv; `plain` brings its output into NCHW."""
    (pad_h, pad_w), opset = problem.padding, onnx.defs.onnx_opset_version()
    node = helper.make_node(
        "Conv",
        ["input", "weight"],
        ["output"],
        domain=domain,
        strides=problem.stride,
        dilations=problem.dilation,
        pads=(pad_h, pad_w, pad_h, pad_w),
        kernel_shape=weight.shape[2:],
        group=problem.groups,
    )
    graph = helper.make_graph(
        [node],
        "depthwise",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, input.shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, size)],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    opsets = [helper.make_opsetid("", min(opset, 21)), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = problem.cell.threads
    options.log_severity_level = 4  # a refused candidate is no news
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    output = np.full(size, np.nan, np.float32)
    binding = session.io_binding()
    source, target = (onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in (input, output))
    binding.bind_ortvalue_input("input", source)
    binding.bind_ortvalue_output("output", target)

    return Run(
        lambda: session.run_with_iobinding(binding),
        lambda _: torch.from_numpy(plain(target.numpy()).copy()),
        pool="onnxruntime",
        note="NCHWc" if domain else "nchw",
    )
