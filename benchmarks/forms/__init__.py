"""The forms of a whole model: the package's, and the other engines that run it; each engine is a file here."""

from functools import partial

import torch

from torch_dwconv.bench.models import forms

from . import onnxruntime, openvino

_OPENVINO = forms.Form(run=openvino.step, pool="openvino", package="openvino", layouts=("nchw", "nhwc"))

FORMS = {
    **forms.FORMS,
    "onnxruntime": forms.Form(
        run=onnxruntime.step, compiles=True, pool="onnxruntime", package="onnxruntime", layouts=("nchw",)
    ),
    "openvino": _OPENVINO,
    "openvino-bf16": _OPENVINO._replace(run=partial(openvino.step, precision=torch.bfloat16), precision="bf16"),
    "compiled-openvino": forms.Form(run=openvino.compiled_step, compiles=True, pool="openvino", package="openvino"),
}
