"""ONNX Runtime: what torch.onnx.export makes of the plain model, with all of the engine's own optimisations."""

import torch
from torch import nn

from torch_dwconv.bench.contestants import Refused
from torch_dwconv.bench.models.forms import Step


def step(model: nn.Module, images: torch.Tensor) -> Step:
    """A function of images in that engine: on the CPU, on as many threads as PyTorch has, on the images' own memory.

    Raises:
        ImportError: onnxruntime is not installed.
        Refused: the images are not float32: the engine has no other convolutions on a CPU.
    """
    import onnxruntime

    if images.dtype != torch.float32:
        raise Refused(f"no {images.dtype}")
    program = torch.onnx.export(model, (images.contiguous(),), dynamo=True, verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options, ["CPUExecutionProvider"])
    (name,) = (argument.name for argument in session.get_inputs())
    (output,) = (argument.name for argument in session.get_outputs())

    def infer(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run([output], {name: images.numpy()})[0])

    return infer
