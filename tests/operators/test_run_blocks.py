"""`run_blocks`, which eager fused programs call: it computes what the calls of its blocks do, and refuses all else."""

import random
import threading

import pytest
import torch

from torch_dwconv.operators.block import BLOCK
from torch_dwconv.operators.block.packing import packed
from torch_dwconv.operators.block.steps import DENSE, DEPTHWISE, SQUEEZE_EXCITE, Step, encoded

RUN_BLOCKS = torch.ops.torch_dwconv.run_blocks.default


def dense(inputs: int, outputs: int) -> tuple[list[int], list[torch.Tensor]]:
    weight = torch.randn(outputs, inputs, 1, 1) / inputs**0.5
    return encoded([Step(DENSE, 1, outputs)]), [packed(weight, 1), torch.randn(outputs)]


def inverted_residual(channels: int, wide: int) -> tuple[list[int], list[torch.Tensor]]:
    steps = [
        Step(DENSE, 2, wide),
        Step(DEPTHWISE, 3, wide, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1),
        Step(SQUEEZE_EXCITE, 1, 5, gate=7),
        Step(DENSE, 0, channels),
    ]
    constants = [
        *dense(channels, wide)[1],
        *(torch.randn(wide, 1, 3, 3) / 3, torch.randn(wide)),
        *(*dense(wide, 5)[1], *dense(5, wide)[1]),
        *dense(wide, channels)[1],
    ]
    return encoded(steps), constants


def program() -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor, list[float], list[torch.Tensor]]:
    """Arguments of a call and its results: three blocks on two inputs; one result is read twice, two are wanted."""
    x, y = torch.randn(2, 12, 9, 7), torch.randn(2, 20, 9, 7)
    blocks = [inverted_residual(12, 40), dense(20, 12), inverted_residual(12, 33)]
    places = [(0, -1), (1, 2), (3, 2)]  # source and residual: x, y, then the blocks
    values = [x, y]
    for (steps, constants), (source, residual) in zip(blocks, places, strict=True):
        values.append(BLOCK(values[source], constants, None if residual < 0 else values[residual], steps))
    numbers = [len(blocks), 2, 3, 4]
    for (steps, _), place in zip(blocks, places, strict=True):
        numbers += [*place, len(steps) // len(Step._fields), *steps]
    constants = [constant for _, own in blocks for constant in own]
    return [x, y], constants, torch.tensor(numbers), [0.0] * 3, [values[3], values[4]]


def test_the_results_of_single_calls():
    *arguments, expected = program()
    for _ in range(2):  # as it is made, and as it is remembered
        for result, wanted in zip(RUN_BLOCKS(*arguments), expected, strict=True):
            assert torch.equal(result, wanted)
            assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_any_number_of_threads(threads):
    *arguments, expected = program()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results = RUN_BLOCKS(*arguments)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, wanted) for result, wanted in zip(results, expected, strict=True))


def large_program(images: int) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor, list[float], list]:
    """As `program`: images of which three go through the first four blocks together. The fifth has larger weights than
    three images have numbers and stands alone, the last two follow it. Results are read within a chunk, behind it, and
    both."""
    x = torch.randn(images, 16, 48, 48).to(memory_format=torch.channels_last)  # as a program reads residuals
    (widen, first), (shrink, second) = dense(16, 7000), dense(7000, 16)
    blocks = [inverted_residual(16, 24), dense(16, 16), inverted_residual(16, 20), dense(16, 16)]
    blocks += [(widen + shrink, first + second), inverted_residual(16, 18), dense(16, 16)]
    places = [(0, -1), (1, 0), (2, 1), (2, 3), (4, -1), (5, 2), (6, 5)]
    values = [x]
    for (steps, constants), (source, residual) in zip(blocks, places, strict=True):
        values.append(BLOCK(values[source], constants, None if residual < 0 else values[residual], steps))
    outputs = [3, 7, 6]
    numbers = [len(blocks), len(outputs), *outputs]
    for (steps, _), place in zip(blocks, places, strict=True):
        numbers += [*place, len(steps) // len(Step._fields), *steps]
    constants = [constant for _, own in blocks for constant in own]
    return [x], constants, torch.tensor(numbers), [0.0] * len(blocks), [values[output] for output in outputs]


@pytest.mark.parametrize("images", [1, 3, 5, 8])
def test_images_that_go_through_several_blocks_a_few_at_a_time(images):
    *arguments, expected = large_program(images)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results = RUN_BLOCKS(*arguments)
            assert all(torch.equal(result, wanted) for result, wanted in zip(results, expected, strict=True)), threads
    finally:
        torch.set_num_threads(before)


def test_calls_at_the_same_time():
    """Of programs of several sizes, so that memory which is found again is also too small."""
    programs = [program() for _ in range(3)]
    wrong: list[int] = []

    def run(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(40):
            *arguments, expected = order.choice(programs)
            results = RUN_BLOCKS(*arguments)
            if not all(torch.equal(result, wanted) for result, wanted in zip(results, expected, strict=True)):
                wrong.append(seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_images():
    inputs, constants, numbers, epsilons, _ = program()
    results = RUN_BLOCKS([tensor[:0] for tensor in inputs], constants, numbers, epsilons)
    assert [result.shape[0] for result in results] == [0, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda inputs, constants, numbers, epsilons: ([], constants, numbers, epsilons),
        lambda inputs, constants, numbers, epsilons: ([inputs[0], inputs[1].double()], constants, numbers, epsilons),
        lambda inputs, constants, numbers, epsilons: ([inputs[0][0], inputs[1]], constants, numbers, epsilons),
        lambda inputs, constants, numbers, epsilons: (inputs, constants[:-1], numbers, epsilons),
        lambda inputs, constants, numbers, epsilons: (inputs, [*constants, constants[0]], numbers, epsilons),
        lambda inputs, constants, numbers, epsilons: (inputs, [c.half() for c in constants], numbers, epsilons),
        lambda inputs, constants, numbers, epsilons: (inputs, constants[::-1], numbers, epsilons),
        lambda inputs, constants, numbers, epsilons: (inputs, constants, numbers.int(), epsilons),
        lambda inputs, constants, numbers, epsilons: (inputs, constants, numbers[:-1], epsilons),
        lambda inputs, constants, numbers, epsilons: (inputs, constants, torch.cat([numbers, numbers]), epsilons),
        lambda inputs, constants, numbers, epsilons: (inputs, constants, numbers[::2], epsilons),
        lambda inputs, constants, numbers, epsilons: (inputs, constants, numbers, epsilons[:-1]),
    ],
)
def test_wrong_arguments_are_refused(change):
    *arguments, _ = program()
    with pytest.raises(RuntimeError, match="torch_dwconv: "):
        RUN_BLOCKS(*change(*arguments))


def test_any_number_changed():
    """Is refused, or is another program: no number crashes the process."""
    inputs, constants, numbers, epsilons, _ = program()
    refused = 0
    for at in range(len(numbers)):
        for value in (-(2**62), -1, 0, 1, 2, 3, 7, 64, 2**31, 2**62):
            changed = numbers.clone()
            changed[at] = value
            try:
                RUN_BLOCKS(inputs, constants, changed, epsilons)
            except RuntimeError as error:
                assert "torch_dwconv: " in str(error)
                refused += 1
    assert refused > 5 * len(numbers)
