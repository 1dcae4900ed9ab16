"""What training programs do with a model: mixed precision, checkpointing, ensembles, several processes."""

import copy
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.parallel import DistributedDataParallel

from tests.calls import FORMATS
from torch_dwconv import DepthwiseConv2d, convert


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 16, 3, 2, 1, groups=8),
        nn.GroupNorm(2, 16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False),
        nn.Flatten(1),
        nn.LazyLinear(4),
    )


def models():
    """nn.Conv2d's model and ours with the same parameters."""
    theirs = plain()
    theirs(images())
    return theirs, convert(copy.deepcopy(theirs))


def images():
    return torch.randn(4, 3, 9, 8)


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_with_a_scaler(dtype, memory_format):
    input, steps = images().to(memory_format=memory_format), []
    for model in models():
        model.to(memory_format=memory_format)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype):
                loss = model(input).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in model.parameters())
        assert losses[-1] < losses[0]
        steps.append(torch.tensor(losses))
    torch.testing.assert_close(steps[1], steps[0], rtol=0.05, atol=0.01)


def test_an_overflow_skips_the_step():
    """A scale that is too large makes infinite gradients, which the scaler must see."""
    model = convert(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))
    before = copy.deepcopy(model.state_dict())
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cpu", init_scale=2.0**30)
    with torch.autocast("cpu", torch.float16):
        loss = model(100 * torch.ones(1, 4, 8, 8)).float().square().sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() < 2.0**30
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant):
    _, model = models()
    input = images().requires_grad_()
    model(input).square().sum().backward()
    right = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}, input.grad.clone()
    model.zero_grad()
    input.grad = None
    torch.utils.checkpoint.checkpoint_sequential(model, 3, input, use_reentrant=reentrant).square().sum().backward()
    torch.testing.assert_close((gradients(model), input.grad), right, rtol=0, atol=0)


def test_deterministic_algorithms():
    """Of other layers the bits may depend on the number of threads, so these are depthwise ones alone."""
    model = nn.Sequential(DepthwiseConv2d(16, 32, 3), DepthwiseConv2d(32, 32, 5, stride=2, padding=2))
    input, results = torch.randn(4, 16, 19, 18), []
    torch.use_deterministic_algorithms(True)
    try:
        for threads in (1, 2, 3):
            with_threads(threads, lambda: results.append(step(model, input)))
    finally:
        torch.use_deterministic_algorithms(False)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=0)


def step(model, input):
    model.zero_grad()
    model(input).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def with_threads(count, run):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        run()
    finally:
        torch.set_num_threads(before)


def test_an_ensemble():
    """Models of one architecture, run and differentiated as one by vmap."""
    members = [convert(nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 2, 1))) for _ in range(3)]
    parameters, buffers = stack_module_state(members)
    skeleton, input = copy.deepcopy(members[0]).to("meta"), torch.randn(2, 4, 7, 6)

    def loss(parameters, buffers, input):
        return functional_call(skeleton, (parameters, buffers), (input,)).square().sum()

    stacked = vmap(grad(loss), (0, 0, None))(parameters, buffers, input)
    for i, member in enumerate(members):
        member(input).square().sum().backward()
        torch.testing.assert_close({name: value[i] for name, value in stacked.items()}, gradients(member))


def test_per_sample_gradients():
    _, model = models()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    input = images()

    def loss(parameters, image):
        return functional_call(model, parameters, (image[None],)).square().sum()

    samples = vmap(grad(loss), (None, 0))(parameters, input)
    for i, image in enumerate(input):
        model.zero_grad()
        model(image[None]).square().sum().backward()
        torch.testing.assert_close({n: v[i] for n, v in samples.items()}, gradients(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_ddp_gradients_fit_the_buckets(memory_format, tmp_path):
    """DDP warns, and copies, when a gradient's strides are not its parameter's."""
    _, model = models()
    model.to(memory_format=memory_format)
    input = images().to(memory_format=memory_format)
    model(input).square().sum().backward()
    right = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(model, gradient_as_bucket_view=True)
        for _ in range(2):
            parallel.zero_grad()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                parallel(input).square().sum().backward()
        # Freed after the group, DDP would be its last owner, and join threads with the GIL held that may wait for it.
        del parallel
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(gradients(model), right)
    for layer in model:
        if isinstance(layer, DepthwiseConv2d):
            assert layer.weight.grad.stride() == layer.weight.stride()


@pytest.mark.slow
def test_fsdp2_on_two_processes():
    """fully_shard splits every parameter over two ranks; values and gradients are those of one process."""
    program = Path(__file__).with_name("fsdp.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}  # where the package is not installed
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("gradients match") == 2
