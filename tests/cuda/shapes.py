"""Shapes that only some CUDA kernels tell from others, beside those of tests/kernels/shapes.py.

The first word of a name is a part of the names of the kernels that must take the shape.
"""

from tests.kernels.shapes import Shape

# Small planes, so many that runs of them are packed: whole runs, a part of one at the end, runs that go on with the
# first channel of the next image, rows of two strips, sources and results of different sizes.
CUDA_EDGES = {
    "packed_7x7": Shape(1, 1024, 1, 7, 7, 3, 3, 7, 7, pad_top=1, pad_left=1),
    "packed_7x7_of_some_images": Shape(3, 349, 1, 7, 7, 5, 5, 7, 7, pad_top=2, pad_left=2),
    "packed_7x7_kernel_covers": Shape(2, 525, 1, 7, 7, 7, 7, 7, 7, pad_top=3, pad_left=3),
    "packed_14x14": Shape(3, 129, 1, 14, 14, 3, 3, 14, 14, pad_top=1, pad_left=1),
    "packed_14x14_kernel_7": Shape(1, 261, 1, 14, 14, 7, 7, 14, 14, pad_top=3, pad_left=3),
    "packed_14x14_stride_2": Shape(2, 523, 1, 14, 14, 3, 3, 7, 7, 2, 2, 1, 1, 1, 1),
    "packed_stride_2_of_5": Shape(3, 387, 1, 13, 15, 5, 5, 7, 8, 2, 2, 1, 1, 2, 2),
    "packed_stride_2_of_7": Shape(3, 690, 1, 7, 9, 7, 7, 4, 5, 2, 2, 1, 1, 3, 3),
    "packed_no_padding": Shape(2, 650, 1, 7, 9, 3, 3, 5, 7),
    "packed_all_padding_before": Shape(2, 650, 1, 6, 7, 5, 5, 6, 7, pad_top=4, pad_left=4),
    "packed_rows_past_the_sources": Shape(1, 1300, 1, 3, 7, 3, 3, 9, 7, pad_top=4, pad_left=1),
}
