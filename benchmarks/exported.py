"""The forms of a whole model, and one that is not PyTorch: what ONNX Runtime makes of the plain model."""

import torch
from torch import nn

from torch_dwconv.bench.contestants import Refused
from torch_dwconv.bench.models import forms


def _in_onnxruntime(model: nn.Module, images: torch.Tensor) -> forms.Step:
    """What plain torch.onnx.export makes of the model, with ONNX Runtime's own optimisations."""
    import onnxruntime

    if images.dtype != torch.float32:
        raise Refused(f"no {images.dtype}")
    program = torch.onnx.export(model, (images.contiguous(),), dynamo=True, verbose=False)
    assert program is not None
    exported = program.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(exported, options, ["CPUExecutionProvider"])
    (name,) = (argument.name for argument in session.get_inputs())
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


FORMS = {**forms.FORMS, "onnxruntime": forms.Form(run=_in_onnxruntime, compiles=True, pool="onnxruntime")}
