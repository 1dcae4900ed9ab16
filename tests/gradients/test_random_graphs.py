"""Gradients of random graphs: which of them are None, and the values of the others, are F.conv2d's."""

import itertools
import random

import pytest
import torch

from tests.calls import reference
from tests.kernels.shapes import SEED
from torch_dwconv import depthwise_conv2d

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def draw_graph(rng, functions, leaves):
    """A random graph with convolutions by each of `functions`: their outputs, and tensors within the graph."""
    recipe = rng.getstate()
    results = []
    for function in functions:
        rng.setstate(recipe)
        planes, weights, biases = (list(group) for group in leaves)
        for _ in range(rng.randint(2, 7)):
            kind = rng.choice(("conv", "conv", "conv", "add", "mul", "chunk", "weight", "detach", "twice"))
            a, b = rng.choice(planes), rng.choice(planes)
            weight, other, bias = rng.choice(weights), rng.choice(weights), rng.choice((None, *biases))
            if kind == "conv":
                planes.append(function(a, weight, bias, padding=((1, 1), (1, 1))))
            elif kind == "weight":
                weights.append(weight * 0.5 + other)
            elif kind == "chunk":
                planes.extend(torch.cat(pair) for pair in zip(a.chunk(2), b.chunk(2), strict=True))
            elif kind == "twice":  # the weight is an input too
                weights.append(function(weight.transpose(0, 1), other, None, padding=((1, 1), (1, 1))).transpose(0, 1))
            else:
                planes.append({"add": a + b, "mul": a * b, "detach": a.detach() + b}[kind])
        output = sum((plane.square().sum() for plane in rng.sample(planes, min(3, len(planes)))), planes[-1].sum())
        results.append((output, planes, weights))
    return results


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed):
    """The gradients that are not None, and their values, are F.conv2d's, for any graph and any tensors of it."""
    rng = random.Random(f"{SEED} needed {seed}")
    sizes = ((2, 3, 5, 4), 2), ((3, 1, 3, 3), 2), ((3,), 2)
    leaves = [
        [torch.randn(size, dtype=torch.float64, requires_grad=rng.random() < 0.8) for _ in range(n)]
        for size, n in sizes
    ]
    (ours, *own), (theirs, *others) = draw_graph(rng, (depthwise_conv2d, reference), leaves)
    if not ours.requires_grad:
        return
    flat, exact_flat = ([*itertools.chain(*group), *leaves[2]] for group in (own, others))
    candidates = [i for i, tensor in enumerate(flat) if tensor.requires_grad]
    for round in range(6):
        wanted = rng.sample(candidates, rng.randint(1, min(4, len(candidates))))
        arguments = {"retain_graph": True, "allow_unused": True, "create_graph": round == 4}
        got = torch.autograd.grad(ours, [flat[i] for i in wanted], **arguments)
        right = torch.autograd.grad(theirs, [exact_flat[i] for i in wanted], **arguments)
        assert [g is None for g in got] == [g is None for g in right], f"SEED {SEED}"
        torch.testing.assert_close(got, right, msg=lambda text: f"{text}\nSEED {SEED}")
        # The same by backward, which accumulates
        ways = [[flat[i] for i in wanted]], [[exact_flat[i] for i in wanted]]
        for output, (inputs,) in ((ours, ways[0]), (theirs, ways[1])):
            for tensor in inputs:
                tensor.grad = None
            output.backward(inputs=inputs, retain_graph=True)
            inputs[:] = [None if tensor.grad is None else tensor.grad.clone() for tensor in inputs]
        torch.testing.assert_close(ways[0], ways[1], msg=lambda text: f"{text}\nSEED {SEED}")
