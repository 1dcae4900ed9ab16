"""Bytes counted from addresses: good access patterns cost what they must, bad ones are caught."""

import numpy as np
import pytest

from tools.cuda_gate.sass.machine import Access
from tools.cuda_gate.sass.replay import Replay

LANES = np.arange(64)  # two warps of a block


def counted(addresses: np.ndarray, width: int, store: bool, lanes_of_a_block: int = 64) -> tuple[int, int]:
    replay = Replay(lanes_of_a_block)
    for at in np.atleast_2d(addresses):
        replay.add(Access(0, store, width, at, LANES))
    return replay.read, replay.written


@pytest.mark.parametrize("width", [4, 8, 16])
def test_neighbouring_accesses_cost_what_they_move(width):
    assert counted(LANES * width, width, store=True) == (0, 2 * width)
    assert counted(LANES * width, width, store=False) == (2 * width, 0)


def test_strided_stores_are_caught():
    assert counted(LANES * 224, 4, store=True) == (0, 64)  # 8 would do


def test_vectors_stored_in_pieces_are_caught():
    """Four neighbouring floats of a lane, one after the other: each store touches every sector again."""
    pieces = np.stack([LANES * 16 + 4 * piece for piece in range(4)])
    assert counted(pieces, 4, store=True) == (0, 4 * 32)


def test_rows_of_seven_floats_that_are_not_packed_are_caught():
    """A lane a row: seven stores, where packed ones would fill 56 sectors once."""
    rows = np.stack([LANES * 28 + 4 * column for column in range(7)])
    packed = counted(np.arange(64) * 16, 16, store=True)[1] + counted(1024 + np.arange(64) * 12, 4, store=True)[1]
    assert counted(rows, 4, store=True)[1] > 5 * 56 > packed


def test_a_block_reads_a_sector_once_and_two_blocks_twice():
    halos = np.stack([LANES * 4, LANES * 4 + 4, LANES * 4 + 8])
    assert counted(halos, 4, store=False)[0] == 9
    assert counted(np.stack([LANES % 32 * 4] * 3), 4, store=False, lanes_of_a_block=32)[0] == 2 * 4
