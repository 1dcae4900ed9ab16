"""Shapes for the operations of blocks: dense convolutions, whose taps are all inside, what goes channel by channel,
BatchNorm, and pointwise convolutions in training.

``cases.py`` puts them among the cases of all kernels.
"""

import random

from tests.kernels.shapes import Shape, full


def dense(
    channels: int,
    outputs: int,
    height: int,
    width: int,
    kernel: tuple[int, int] = (1, 1),
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    batch: int = 1,
) -> Shape:
    """A dense convolution without padding, as large as its input allows."""
    sizes = zip((height, width), kernel, stride, dilation, strict=True)
    out = [full(size, k, s, d, 0, 0) for size, k, s, d in sizes]
    return Shape(batch, channels, outputs, height, width, *kernel, *out, *stride, *dilation)


def pixels(channels: int, height: int, width: int, batch: int = 1) -> Shape:
    """Images for layer_norm, channel_scale, channel_sum and BatchNorm."""
    return Shape(batch, channels, 1, height, width, 1, 1, height, width)


# Each a corner of the contract, named for test ids.
DENSE_EDGES = {
    "dense_single_number": dense(1, 1, 1, 1),
    "dense_empty_batch": dense(5, 6, 4, 4, batch=0),
    "dense_no_outputs": dense(5, 0, 4, 4),
    "dense_no_channels": dense(0, 5, 4, 4),
    "dense_no_rows": dense(5, 17, 0, 4),
    "dense_no_columns_3x3": Shape(2, 5, 17, 4, 2, 3, 3, 2, 0),
    "dense_one_pixel_of_many_channels": dense(1280, 1000, 1, 1),
    "dense_images_of_one_pixel": dense(33, 19, 1, 1, batch=23),
    "dense_first_layer": dense(3, 32, 33, 35, (3, 3), (2, 2)),
    "dense_first_layer_of_patches": dense(3, 96, 16, 24, (4, 4), (4, 4)),
    "dense_expand": dense(16, 96, 7, 14),
    "dense_project": dense(96, 24, 7, 14, batch=2),
    "dense_48_channels": dense(48, 64, 5, 9),
    "dense_64_channels_3x3": dense(64, 64, 6, 9, (3, 3)),
    "dense_160_channels": dense(160, 33, 7, 7),
    "dense_960_channels": dense(960, 49, 3, 7),
    "dense_chunks_of_taps_3x3": dense(97, 17, 4, 5, (3, 3)),
    "dense_odd_rows_of_taps": dense(3, 20, 4, 9, (2, 5)),
    "dense_2x5_strided": dense(7, 31, 9, 24, (2, 5), (3, 2)),
    "dense_1x1_strided": dense(19, 33, 9, 15, (1, 1), (2, 2)),
    "dense_1x1_strided_across": dense(8, 16, 5, 15, (1, 1), (1, 2), batch=2),
    "dense_1x1_strided_down": dense(8, 16, 5, 15, (1, 1), (2, 1), batch=2),
    "dense_1x1_cropped": Shape(2, 9, 17, 7, 8, 1, 1, 5, 6),
    "dense_3x3_cropped": Shape(2, 9, 17, 9, 11, 3, 3, 4, 5),
    "dense_dilated": dense(5, 18, 11, 13, (3, 3), (1, 1), (2, 3)),
    "dense_dilated_across": dense(3, 34, 4, 17, (2, 3), (1, 1), (1, 4)),
    "dense_dilated_down": dense(4, 34, 9, 7, (3, 2), (1, 1), (3, 1)),
    "dense_dilated_and_strided": dense(7, 17, 13, 22, (3, 3), (2, 3), (2, 3)),
    "dense_dilated_column": dense(3, 17, 9, 6, (3, 1), (1, 1), (2, 5)),
    "dense_kernel_is_input": dense(6, 40, 7, 7, (7, 7)),
    "dense_rows_end_inside_tiles": dense(17, 33, 5, 29, (3, 3)),
    "dense_blocks_of_pixels": dense(31, 17, 23, 31, batch=2),
    "dense_blocks_of_rows": dense(9, 17, 40, 11, (3, 3)),
    "dense_row_of_many_pixels": dense(4, 16, 1, 701),
    "dense_parts_of_panels": dense(24, 1000, 1, 3),
    "dense_many_images": dense(5, 7, 2, 3, batch=41),
}
CHANNELWISE_EDGES = {
    "pixels_single_number": pixels(1, 1, 1),
    "pixels_empty_batch": pixels(5, 3, 4, batch=0),
    "pixels_no_rows": pixels(5, 0, 4, batch=2),
    "pixels_no_channels": pixels(0, 3, 4),
    "pixels_one_channel": pixels(1, 5, 9, batch=2),
    "pixels_two_channels": pixels(2, 7, 9),
    "pixels_of_70_channels": pixels(70, 5, 7, batch=2),
    "pixels_one_of_768_channels": pixels(768, 1, 1),
    "pixels_one_each_of_many_images": pixels(37, 1, 1, batch=29),
    "pixels_of_vectors": pixels(96, 4, 8),
    "pixels_beyond_a_chunk_of_channels": pixels(1029, 2, 3),
    "pixels_of_thousands_of_channels": pixels(2500, 1, 5),
    "pixels_beyond_a_chunk_of_pixels": pixels(17, 23, 31),
    "pixels_of_a_plane": pixels(3, 56, 57),
    "pixels_of_a_block_of_channels": pixels(64, 3, 5, batch=2),
    "pixels_past_a_block_of_channels": pixels(65, 3, 5, batch=2),
}

# None is empty: no values have a mean, and the operators refuse them.
BATCH_NORM_EDGES = {
    "batch_norm_single_number": pixels(1, 1, 1),
    "batch_norm_two_numbers": pixels(1, 1, 2),
    "batch_norm_images_of_one_pixel": pixels(37, 1, 1, batch=9),
    "batch_norm_one_channel": pixels(1, 9, 11, batch=3),
    "batch_norm_three_channels": pixels(3, 5, 7, batch=2),
    "batch_norm_of_vectors": pixels(64, 4, 8, batch=2),
    "batch_norm_past_a_block_of_channels": pixels(65, 4, 4, batch=2),
    "batch_norm_a_row_past_a_run": pixels(33, 1, 17),
    "batch_norm_a_slot_of_rows": pixels(19, 8, 16),
    "batch_norm_a_row_past_a_slot": pixels(19, 1, 129),
    "batch_norm_many_slots": pixels(7, 23, 31, batch=3),
    "batch_norm_a_chunk_of_a_plane": pixels(5, 32, 32),
    "batch_norm_a_pixel_past_a_chunk": pixels(5, 25, 41),
    "batch_norm_chunks_of_a_plane": pixels(3, 56, 57),
    "batch_norm_groups_across_images": pixels(6, 3, 5, batch=3),
    "batch_norm_many_channels": pixels(960, 7, 7),
    "batch_norm_many_images": pixels(9, 3, 3, batch=70),
}

# Those of dense that are 1x1 with as many results as pixels, and where blocks, panels and planes end.
POINTWISE_EDGES = {
    "pointwise_single_number": dense(1, 1, 1, 1),
    "pointwise_empty_batch": dense(5, 6, 4, 4, batch=0),
    "pointwise_no_outputs": dense(5, 0, 4, 4),
    "pointwise_no_channels": dense(0, 5, 4, 4),
    "pointwise_no_rows": dense(5, 17, 0, 4),
    "pointwise_images_of_one_pixel": dense(33, 19, 1, 1, batch=23),
    "pointwise_images_of_a_few_pixels": dense(9, 35, 1, 3, batch=40),
    "pointwise_planes_of_49": dense(40, 21, 7, 7, batch=9),
    "pointwise_planes_of_196": dense(17, 33, 14, 14, batch=3),
    "pointwise_parts_of_a_plane": dense(5, 9, 29, 31, batch=2),
    "pointwise_a_pixel_past_a_vector": dense(3, 7, 1, 17, batch=3),
    "pointwise_many_images": dense(5, 7, 2, 3, batch=71),
    "pointwise_expand": dense(16, 96, 14, 14, batch=2),
    "pointwise_project": dense(96, 24, 14, 14, batch=2),
    "pointwise_chunks_of_channels": dense(577, 18, 3, 7, batch=2),
    "pointwise_chunks_of_outputs": dense(18, 577, 3, 7, batch=2),
    "pointwise_long_row": dense(4, 16, 1, 1801),
}


def size_near(rng: random.Random, largest: int) -> int:
    """Often a multiple of a panel or next to one, often small, or anything."""
    near = 16 * rng.randint(1, 5) + rng.choice([-1, 0, 1])
    return min(largest, rng.choice([near, rng.randint(1, 9), rng.randint(1, largest)]))


def random_dense(rng: random.Random) -> Shape:
    """1x1, small filters of both parities, first layers, strides, dilations; the input may have more than is seen."""
    kernel = rng.choice([(1, 1), (1, 1), (1, 1), (3, 3), (3, 3), (2, 5), (rng.randint(1, 5), rng.randint(1, 5))])
    stride = rng.choice([(1, 1), (1, 1), (2, 2), (rng.randint(1, 3), rng.randint(1, 3))])
    dilation = rng.choice([(1, 1), (1, 1), (2, 2), (rng.randint(1, 3), rng.randint(1, 4))])
    channels = rng.choice([size_near(rng, 70), size_near(rng, 70), 3, 160, 320])
    out = rng.choice([(1, rng.randint(1, 40)), (rng.randint(1, 9), rng.randint(1, 40))])
    more = [rng.choice([0, 0, 0, rng.randint(0, s - 1), rng.randint(0, 4)]) for s in stride]
    seen = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, stride, kernel, dilation, strict=True)]
    rows, columns = (a + b for a, b in zip(seen, more, strict=True))
    batch, outputs = rng.choice([1, 1, 2, 3]), size_near(rng, 90)
    return Shape(batch, channels, outputs, rows, columns, *kernel, *out, *stride, *dilation)


def random_pointwise(rng: random.Random) -> Shape:
    """Planes of all sizes, images of few pixels among them; many channels on one side, on both, on neither."""
    sides = rng.choice([(rng.randint(1, 9), rng.randint(1, 9)), (rng.randint(1, 9), rng.randint(1, 40)), (7, 7)])
    channels, outputs = (rng.choice([rng.randint(1, 9), size_near(rng, 90), rng.randint(1, 400)]) for _ in range(2))
    return dense(channels, outputs, *sides, batch=rng.choice([1, 2, 3, rng.randint(1, 20)]))


def random_pixels(rng: random.Random) -> Shape:
    channels = rng.choice([rng.randint(1, 70), size_near(rng, 90), rng.randint(1, 1500)])
    return pixels(channels, rng.randint(1, 9), rng.randint(1, 40), rng.choice([1, 1, 2, 3]))


def random_batch_norm(rng: random.Random) -> Shape:
    """Planes that end inside vectors, past chunks, and slots of rows that do."""
    sides = rng.choice([(rng.randint(1, 9), rng.randint(1, 9)), (rng.randint(1, 9), rng.randint(1, 40)), (33, 35)])
    channels = rng.choice([rng.randint(1, 9), size_near(rng, 90), rng.randint(1, 300)])
    return pixels(channels, *sides, rng.choice([1, 2, 3, rng.randint(1, 20)]))
