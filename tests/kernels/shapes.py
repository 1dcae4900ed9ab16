"""The shapes that kernels are tested on: real layers and hand-picked edges; ``cases.py`` adds random ones.

``TORCH_DWCONV_TEST_SEED`` (default 0) seeds everything random in this folder. Failures name the seed.
"""

import os
from typing import NamedTuple

from tests.layers import Layer

SEED = int(os.environ.get("TORCH_DWCONV_TEST_SEED", "0"))


class Shape(NamedTuple):
    """The fields of ``struct Shape`` (csrc/shape.h), in its order. str() is what a failure shows, and can be pasted."""

    N: int
    C: int
    M: int
    H: int
    W: int
    KH: int
    KW: int
    OH: int
    OW: int
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    pad_top: int = 0
    pad_left: int = 0

    @property
    def out_channels(self) -> int:
        return self.C * self.M

    @property
    def work(self) -> int:
        """Multiply-adds, taps outside the input included."""
        return self.N * self.out_channels * self.OH * self.OW * self.KH * self.KW

    @property
    def reach(self) -> tuple[int, int]:
        """(rows, columns) that the padded input must have for the output: padding before, input, padding after."""
        return (
            (self.OH - 1) * self.stride_h + (self.KH - 1) * self.dilation_h + 1,
            (self.OW - 1) * self.stride_w + (self.KW - 1) * self.dilation_w + 1,
        )

    def image(self, channels: int, height: int, width: int, layout: str) -> tuple[int, int, int, int]:
        """Sizes of a dense array of images as it lies in memory."""
        return (self.N, channels, height, width) if layout == "nchw" else (self.N, height, width, channels)

    def results(self, operation: str, layout: str, with_bias: bool) -> dict[str, tuple[int, ...]]:
        """Sizes in memory of what an operation writes."""
        if operation in ("dense", "pointwise"):
            return {"result": self.image(self.M, self.OH, self.OW, layout)}
        if operation in ("layer_norm", "channel_scale", "pointwise_grad_input"):
            return {"result": self.image(self.C, self.H, self.W, layout)}
        if operation == "pointwise_grad_weight":
            return {"result": (self.M, self.C)}
        if operation == "channel_sum":
            return {"result": (self.N, self.C)}
        if operation.startswith("batch_norm"):
            result = {"result": self.image(self.C, self.H, self.W, layout)}
            beside = {"batch_norm": ("mean", "variance"), "batch_norm_eval": ()}
            others = beside.get(operation, ("grad_weight", "grad_bias") if with_bias else ())
            return result | {name: (self.C,) for name in others}
        if operation == "forward":
            return {"result": self.image(self.out_channels, self.OH, self.OW, layout)}
        if operation == "grad_input":
            return {"result": self.image(self.C, self.H, self.W, layout)}
        grad_bias = {"grad_bias": (self.out_channels,)} if with_bias else {}
        weight = (self.out_channels, self.KH, self.KW)
        if operation == "grad_weight":
            return {"result": weight, **grad_bias}
        return {"result": self.image(self.C, self.H, self.W, layout), "grad_weight": weight, **grad_bias}

    def __str__(self) -> str:
        return f"Shape({', '.join(f'{field}={value}' for field, value in self._asdict().items())})"


def full(height: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Output size of one dimension by nn.Conv2d's formula."""
    return (height + before + after - (kernel - 1) * dilation - 1) // stride + 1


def from_layer(layer: Layer, batch: int) -> Shape:
    """A layer of layers.csv with its usual padding."""
    return Shape(
        batch, layer.channels, layer.multiplier, layer.height, layer.width, layer.kernel_h, layer.kernel_w,
        *layer.output_size, layer.stride_h, layer.stride_w, layer.dilation_h, layer.dilation_w, *layer.padding,
    )  # fmt: skip


# Each a corner of the contract, named for test ids.
EDGES = {
    "single_number": Shape(1, 1, 1, 1, 1, 1, 1, 1, 1),
    "empty_batch": Shape(0, 5, 2, 6, 7, 3, 3, 6, 7, pad_top=1, pad_left=1),
    "no_channels": Shape(2, 0, 1, 6, 7, 3, 3, 6, 7, pad_top=1, pad_left=1),
    "no_output_channels": Shape(2, 5, 0, 6, 7, 3, 3, 6, 7, pad_top=1, pad_left=1),
    "no_input_rows": Shape(2, 5, 1, 0, 7, 3, 3, 2, 7, pad_top=2, pad_left=1),
    "no_input_columns": Shape(2, 5, 1, 4, 0, 3, 3, 4, 2, pad_top=1, pad_left=2),
    "no_output_rows": Shape(2, 5, 1, 6, 7, 3, 3, 0, 7, pad_left=1),
    "no_output_columns": Shape(2, 5, 1, 6, 7, 3, 3, 6, 0, pad_top=1),
    # The same with planes small enough, and channels enough, for the kernels that want those.
    "empty_batch_small": Shape(0, 32, 1, 4, 4, 3, 3, 4, 4, pad_top=1, pad_left=1),
    "no_output_channels_small": Shape(2, 32, 0, 4, 4, 3, 3, 4, 4, pad_top=1, pad_left=1),
    "no_input_rows_small": Shape(2, 32, 1, 0, 4, 3, 3, 2, 4, pad_top=2, pad_left=1),
    "no_input_columns_small": Shape(2, 32, 1, 4, 0, 3, 3, 4, 2, pad_top=1, pad_left=2),
    "no_output_rows_small": Shape(2, 32, 1, 4, 4, 3, 3, 0, 4, pad_left=1),
    "no_output_columns_small": Shape(2, 32, 1, 4, 4, 3, 3, 4, 0, pad_top=1),
    "one_channel": Shape(2, 1, 1, 19, 35, 3, 3, 19, 35, pad_top=1, pad_left=1),
    "one_channel_multiplied": Shape(2, 1, 17, 9, 10, 3, 3, 9, 10, pad_top=1, pad_left=1),
    "one_row": Shape(2, 7, 1, 1, 33, 1, 5, 1, 33, pad_left=2),
    "one_row_square_kernel": Shape(1, 18, 1, 1, 20, 5, 5, 1, 20, pad_top=2, pad_left=2),
    "one_column": Shape(2, 7, 1, 33, 1, 5, 1, 33, 1, pad_top=2),
    "one_pixel": Shape(2, 33, 1, 1, 1, 3, 3, 1, 1, pad_top=1, pad_left=1),
    "one_pixel_of_padding_each": Shape(1, 4, 1, 1, 1, 3, 3, 3, 3, pad_top=2, pad_left=2),
    "output_in_padding_only": Shape(1, 9, 1, 4, 4, 3, 3, 2, 2, pad_top=9, pad_left=9),
    "output_past_the_input_only": Shape(2, 3, 1, 2, 3, 2, 2, 3, 3, stride_h=5, stride_w=5, pad_top=1, pad_left=1),
    "pad_wider_than_kernel": Shape(1, 6, 1, 5, 6, 3, 3, 15, 17, pad_top=5, pad_left=6),
    "far_past_bottom_right": Shape(1, 6, 1, 5, 6, 3, 3, 21, 40, pad_top=1, pad_left=1),
    "output_cropped": Shape(1, 6, 1, 20, 40, 3, 3, 4, 7, pad_top=1, pad_left=1),
    "output_cropped_stride_2": Shape(1, 6, 1, 20, 40, 3, 3, 4, 17, stride_h=2, stride_w=2),
    "causal": Shape(2, 5, 1, 6, 37, 3, 4, 6, 37, pad_top=2, pad_left=3),
    "tensorflow_same_stride_2": Shape(1, 20, 1, 14, 14, 3, 3, 7, 7, stride_h=2, stride_w=2),
    "stride_wider_than_kernel": Shape(1, 17, 1, 19, 38, 2, 2, 5, 10, stride_h=4, stride_w=4),
    "stride_2_kernel_1": Shape(1, 17, 1, 15, 34, 1, 1, 8, 17, stride_h=2, stride_w=2),
    "stride_2_odd_pads": Shape(1, 16, 1, 17, 35, 5, 5, 9, 18, stride_h=2, stride_w=2, pad_top=3, pad_left=1),
    # What takes strides of two apart in registers: half a vector of results and a bit more, rows in bands,
    # more strips and tiles than are kept.
    "stride_2_pairs_of_planes": Shape(1, 7, 1, 14, 14, 5, 5, 7, 7, 2, 2, 1, 1, 2, 2),
    "stride_2_pairs_padding_after_only": Shape(3, 5, 1, 15, 15, 3, 3, 7, 7, 2, 2),
    "stride_2_two_rows_in_one": Shape(2, 5, 1, 14, 14, 3, 3, 7, 7, 2, 2, 1, 1, 1, 1),
    "stride_2_two_rows_in_one_of_15": Shape(1, 3, 1, 17, 15, 5, 5, 9, 8, 2, 2, 1, 1, 2, 2),
    "stride_2_two_columns_many_tiles": Shape(1, 64, 1, 231, 4, 3, 3, 116, 2, 2, 2, 1, 1, 1, 1),
    "stride_2_tiles_of_many_strips": Shape(1, 2, 1, 17, 601, 3, 3, 9, 301, 2, 2, 1, 1, 1, 1),
    "stride_2_of_5_two_strips": Shape(2, 3, 1, 29, 53, 5, 5, 15, 27, 2, 2, 1, 1, 2, 2),
    "stride_2_odd_rows_and_columns": Shape(2, 3, 1, 13, 13, 3, 3, 7, 7, 2, 2, 1, 1, 1, 1),
    "stride_2_two_rows_of_sources_fill": Shape(1, 3, 1, 31, 15, 3, 3, 16, 8, 2, 2, 1, 1, 1, 1),
    "stride_2_vector_exactly": Shape(1, 5, 1, 16, 16, 3, 3, 8, 8, 2, 2, 1, 1, 1, 1),
    "stride_2_far_padding": Shape(1, 5, 1, 5, 6, 3, 3, 10, 13, 2, 2, 1, 1, 7, 9),
    "stride_2_one_odd_pad": Shape(1, 5, 1, 13, 35, 3, 3, 7, 18, 2, 2, 1, 1, 0, 1),
    "stride_2_in_bands": Shape(1, 3, 1, 83, 41, 3, 3, 42, 21, 2, 2, 1, 1, 1, 1),
    "stride_2_of_5_in_bands": Shape(1, 2, 1, 75, 83, 5, 5, 38, 42, 2, 2, 1, 1, 1, 1),
    "stride_only_down": Shape(1, 5, 1, 21, 33, 3, 3, 7, 33, stride_h=3, pad_top=1, pad_left=1),
    "stride_only_across": Shape(1, 5, 1, 11, 67, 3, 3, 11, 34, stride_w=2, pad_top=1, pad_left=1),
    "even_kernel": Shape(1, 12, 1, 13, 21, 4, 2, 12, 20, pad_top=1),
    "dilation_past_the_input": Shape(1, 3, 1, 5, 5, 3, 3, 5, 5, dilation_h=7, dilation_w=7, pad_top=7, pad_left=7),
    "dilation_and_stride": Shape(
        1, 5, 1, 18, 35, 3, 3, 9, 12, stride_h=2, stride_w=3, dilation_h=3, dilation_w=2, pad_top=3, pad_left=2
    ),
    "kernel_covers_input": Shape(1, 33, 1, 7, 7, 13, 13, 7, 7, pad_top=6, pad_left=6),
    "kernel_covers_vectors_of_channels": Shape(1, 32, 1, 7, 9, 13, 13, 7, 9, pad_top=6, pad_left=6),
    "long_rows_of_taps": Shape(2, 32, 1, 3, 30, 2, 17, 4, 32, pad_top=1, pad_left=9),
    "kernel_far_larger": Shape(1, 3, 1, 3, 3, 31, 31, 3, 3, pad_top=15, pad_left=15),
    "kernel_of_hundreds": Shape(2, 17, 1, 11, 20, 21, 25, 11, 20, pad_top=10, pad_left=12),
    "kernel_is_input": Shape(1, 37, 1, 7, 7, 7, 7, 1, 1),
    "one_output_of_many": Shape(1, 5, 1, 40, 40, 3, 3, 1, 1),
    # Channels enough for the kernels that want a whole vector of them, and geometry that their tiles treat apart.
    "padding_after_only": Shape(1, 35, 1, 15, 16, 3, 3, 15, 16),
    "causal_of_many_channels": Shape(2, 37, 1, 9, 23, 3, 3, 9, 23, pad_top=2, pad_left=2),
    "padding_beyond_the_middle_tap": Shape(1, 33, 1, 9, 12, 5, 5, 13, 15, pad_top=4, pad_left=4),
    "one_row_of_many_channels": Shape(1, 40, 1, 1, 9, 3, 3, 1, 9, pad_top=1, pad_left=1),
    "row_kernel": Shape(1, 24, 1, 9, 19, 1, 11, 9, 19, pad_left=5),
    "column_kernel": Shape(1, 24, 1, 19, 9, 11, 1, 19, 9, pad_top=5),
    "kernel_7_stride_2": Shape(1, 32, 1, 15, 29, 7, 7, 8, 15, 2, 2, 1, 1, 3, 3),
    "even_kernel_of_many_channels": Shape(1, 33, 1, 13, 21, 4, 6, 12, 20, pad_top=1, pad_left=2),
    "stride_3": Shape(1, 33, 1, 22, 40, 3, 3, 8, 14, 3, 3, 1, 1, 1, 1),
    "stride_3_of_a_wide_kernel": Shape(1, 17, 1, 3, 80, 1, 33, 3, 27, stride_w=3, pad_left=16),
    "dilation_leaves_few": Shape(1, 32, 1, 13, 20, 3, 3, 13, 20, dilation_h=6, dilation_w=6, pad_top=6, pad_left=6),
    # Planes read as one long row, in chains of results one dilation apart.
    "dilated": Shape(2, 3, 1, 33, 33, 3, 3, 33, 33, dilation_h=6, dilation_w=6, pad_top=6, pad_left=6),
    "dilated_chain_of_one": Shape(1, 5, 1, 11, 13, 3, 3, 10, 13, dilation_h=12, dilation_w=5, pad_top=12, pad_left=5),
    "dilated_chain_of_two": Shape(1, 5, 1, 17, 9, 3, 3, 18, 9, dilation_h=9, dilation_w=2, pad_top=10, pad_left=2),
    "dilated_chain_of_four": Shape(1, 5, 1, 14, 21, 3, 3, 13, 21, dilation_h=4, dilation_w=3, pad_top=3, pad_left=4),
    "dilated_down_only": Shape(1, 3, 1, 40, 23, 3, 3, 37, 23, dilation_h=3, pad_top=1, pad_left=1),
    "dilated_across_only": Shape(1, 3, 1, 17, 35, 3, 3, 17, 35, dilation_w=8, pad_top=1, pad_left=8),
    "dilated_causal": Shape(1, 3, 1, 25, 18, 3, 3, 25, 18, 1, 1, 2, 2, 4, 4),
    "dilated_far_padding": Shape(1, 3, 1, 6, 20, 3, 3, 30, 20, 1, 1, 2, 2, 14, 2),
    "dilated_no_input_rows": Shape(2, 5, 1, 0, 10, 3, 3, 9, 10, dilation_h=2, dilation_w=2, pad_top=6, pad_left=2),
    "dilated_large_plane": Shape(1, 1, 1, 70, 150, 3, 3, 70, 150, 1, 1, 30, 30, 30, 30),
    "dilation_7_both_ways": Shape(1, 32, 1, 15, 30, 3, 3, 15, 30, dilation_h=7, dilation_w=7, pad_top=7, pad_left=7),
    "dilation_3_stride_2": Shape(1, 24, 1, 21, 22, 3, 3, 11, 11, 2, 2, 3, 3, 3, 3),
    # More than the scratch of the NCHW kernels holds of one kernel's rows, and of a few rows.
    "kernel_beyond_scratch": Shape(1, 2, 1, 3, 20001, 1, 2, 3, 1, dilation_w=20000),
    "row_beyond_scratch": Shape(1, 1, 1, 4, 9001, 3, 3, 4, 9001, pad_top=1, pad_left=1),
    "row_beyond_scratch_stride_2": Shape(
        1, 1, 1, 5, 9001, 3, 3, 3, 4501, stride_h=2, stride_w=2, pad_top=1, pad_left=1
    ),
    "one_row_on_half_a_vector": Shape(3, 5, 1, 1, 7, 3, 3, 1, 7, pad_top=1, pad_left=1),
    # Planes of 7 to 16 rows that fit into vectors, whole or two rows in one, with padding of every kind.
    "two_rows_in_one": Shape(2, 5, 1, 7, 7, 3, 3, 7, 7, pad_top=1, pad_left=1),
    "two_rows_in_one_causal": Shape(1, 5, 1, 8, 5, 5, 5, 8, 5, pad_top=4),
    "two_rows_in_one_padding_after": Shape(1, 5, 1, 7, 8, 5, 5, 7, 8),
    "two_rows_in_one_kernel_7": Shape(1, 3, 1, 7, 7, 7, 7, 7, 7, pad_top=3, pad_left=3),
    "two_rows_in_one_cropped": Shape(1, 3, 1, 11, 7, 3, 3, 7, 7, pad_top=1, pad_left=2),
    "two_rows_of_4": Shape(2, 20, 1, 8, 4, 3, 3, 8, 4, pad_top=1, pad_left=1),
    "fourteen_rows": Shape(2, 5, 1, 14, 14, 3, 3, 14, 14, pad_top=1, pad_left=1),
    "fourteen_rows_no_padding": Shape(1, 3, 1, 18, 18, 5, 5, 14, 14),
    "ten_rows": Shape(1, 4, 1, 10, 12, 7, 7, 10, 12, pad_top=3, pad_left=3),
    "sixteen_rows": Shape(1, 3, 1, 16, 16, 5, 5, 16, 16, pad_top=2, pad_left=2),
    "eight_rows_of_8": Shape(1, 3, 1, 8, 8, 5, 5, 8, 8, pad_top=2, pad_left=1),
    "more_rows_than_sources": Shape(1, 3, 1, 9, 9, 7, 7, 15, 15, pad_top=6, pad_left=6),
    "rows_of_nothing_but_padding": Shape(1, 3, 1, 5, 12, 3, 3, 13, 14, pad_top=4, pad_left=5),
    "no_input_rows_of_nine": Shape(2, 5, 1, 0, 10, 3, 3, 9, 10, pad_top=1, pad_left=1),
    # Small planes of many channels: whole vectors of them and a part of one, in blocks and in one.
    "planes_of_100_channels": Shape(3, 100, 1, 7, 7, 3, 3, 7, 7, pad_top=1, pad_left=1),
    "planes_below_a_vector": Shape(2, 50, 1, 3, 4, 3, 3, 3, 4, pad_top=1, pad_left=1),
    "planes_of_14_below_the_kernel": Shape(1, 37, 1, 14, 14, 27, 27, 14, 14, pad_top=13, pad_left=13),
    "planes_at_stride_2": Shape(2, 35, 1, 13, 12, 3, 3, 7, 6, 2, 2, 1, 1, 1, 1),
    "planes_multiplied": Shape(2, 11, 3, 7, 8, 5, 3, 7, 8, pad_top=2, pad_left=1),
    "planes_dilated": Shape(1, 33, 1, 9, 10, 3, 2, 9, 10, 1, 1, 2, 3, 2, 1),
    "wide_row": Shape(1, 2, 1, 3, 1031, 3, 3, 3, 1031, pad_top=1, pad_left=1),
    "wide_rows_of_channels": Shape(1, 21, 1, 3, 1031, 3, 5, 3, 1031, pad_top=1, pad_left=2),
    "wide_rows_stride_2": Shape(1, 16, 1, 4, 701, 3, 3, 2, 351, stride_h=2, stride_w=2, pad_top=1, pad_left=1),
    # 3x3 of grad_weight: bands of rows and chunks of bands, strips of nothing but padding, taps that few results meet.
    "bands_of_3x3": Shape(2, 19, 1, 40, 23, 3, 3, 40, 23, pad_top=1, pad_left=1),
    "bands_of_3x3_stride_2": Shape(1, 35, 1, 61, 47, 3, 3, 31, 24, 2, 2, 1, 1, 1, 1),
    "bands_of_3x3_multiplied": Shape(2, 7, 3, 29, 28, 3, 3, 29, 28, pad_top=1, pad_left=1),
    "strips_in_the_padding": Shape(1, 3, 1, 9, 20, 3, 3, 9, 60, pad_top=1, pad_left=20),
    "strips_in_the_padding_stride_2": Shape(1, 3, 1, 10, 40, 3, 3, 5, 70, 2, 2, 1, 1, 1, 40),
    "strips_of_a_long_plane": Shape(1, 2, 1, 67, 130, 3, 3, 67, 130, pad_top=1, pad_left=1),
    "strips_of_a_long_plane_stride_2": Shape(1, 2, 1, 35, 331, 3, 3, 18, 166, 2, 2, 1, 1, 1, 1),
    "dilation_past_many_channels": Shape(1, 20, 1, 5, 6, 3, 3, 5, 6, 1, 1, 7, 4, 7, 4),
    "dilation_of_rows_only": Shape(1, 33, 1, 19, 11, 3, 3, 19, 11, dilation_h=5, pad_top=5, pad_left=1),
    "dilation_half_outside": Shape(2, 17, 1, 15, 14, 3, 3, 8, 20, 2, 1, 9, 8, 3, 17),
    "column_kernel_stride_2": Shape(1, 18, 1, 31, 12, 9, 2, 16, 11, 2, 1, 1, 1, 4, 0),
    "wide_dilation": Shape(1, 18, 1, 3, 601, 2, 3, 2, 601, dilation_w=190, pad_left=190),
    "stride_3_and_dilation_2": Shape(2, 19, 1, 17, 23, 3, 3, 6, 8, 3, 3, 2, 2, 2, 2),
    # What kernels refuse, by little: strides, dilations and sides that are not alike, more rows than fit.
    "planes_stride_only_down": Shape(1, 37, 1, 28, 14, 3, 3, 14, 14, stride_h=2, pad_top=1, pad_left=1),
    "planes_stride_only_across": Shape(1, 37, 1, 14, 28, 3, 3, 14, 14, stride_w=2, pad_top=1, pad_left=1),
    "planes_dilation_only_down": Shape(1, 19, 1, 14, 14, 5, 5, 14, 14, dilation_h=2, pad_top=4, pad_left=2),
    "planes_dilation_only_across": Shape(1, 19, 1, 14, 14, 5, 5, 14, 14, dilation_w=2, pad_top=2, pad_left=4),
    "planes_of_3x5_taps": Shape(1, 37, 1, 14, 14, 3, 5, 14, 14, pad_top=1, pad_left=2),
    "planes_of_5x3_taps": Shape(1, 37, 1, 14, 14, 5, 3, 14, 14, pad_top=2, pad_left=1),
    "tall_planes_of_half_a_vector": Shape(1, 3, 1, 300, 4, 3, 3, 300, 4, pad_top=1, pad_left=1),
    "multiplied_beyond_a_vector": Shape(1, 5, 19, 5, 7, 3, 3, 5, 7, pad_top=1, pad_left=1),
    "tall_column": Shape(1, 2, 1, 1031, 3, 3, 3, 1031, 3, pad_top=1, pad_left=1),
    "many_channels": Shape(1, 1029, 1, 2, 2, 3, 3, 2, 2, pad_top=1, pad_left=1),
    "many_images": Shape(67, 3, 1, 4, 5, 3, 3, 4, 5, pad_top=1, pad_left=1),
}
