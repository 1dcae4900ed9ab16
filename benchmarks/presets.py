"""Whole runs by name: each a list of command lines, timed one after the other into one result."""

from .contestants import CONTESTANTS
from .forms import FORMS

_EVERYBODY = ",".join(CONTESTANTS)
_HOW = ["--samples", "5", "--min-ms", "1", "--max-s", "0.4"]

# TensorFlow keeps the number of threads that it begins with, so one thread comes first.
PRESETS = {
    # Every operation, type, contestant and model; about 15 minutes on 2 cores.
    "published": [
        ["--overhead"],
        ["--layers", "all", "--against", _EVERYBODY, *_HOW],
        ["--layers", "mobilenet_v2", "--batch", "16,32", "--against", "torch,onednn,onnxruntime,openvino", *_HOW],
        ["--layers", "all", "--dtypes", "bf16,f16", "--against", "torch", *_HOW],
        ["--layers", "all", "--threads", "2", "--against", "torch,onednn", *_HOW],
        ["--model", "mobilenet_v2", "--batch", "1", "--forms", ",".join(FORMS), *_HOW],
        ["--model", "mobilenet_v2", "--batch", "16", "--forms", "plain,converted,fused", *_HOW],
        ["--model", "convnext_tiny", "--batch", "1", *_HOW],
        ["--model", "replknet_31b_stage1", "--batch", "1", *_HOW],
        ["--model", "mobilenet_v2", "--model", "convnext_tiny", "--batch", "16", "--threads", "2", *_HOW],
    ],
    # Something of everything, in seconds: whether it works, not how fast it is.
    "smoke": [
        ["--overhead", "--samples", "2", "--min-ms", "0.01"],
        *(
            [*what, "--samples", "2", "--min-ms", "0.01", "--max-s", "0.01"]
            for what in (
                ["--layer", "1,16,14,14,3,1", "--layer", "2,6,9,9,5,2", "--threads", "1,2", "--against", "torch"],
                ["--layer", "1,16,14,14,3,1", "--dtypes", "bf16,f16", "--operations", "forward", "--against", "torch"],
                ["--model", "mobilenet_v2", "--image-size", "32", "--batch", "2", "--layouts", "nhwc"],
            )
        ),
    ],
}
