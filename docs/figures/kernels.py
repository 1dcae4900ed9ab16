"""Figures of the methods of single kernels."""

from arithmetic import reads
from picture import GREY, LIGHT, PALE, TAPS, WHITE, Picture


def lanes() -> Picture:
    """The 16 lanes of an AVX-512 vector of float32 on 7x7 planes, as three kernels fill them."""
    picture = Picture(860, 236, "Lanes of a vector on a 7x7 plane")
    rows = (
        ("rows", [("a row of the plane", LIGHT[0], 7), ("empty", WHITE, 9)]),
        ("planes", [("row 0", LIGHT[0], 7), ("row 1 of the same plane", LIGHT[3], 7), ("", WHITE, 2)]),
        ("transposed", [("the same pixel of 16 channels", LIGHT[2], 16)]),
    )
    for number, (name, parts) in enumerate(rows):
        y, x, cell = 16 + 76 * number, 130, 40
        picture.text(x - 12, y + cell / 2, name, 13, "end", mono=True)
        for words, colour, count in parts:
            for _ in range(count):
                picture.cell(x, y, cell, "", colour, GREY if colour == WHITE else "#222222")
                x += cell
            picture.text(x - count * cell / 2, y + cell + 12, words, 11)
    return picture


def strips() -> Picture:
    """How `rows` covers a plane of 28 rows and 56 columns: strips of two vectors, tiles of seven rows, bands."""
    picture = Picture(860, 290, "Strips, tiles and bands of a plane of 28x56")
    left, top, unit, lanes, height, width = 130, 34, 8, 16, 28, 56
    for first in range(0, width, 2 * lanes):
        last = min(first + 2 * lanes, width)
        for row in range(0, height, 7):
            colour = LIGHT[0] if first == 0 else LIGHT[3]
            shade = colour if row == 7 and first == 0 else PALE
            picture.rectangle(left + first * unit, top + row * unit, (last - first) * unit, 7 * unit, shade, GREY)
        for column in range(first + lanes, last, lanes):
            picture.line(left + column * unit, top, left + column * unit, top + height * unit, GREY, 0.8, True)
        picture.frame(left + first * unit, top, (last - first) * unit, height * unit, thick=1.4)
        words = f"strip {first // (2 * lanes)}: columns {first} to {last - 1}"
        picture.text(left + (first + last) / 2 * unit, top - 14, words, 11)
    picture.text(left + 16 * unit, top + 10.5 * unit, "a tile: 7 rows of two vectors,\n14 sums in registers", 11)
    for band in range(2):
        y = top + 14 * band * unit
        picture.line(left - 10, y + 3, left - 10, y + 14 * unit - 3, "#222222", 2)
        picture.text(left - 18, y + 7 * unit, f"band {band}:\n14 rows", 11, "end")
    right = left + width * unit + 18
    picture.text(right, top + 14 * unit, "the lanes from column 56 on\nare masked", 11, "start")
    picture.text(
        left + 28 * unit, top + height * unit + 18, "the tile walks down a strip; then comes the next strip", 11
    )
    return picture


def nhwc_tile() -> Picture:
    """A tile of `tiles`: two rows of seven results, 3x3 at stride 1. A source row is loaded once and used by both."""
    picture = Picture(860, 230, "A tile of two rows of seven pixels, 3x3 at stride 1")
    cell, top = 26, 44
    picture.text(40 + 4.5 * cell, 20, "sources: 4 rows of 9 pixels")
    picture.text(420 + 3.5 * cell, 20, "results: 2 rows of 7 pixels")
    met = {(source, result): tap for result, source, tap in reads(False, 2, 4, 3, 1, 1, 0)}
    for source in range(4):
        y = top + source * (cell + 12)
        for column in range(9):
            picture.cell(40 + column * cell, y, cell, "", PALE)
        picture.text(34, y + cell / 2, source, 11, "end")
        for result in range(2):
            if (source, result) not in met:
                continue
            tap = met[source, result]
            end = top + 40 + result * 70 + cell / 2
            picture.line(40 + 9 * cell + 2, y + cell / 2, 416, end, TAPS[tap], 2.2)
    for result in range(2):
        for column in range(7):
            picture.cell(420 + column * cell, top + 40 + result * 70, cell, "", LIGHT[6])
        picture.text(428 + 7 * cell, top + 53 + result * 70, f"row {result}", 11, "start")
    for tap in range(3):
        picture.line(690, 90 + 26 * tap, 716, 90 + 26 * tap, TAPS[tap], 3)
        picture.text(724, 90 + 26 * tap, f"tap row {tap}", 12, "start")
    picture.text(
        340, top + 4 * 38 + 14, "each pixel is one vector of channels; 14 sums and 3 or 6 taps stay in registers", 11
    )
    return picture


def phases() -> Picture:
    """Stride 2 in one row, 3 taps: taps meet the sources first, one permutation a tap then brings results together."""
    picture = Picture(860, 300, "Stride 2: taps first, columns apart afterwards")
    cell, left, count = 34, 150, 16
    labels = (
        "sources",
        "slot 0: \N{MULTIPLICATION SIGN} taps 0, 1",
        "slot 1: \N{MULTIPLICATION SIGN} tap 2",
        "results",
    )
    heights = (20, 76, 132, 236)
    for y, label in zip(heights, labels, strict=True):
        picture.text(left - 10, y + cell / 2, label, 11, "end")
    for result, source, tap in reads(False, 7, count, 3, 2, 1, 0):
        x = left + (2 * result + 0.5) * cell
        y = heights[1] if tap < 2 else heights[2]
        picture.line(left + (source + 0.5) * cell, y + cell, x + cell / 2, heights[3], TAPS[tap], 1.4)
    for column in range(count):
        x = left + column * cell
        picture.cell(x, heights[0], cell, column, PALE)
        picture.cell(x, heights[1], cell, f"{column}\N{MULTIPLICATION SIGN}w{column % 2}", LIGHT[column % 2], text=9)
        even = column % 2 == 0
        picture.cell(
            x,
            heights[2],
            cell,
            f"{column}\N{MULTIPLICATION SIGN}w2" if even else "",
            LIGHT[2] if even else WHITE,
            text=9,
        )
    for result in range(7):
        picture.cell(left + (2 * result + 0.5) * cell, heights[3], cell, result, LIGHT[6])
    picture.text(430, 288, "result r is the sum of lanes 2r and 2r + 1 of slot 0 and lane 2r + 2 of slot 1", 11)
    return picture


def parities() -> Picture:
    """grad_input at stride 2, 3x3, padding 1: each parity of a result has taps of its own."""
    picture = Picture(860, 250, "grad_input at stride 2: four parities")
    along: dict[int, set[int]] = {0: set(), 1: set()}
    for result, _, tap in reads(True, 8, 4, 3, 2, 1, 1):
        along[result % 2].add(tap)
    names = ("even", "odd")
    cell = 30
    for row in (0, 1):
        for column in (0, 1):
            colour = LIGHT[2 * row + column]
            left, top = 40 + 240 * column, 40 + 108 * row
            picture.text(left, top - 12, f"{names[row]} row, {names[column]} column", 11, "start")
            for kh in range(3):
                for kw in range(3):
                    used = kh in along[row] and kw in along[column]
                    picture.cell(left + kw * 24, top + kh * 24, 24, "", colour if used else WHITE)
            taps = len(along[row]) * len(along[column])
            picture.text(left + 100, top + 36, f"{taps} tap" + "s" * (taps > 1), 11, "start")
    picture.text(690, 28, "results, interleaved as they are stored", 11)
    for row in range(6):
        for column in range(8):
            picture.cell(570 + column * cell, 44 + row * cell, cell, "", LIGHT[2 * (row % 2) + column % 2])
    return picture


def chains() -> Picture:
    """3x3 with a dilation of 2: the results of a chain lie one dilation apart, and share their sources."""
    picture = Picture(860, 330, "Chains of a dilated 3x3")
    cell, top = 26, 40
    picture.text(140, 18, "rows of a plane, dilation 2")
    for row in range(10):
        picture.cell(40, top + row * cell, cell, row, LIGHT[row % 2])
        picture.rectangle(40 + cell, top + row * cell, 180, cell, LIGHT[row % 2])
    picture.text(246 + 10, top + 2.5 * cell, "chain 0:\neven rows", 11, "start")
    picture.text(246 + 10, top + 6.5 * cell, "chain 1:\nodd rows", 11, "start")
    picture.text(600, 18, "a segment of chain 0: three results and the rows that they read")
    for result, source, tap in reads(False, 10, 10, 3, 1, 2, 2):
        if result in (2, 4, 6):
            ends = (top + 18 + (source / 2) * 46 + 13, top + 18 + (result / 2) * 46 + 13)
            picture.line(540, ends[0], 660, ends[1], TAPS[tap], 2)
    for index in range(5):
        y = top + 18 + index * 46
        picture.rectangle(420, y, 120, cell, PALE)
        picture.text(480, y + 13, f"source row {2 * index}", 11)
        if 1 <= index <= 3:
            picture.rectangle(660, y, 120, cell, LIGHT[0])
            picture.text(720, y + 13, f"result row {2 * index}", 11)
    for tap in range(3):
        picture.line(480 + 100 * tap, 312, 506 + 100 * tap, 312, TAPS[tap], 3)
        picture.text(514 + 100 * tap, 312, f"tap row {tap}", 11, "start")
    return picture


def long_row() -> Picture:
    """A plane with rows of ten as one long row: a vector of eight lanes runs over the end of a row."""
    picture = Picture(860, 170, "A plane as one long row, with masks")
    cell, left, width, lanes, move = 26, 150, 10, 8, 2
    for column in range(2 * width + 5):
        row = column // width
        picture.cell(left + column * cell, 30, cell, column % width, LIGHT[row % 2])
    for row in range(2):
        picture.text(left + (row + 0.5) * width * cell, 16, f"row {row}", 11)
    picture.text(left - 10, 43, "results", 11, "end")
    picture.text(left - 10, 101, f"sources, {move} further on", 11, "end")
    first = 6
    picture.frame(left + first * cell, 30, lanes * cell, cell)
    for lane in range(lanes):
        column = first + lane
        inside = column % width + move < width
        x = left + (column + move) * cell
        source = column + move
        picture.cell(x, 88, cell, source % width, LIGHT[source // width % 2] if inside else WHITE, dashed=not inside)
        picture.line(left + (column + 0.5) * cell, 56, x + cell / 2, 88, "#222222" if inside else GREY, 1, not inside)
    picture.text(
        430,
        140,
        "A vector of results and one tap. A mask leaves out the dashed lanes, whose sources lie in the next row.",
        11,
    )
    return picture


def transposed() -> Picture:
    """Planes become pixels, tiles compute on pixels, pixels become planes. Drawn with four lanes."""
    picture = Picture(860, 270, "Planes transposed into pixels and back")
    cell, lanes = 22, 4

    def planes(left: float) -> None:
        for plane in reversed(range(lanes)):
            x, y = left + 22 * plane, 110 - 22 * plane
            for pixel in range(9):
                at = (x + pixel % 3 * cell, y + pixel // 3 * cell)
                picture.cell(*at, cell, pixel if plane == 0 else "", LIGHT[plane])

    def pixels(left: float) -> None:
        for pixel in range(9):
            picture.text(left - 8, 31 + pixel * cell, pixel, 10, "end")
            for lane in range(lanes):
                picture.cell(left + lane * cell, 20 + pixel * cell, cell, "", LIGHT[lane])

    planes(20)
    pixels(250)
    pixels(500)
    planes(690)
    for x, words in ((176, "transpose"), (376, "tiles of\nNHWC"), (614, "transpose\nback")):
        picture.arrow(x, 130, x + 48, 130)
        picture.text(x + 24, 100 if "\n" in words else 114, words, 10)
    for x, words in (
        (86, "4 source planes"),
        (294, "source pixels:\na vector each"),
        (544, "result pixels"),
        (756, "4 result planes"),
    ):
        picture.text(x, 232, words, 11)
    return picture


def weight_tile() -> Picture:
    """A tile of grad_weight over pixels: which tap each product of one input row goes to."""
    picture = Picture(860, 400, "A tile of grad_weight: one input row meets two rows of grad_output")
    cell, left, top = 24, 240, 34
    picture.text(left + 4.5 * cell, 16, "input row i + k: positions 0 to 8")
    for row, shift in ((0, "k"), (1, "k-1")):
        picture.grid(left, top + 7 * row * cell + 8 * row, 7, 9, cell, stroke="#e5e5e5")
        for g in range(7):
            y = top + (7 * row + g) * cell + 8 * row
            words = f"grad_output row i{'+1' * row}, {g}"
            picture.text(left - 8, y + cell / 2, words, 10, "end")
            for position in range(9):
                tap = position - g
                if 0 <= tap < 3:
                    picture.cell(left + position * cell, y, cell, f"w{tap}", LIGHT[tap + 3 * row])
        picture.text(
            left + 9.6 * cell, top + (7 * row + 3.5) * cell + 8 * row, f"products for tap row {shift}", 11, "start"
        )
    for number, words in enumerate(
        (
            "42 multiply-adds on",
            "9 loads of the input and",
            "14 of grad_output;",
            "six accumulators (w0 to w2",
            "of two tap rows) stay in",
            "registers for a whole band",
        )
    ):
        picture.text(650, 120 + 20 * number, words, 11, "start")
    return picture
