"""The other engines, beside PyTorch: each a module as torch_dwconv/bench/contestants/__init__.py describes it."""

from torch_dwconv.bench.contestants import OTHERS, Contestant

CONTESTANTS = {
    **OTHERS,
    "compile": Contestant(f"{__name__}.inductor", setup_seconds=1.0, slow=True),
    "onednn": Contestant(f"{__name__}.onednn", setup_seconds=0.05),
    "onnxruntime": Contestant(f"{__name__}.onnxruntime"),
    "openvino": Contestant(f"{__name__}.openvino", setup_seconds=0.15),
    "tensorflow": Contestant(f"{__name__}.tensorflow", setup_seconds=0.05),
    "litert": Contestant(f"{__name__}.litert"),
}
