"""Shapes for the operations of sequences: rows, whose results look at positions before their own.

``cases.py`` puts them among the cases of all kernels.
"""

import random

from tests.kernels.shapes import Shape

MOST_REACH = 512  # kMostReach of csrc/kernel.h


def sequence(channels: int, length: int, width: int, dilation: int = 1, batch: int = 1) -> Shape:
    reach = (width - 1) * dilation
    return Shape(batch, channels, 1, 1, length, 1, width, 1, length, dilation_w=dilation, pad_left=reach)


# Each a corner of the contract, named for test ids.
SEQUENCE_EDGES = {
    "sequence_single_number": sequence(1, 1, 1),
    "sequence_one_tap": sequence(19, 37, 1, batch=2),
    "sequence_one_position": sequence(70, 1, 4, batch=3),
    "sequence_shorter_than_its_taps": sequence(33, 2, 9, batch=2),
    "sequence_empty_batch": sequence(5, 7, 4, batch=0),
    "sequence_of_a_vector": sequence(16, 16, 4),
    "sequence_of_vectors": sequence(32, 64, 3, batch=2),
    "sequence_of_mamba": sequence(65, 130, 4, batch=2),
    "sequence_of_conformer": sequence(35, 101, 31, batch=2),
    "sequence_of_64_taps": sequence(17, 150, 64),
    "sequence_of_a_far_tap": sequence(9, 700, 2, MOST_REACH),
    "sequence_of_far_taps": sequence(18, 600, 3, 256),
    "sequence_of_far_taps_and_few_positions": sequence(18, 40, 9, 64),
    "sequence_of_wavenet": sequence(24, 90, 3, 8, batch=2),
    "sequence_past_a_block_of_channels": sequence(65, 9, 4, batch=2),
    "sequence_past_a_chunk_of_channels": sequence(1029, 9, 3),
    "sequence_past_a_chunk_of_channels_16_bit": sequence(2055, 3, 4),
    "sequence_past_a_span_of_pixels": sequence(7, 257, 5),
    "sequence_spans_of_pixels_far_taps": sequence(5, 530, 5, 40),
    "sequence_past_a_block_of_positions": sequence(3, 513, 4, batch=2),
    "sequence_past_a_span_of_positions": sequence(2, 4097, 4),
    "sequence_past_a_span_by_less_than_its_reach": sequence(1, 4100, 31),
    "sequence_past_a_long_span": sequence(1, 8200, 3),
    "sequence_spans_of_far_taps": sequence(1, 4500, 9, 64),
    "sequence_many_images": sequence(3, 5, 4, batch=40),
}


def random_sequence(rng: random.Random) -> Shape:
    """Rows of any length and as long as vectors are, widths of models and others, few dilated."""
    width = rng.choice([2, 3, 4, 4, rng.randint(1, 10), rng.randint(1, 10), 31, rng.randint(1, 64)])
    most = MOST_REACH // max(width - 1, 1)
    dilation = rng.choice([1, 1, 1, 1, 2, rng.randint(1, 9), rng.randint(1, most)])
    near = 16 * rng.randint(1, 8) + rng.choice([-1, 0, 1])
    length = rng.choice([1, rng.randint(1, 9), rng.randint(1, 130), near, near, rng.randint(1, 700)])
    channels = rng.choice([rng.randint(1, 9), rng.randint(1, 130), near, rng.randint(1, 300)])
    return sequence(channels, length, width, min(dilation, most), rng.choice([1, 1, 2, 3]))
