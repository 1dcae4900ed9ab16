"""Shapes that only some CUDA kernels tell from others, beside those of tests/kernels/shapes.py.

The first word of a name is a part of the names of the kernels that must take the shape.
"""

from tests.kernels.shapes import Shape

# Small planes, so many that runs of them are packed: whole runs, a part of one at the end, runs that go on with the
# first channel of the next image, rows of two strips, sources and results of different sizes.
CUDA_EDGES = {
    "runs_7x7": Shape(1, 1024, 1, 7, 7, 3, 3, 7, 7, pad_top=1, pad_left=1),
    "runs_7x7_of_some_images": Shape(3, 349, 1, 7, 7, 5, 5, 7, 7, pad_top=2, pad_left=2),
    "runs_7x7_kernel_covers": Shape(2, 525, 1, 7, 7, 7, 7, 7, 7, pad_top=3, pad_left=3),
    "runs_7x7_more_padding_left": Shape(3, 683, 1, 7, 7, 3, 3, 7, 7, pad_top=1, pad_left=2),
    "runs_7x7_more_padding_above": Shape(3, 683, 1, 7, 7, 3, 3, 7, 7, pad_top=2, pad_left=1),
    "runs_7x7_to_7x6": Shape(3, 683, 1, 7, 7, 3, 3, 7, 6, pad_top=1, pad_left=1),
    "runs_14x14": Shape(3, 129, 1, 14, 14, 3, 3, 14, 14, pad_top=1, pad_left=1),
    "runs_14x14_kernel_7": Shape(1, 261, 1, 14, 14, 7, 7, 14, 14, pad_top=3, pad_left=3),
    "runs_14x14_stride_2": Shape(2, 523, 1, 14, 14, 3, 3, 7, 7, 2, 2, 1, 1, 1, 1),
    "runs_stride_2_of_5": Shape(3, 387, 1, 13, 15, 5, 5, 7, 8, 2, 2, 1, 1, 2, 2),
    "runs_stride_2_of_7": Shape(3, 690, 1, 7, 9, 7, 7, 4, 5, 2, 2, 1, 1, 3, 3),
    "runs_stride_2_of_3x5": Shape(3, 1029, 1, 3, 5, 3, 3, 2, 3, 2, 2, 1, 1, 1, 1),
    "runs_no_padding": Shape(2, 650, 1, 7, 9, 3, 3, 5, 7),
    "runs_all_padding_before": Shape(2, 650, 1, 6, 7, 5, 5, 6, 7, pad_top=4, pad_left=4),
    "runs_rows_past_the_sources": Shape(1, 1300, 1, 3, 7, 3, 3, 9, 7, pad_top=4, pad_left=1),
    # Planes of which a thread has a whole or a half: whole runs of 32 or 16, a part of one at the end, runs that go on
    # with the first channel of the next image, weights on and off the alignment of vectors, few channels.
    "planes_7x7": Shape(3, 700, 1, 7, 7, 3, 3, 7, 7, pad_top=1, pad_left=1),
    "planes_7x7_of_odd_channels": Shape(3, 683, 1, 7, 7, 5, 5, 7, 7, pad_top=2, pad_left=2),
    "planes_7x7_kernel_covers": Shape(65, 32, 1, 7, 7, 7, 7, 7, 7, pad_top=3, pad_left=3),
    "planes_14x14": Shape(2, 521, 1, 14, 14, 3, 3, 14, 14, pad_top=1, pad_left=1),
    "planes_14x14_of_few_channels": Shape(64, 16, 1, 14, 14, 5, 5, 14, 14, pad_top=2, pad_left=2),
    "planes_14x14_kernel_7": Shape(3, 348, 1, 14, 14, 7, 7, 14, 14, pad_top=3, pad_left=3),
    "planes_14x14_to_7x7": Shape(3, 700, 1, 14, 14, 3, 3, 7, 7, 2, 2, 1, 1, 1, 1),
    "planes_14x14_to_7x7_of_odd_channels": Shape(3, 683, 1, 14, 14, 5, 5, 7, 7, 2, 2, 1, 1, 2, 2),
    "planes_14x14_to_7x7_kernel_7": Shape(65, 32, 1, 14, 14, 7, 7, 7, 7, 2, 2, 1, 1, 3, 3),
    # Large kernels: one tile, several down and across, images that share a block, kernels that cover the plane, rows
    # and columns of taps whose number is no multiple of four, padding of every kind.
    "tiles_31": Shape(1, 2, 1, 56, 56, 31, 31, 56, 56, pad_top=15, pad_left=15),
    "tiles_27_of_14x14": Shape(5, 60, 1, 14, 14, 27, 27, 14, 14, pad_top=13, pad_left=13),
    "tiles_13_of_7x7": Shape(40, 17, 1, 7, 7, 13, 13, 7, 7, pad_top=6, pad_left=6),
    "tiles_9": Shape(3, 5, 1, 33, 75, 9, 9, 33, 75, pad_top=4, pad_left=4),
    "tiles_16_causal": Shape(1, 3, 1, 29, 37, 16, 16, 29, 37, pad_top=15, pad_left=15),
    "tiles_30x10_no_padding": Shape(2, 3, 1, 61, 83, 30, 10, 32, 74),
    "tiles_row": Shape(2, 3, 1, 10, 141, 1, 31, 10, 141, pad_left=15),
    "tiles_column": Shape(2, 3, 1, 141, 10, 31, 1, 141, 10, pad_top=15),
    "tiles_11x21_in_the_padding": Shape(1, 3, 1, 6, 5, 11, 21, 40, 70, pad_top=20, pad_left=44),
    "tiles_12_cropped": Shape(2, 3, 1, 40, 50, 12, 12, 9, 5, pad_top=2, pad_left=0),
    "tiles_17_rows_no_padding": Shape(1, 2, 1, 24, 5, 17, 3, 8, 3),
    # Three strips of rows and groups of columns (more than the 256 threads of a block), of which the last is not full;
    # sums divided between blocks.
    "k3s1_groups_of_columns": Shape(1, 1, 1, 15, 259, 3, 3, 15, 259, pad_top=1, pad_left=1),
    "k3s1_splits": Shape(2, 2, 1, 64, 65, 3, 3, 64, 65, pad_top=1, pad_left=1),
    # Both gradients at once: strips of 28, 28 and 5 rows, sums divided between blocks.
    "backward_splits": Shape(3, 2, 1, 61, 60, 5, 5, 61, 60, pad_top=2, pad_left=2),
    "backward_strips_of_single_columns": Shape(2, 2, 1, 57, 15, 3, 3, 57, 15, pad_top=1, pad_left=1),
}

# On tensor cores, which want rows of nine taps: each number of steps and of columns, a tile and more, images that share
# a block. They are small, since the emulator exchanges every operand between lanes.
CUDA_EDGES |= {
    "toeplitz_9": Shape(1, 1, 1, 9, 20, 9, 9, 9, 20, pad_top=4, pad_left=4),
    "toeplitz_13_of_7x7": Shape(2, 3, 1, 7, 7, 13, 13, 7, 7, pad_top=6, pad_left=6),
    "toeplitz_27x31": Shape(1, 1, 1, 20, 30, 27, 31, 20, 30, pad_top=13, pad_left=15),
    "toeplitz_12_cropped": Shape(2, 3, 1, 40, 50, 12, 12, 9, 5, pad_top=2),
    "toeplitz_25_wide": Shape(1, 1, 1, 20, 121, 3, 25, 20, 121, pad_top=1, pad_left=12),
    "toeplitz_26_of_images": Shape(4, 140, 1, 2, 3, 3, 26, 2, 3, pad_top=1, pad_left=13),
}

# channels_last: lanes with and without vectors, strips and packs that are not whole, padding of every kind, and borders
# whose weights are not finite.
CUDA_EDGES |= {
    "nhwc_k3s1": Shape(1, 36, 1, 9, 5, 3, 3, 9, 5, pad_top=1, pad_left=1),
    "nhwc_k3s1_of_odd_channels": Shape(2, 33, 1, 8, 9, 3, 3, 8, 9, pad_top=1, pad_left=1),
    "nhwc_k3s1_all_padding_before": Shape(1, 8, 1, 6, 7, 3, 3, 9, 10, pad_top=5, pad_left=4),
    "nhwc_k3s2": Shape(2, 36, 1, 19, 7, 3, 3, 10, 4, 2, 2, 1, 1, 1, 1),
    "nhwc_k3s2_tensorflow_same": Shape(1, 12, 1, 18, 8, 3, 3, 9, 4, 2, 2, 1, 1, 0, 0),
    "nhwc_k5s1": Shape(1, 34, 1, 8, 9, 5, 5, 8, 9, pad_top=2, pad_left=2),
    "nhwc_k5s2": Shape(1, 34, 1, 17, 6, 5, 5, 9, 3, 2, 2, 1, 1, 2, 2),
    "nhwc_k7s1": Shape(1, 10, 1, 8, 7, 7, 7, 8, 7, pad_top=3, pad_left=3),
    "nhwc_k7s1_cropped": Shape(1, 7, 1, 20, 12, 7, 7, 8, 5, pad_top=2, pad_left=1),
    "nhwc_k7s2": Shape(1, 10, 1, 16, 9, 7, 7, 8, 5, 2, 2, 1, 1, 3, 3),
}
