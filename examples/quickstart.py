"""Converts a model, checks that it computes the same, and times both."""

import torch
from mobilenetv2 import MobileNetV2
from torch.utils.benchmark import Timer

import torch_dwconv

plain = MobileNetV2(depthwise=torch.nn.Conv2d).eval()
images = torch.rand(8, 3, 224, 224)
with torch.inference_mode():
    expected, before = plain(images), Timer("m(x)", globals={"m": plain, "x": images}).blocked_autorange(min_run_time=2)
    model = torch_dwconv.convert(plain)  # in place; parameters, hooks and state_dict keys stay
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    after = Timer("m(x)", globals={"m": model, "x": images}).blocked_autorange(min_run_time=2)
print(f"nn.Conv2d {before.median * 1000:.0f} ms, torch_dwconv {after.median * 1000:.0f} ms")
