"""OpenVINO on given tensors, in the faster of planar (nchw) and channels-last (nhwc) input and output."""

import openvino
import torch
from openvino import opset13 as ops

from torch_dwconv.bench.contestants import dtypes_only, forward_only
from torch_dwconv.bench.timing import Run, fastest

TYPES = {torch.float32: openvino.Type.f32, torch.bfloat16: openvino.Type.bf16, torch.float16: openvino.Type.f16}


def version() -> str:
    return openvino.__version__.partition("-")[0]


def runs(problem) -> dict[str, Run]:
    forward_only(problem)
    dtypes_only(problem, "f32", "bf16", "f16")
    return {"reused": fastest({layout: _run(problem, layout) for layout in ("nchw", "nhwc")})[1]}


def _run(problem, layout: str) -> Run:
    type = TYPES[problem.dtype]
    channels, multiplier = problem.groups, problem.cell.layer.multiplier
    (pad_h, pad_w), kernel = problem.padding, tuple(problem.weight.shape[2:])
    to_nhwc = (0, 2, 3, 1) if layout == "nhwc" else (0, 1, 2, 3)
    input = problem.input.permute(to_nhwc).contiguous()
    output = torch.full_like(problem.grad_output.permute(to_nhwc).contiguous(), float("nan"))

    parameter = ops.parameter(list(problem.input.shape), type, name="input")
    weight = problem.weight.reshape(channels, multiplier, 1, *kernel).contiguous()
    constant = ops.constant(shared(weight))
    node = ops.group_convolution(
        parameter, constant, list(problem.stride), [pad_h, pad_w], [pad_h, pad_w], list(problem.dilation)
    )
    editor = openvino.preprocess.PrePostProcessor(openvino.Model([node], [parameter], "depthwise"))
    editor.input().tensor().set_layout(openvino.Layout(layout.upper())).set_element_type(type)
    editor.input().model().set_layout(openvino.Layout("NCHW"))
    editor.output().model().set_layout(openvino.Layout("NCHW"))
    editor.output().tensor().set_layout(openvino.Layout(layout.upper())).set_element_type(type)
    options = settings(type, problem.cell.threads)
    request = openvino.Core().compile_model(editor.build(), "CPU", options).create_infer_request()
    request.set_input_tensor(shared(input))
    request.set_output_tensor(shared(output))

    def infer(_operands=(input, weight)):  # OpenVINO borrows their memory and does not keep them
        request.start_async()
        request.wait()

    def result(_):
        return output.permute(0, 3, 1, 2) if layout == "nhwc" else output

    return Run(infer, result, pool="openvino", note=layout)


def settings(precision: openvino.Type, threads: int) -> dict[str, object]:
    """For one call after the other, each on all of so many threads."""
    return {
        "INFERENCE_PRECISION_HINT": precision.to_string(),  # otherwise it rounds f32 to bf16 where the CPU can
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }


def shared(tensor: torch.Tensor) -> openvino.Tensor:
    """The same memory; numpy has no bf16, so that bits travel."""
    array = tensor.view(torch.int16).numpy() if tensor.element_size() == 2 else tensor.numpy()
    return openvino.Tensor(array, tensor.shape, TYPES[tensor.dtype])
