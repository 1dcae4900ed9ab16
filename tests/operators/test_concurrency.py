"""Many callers at once: threads, worker processes, thread counts that change. The bits stay the same."""

import hashlib
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.calls import DTYPES, FORMATS, Call
from torch_dwconv import convert, depthwise_conv2d, explain, revert

pytestmark = pytest.mark.serial

CALLS = (
    Call(1, 37, 1, (61, 59), (3, 3), padding=((1, 1), (1, 1))),
    Call(2, 33, 2, (31, 29), (5, 3), (1, 2), ((2, 1), (1, 1))),
    Call(8, 70, 1, (7, 7), (3, 3), padding=((1, 1), (1, 1))),
    Call(1, 5, 1, (6, 5), (3, 3)),
)
JOBS = [(call, dtype, memory_format) for call in CALLS for dtype in DTYPES for memory_format in FORMATS]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def step(job) -> list[torch.Tensor]:
    """Output and gradients of a call whose numbers follow from the job alone."""
    call, dtype, memory_format = job
    generator = torch.Generator().manual_seed(JOBS.index(job))
    out_channels = call.channels * call.multiplier
    sizes = (call.batch, call.channels, *call.size), (out_channels, 1, *call.kernel), (out_channels,)
    input, weight, bias = (torch.randn(size, generator=generator).to(dtype) for size in sizes)
    leaves = [input.to(memory_format=memory_format).requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    output = depthwise_conv2d(*leaves, **call.options)
    return [output.detach(), *torch.autograd.grad(output, leaves, output.detach())]


def digest(job) -> str:
    return hashlib.sha256(b"".join(result.contiguous().view(torch.uint8).numpy() for result in step(job))).hexdigest()


def digests() -> list[str]:
    return [digest(job) for job in JOBS]


def at_once(work, count: int = 8) -> list:
    """What ``work(i)`` returns in each of ``count`` threads, which begin together."""
    barrier = Barrier(count)

    def begin(i):
        barrier.wait()
        return work(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def digests_at_once() -> list[str]:
    """The digests, each computed by every thread, the threads beginning with different ones; all must agree."""

    def from_job(i):
        order = [*range(i, len(JOBS)), *range(i)]
        return sorted((j, digest(JOBS[j])) for j in order)

    first, *others = at_once(from_job)
    assert all(other == first for other in others)
    return [text for _, text in first]


def convert_and_train(seed: int) -> list[torch.Tensor]:
    """A model's way through the package: the gradients of a step, and what it computes after a way back and again."""
    generator = torch.Generator().manual_seed(seed)
    layers = torch.nn.Conv2d(6, 6, 3, padding=1, groups=6), torch.nn.BatchNorm2d(6), torch.nn.ReLU6()
    model = torch.nn.Sequential(*layers, torch.nn.Conv2d(6, 12, 5, stride=2, groups=6))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    convert(model)
    input = torch.randn(2, 6, 11 + seed, 13, generator=generator)
    assert "F.conv2d" not in str(explain(input, model[0].weight, padding=1))
    gradients = torch.autograd.grad(model(input).square().sum(), list(model.parameters()))
    with torch.no_grad():
        return [*gradients, convert(revert(model))(input)]


def test_python_threads(threads):
    threads(2)
    expected = digests()
    jobs = list(range(len(JOBS))) * 3
    random.Random(0).shuffle(jobs)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: digest(JOBS[i]), jobs))
    assert got == [expected[i] for i in jobs]


def test_thread_counts_that_change_between_calls(threads):
    threads(1)
    expected = digests()
    rng = random.Random(0)

    def one(i):
        torch.set_num_threads(rng.choice((1, 2, 3, 5)))
        return digest(JOBS[i])

    assert [one(i) for i in range(len(JOBS))] == expected
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one, range(len(JOBS)))) == expected


class Digests(Dataset):
    def __len__(self):
        return len(JOBS)

    def __getitem__(self, i):
        return digest(JOBS[i])


def test_workers_forked_after_the_first_calls(threads):
    """The parent's pool of threads is in use by then, and does not live on in a child."""
    threads(2)
    expected = digests()
    workers = DataLoader(Digests(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=300)
    assert list(workers) == expected


def test_models_of_many_threads(threads):
    threads(1)
    expected = [convert_and_train(seed) for seed in range(8)]
    for _ in range(5):
        for got, alone in zip(at_once(convert_and_train), expected, strict=True):
            torch.testing.assert_close(got, alone, rtol=0, atol=0)


@pytest.mark.parametrize("how", ["digests", "digests_at_once"])
def test_another_process(how):
    """Also one whose first calls come from many threads together: what a call sets up is set up once."""
    program = f"from tests.operators.test_concurrency import {how}; print(*{how}())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == digests()
