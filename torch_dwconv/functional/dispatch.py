"""Who computes a call: the kernels of this package, or PyTorch's function for tensors that have no kernel here."""

from typing import overload

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from ..operators import native
from ..operators.schemas import DTYPES

DEVICES = ("cpu", "cuda")  # that have kernels; CUDA where its library has been built


@overload
def autocast(tensor: Tensor) -> Tensor: ...
@overload
def autocast(tensor: None) -> None: ...
def autocast(tensor: Tensor | None) -> Tensor | None:
    """The tensor as autocast hands it to F.conv2d: everything in floating point but float64 is cast."""
    if tensor is None or tensor.device.type not in DEVICES or not torch.is_autocast_enabled(tensor.device.type):
        return tensor
    if not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def opaque_reason(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> str | None:
    """Why this call must reach PyTorch's function as it is, before anyone looks at shapes; None for ordinary tensors.

    Fake and functional tensors, which stand for ordinary ones inside torch.compile and torch.export, are ordinary here.
    """
    for name, tensor in (("input", input), ("weight", weight), ("bias", bias)):
        kind = type(tensor)
        if kind in (Tensor, torch.nn.Parameter, FakeTensor, FunctionalTensor) or (tensor is None and name == "bias"):
            continue
        torch_function = getattr(kind, "__torch_function__", None)
        if torch_function is None:
            raise TypeError(f"{name} must be a tensor, got {kind.__name__}")
        overrides_functions = torch_function is not torch._C._disabled_torch_function_impl
        overrides_operators = getattr(kind, "__torch_dispatch__", None) is not Tensor.__torch_dispatch__
        if overrides_functions or overrides_operators:
            return f"{kind.__name__} computes for itself"
    if torch.jit.is_tracing():
        return "torch.jit.trace and the exporters built on it know PyTorch's operators only"
    return None


def native_reason(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> str | None:
    """Why the kernels of this package do not take these tensors and PyTorch's function does; None if they do."""
    if reason := opaque_reason(input, weight, bias):
        return reason
    for name, tensor in (("input", input), ("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.layout != torch.strided:
            return f"{name} has layout {tensor.layout}"
        if tensor.device.type not in DEVICES:
            return f"{name} is on {tensor.device}"
        if tensor.device.type == "cuda" and (reason := native.cuda_refusal(tensor.device.index or 0)):
            return f"{name} is on {tensor.device}: {reason}"
        if tensor.dtype not in DTYPES:
            return f"{name} is {tensor.dtype}"
    return None


def is_native(dtype: torch.dtype, device: int) -> bool:
    """Whether native_reason is None for plain tensors of this dtype and device, -1 or the index of a CUDA device."""
    return dtype in DTYPES and (device < 0 or native.cuda_refusal(device) is None)
