"""Figures of the arithmetic that all kernels share. Indices come from the definition of the operations."""

import math

from picture import GREY, LIGHT, PALE, TAPS, WHITE, Picture


def reads(transposed: bool, results: int, sources: int, kernel: int, stride: int, dilation: int, pad: int):
    """(result, source, tap) of one axis, by the definition in csrc/shape.h."""
    outputs, inputs = (sources, results) if transposed else (results, sources)
    triples = []
    for output in range(outputs):
        for tap in range(kernel):
            position = output * stride + tap * dilation - pad
            if 0 <= position < inputs:
                triples.append((position, output, tap) if transposed else (output, position, tap))
    return triples


def algorithm() -> Picture:
    """Split by channel, multiply, merge: three channels of 4x4, filters of 3x3, padding 1."""
    picture = Picture(860, 500, "A depthwise convolution: split, multiply, merge")
    cell = 20
    for c, colour in reversed(list(enumerate(LIGHT[:3]))):
        picture.grid(20 + 14 * c, 200 - 14 * c, 4, 4, cell, colour)
        picture.grid(710 + 14 * c, 200 - 14 * c, 4, 4, cell, colour)
        y = 16 + 148 * c
        picture.grid(230, y, 6, 6, cell, colour, border=1)
        picture.frame(230, y, 3 * cell, 3 * cell)
        picture.text(375, y + 60, "\N{MULTIPLICATION SIGN}", 26)
        picture.grid(400, y + 30, 3, 3, cell, colour)
        picture.text(492, y + 60, "=", 26)
        picture.grid(525, y + 20, 4, 4, cell, colour)
        picture.frame(525, y + 20, cell, cell)
        picture.arrow(146, 220, 224, y + 60)
        picture.arrow(612, y + 60, 704, 225)
    for x, y, words in (
        (75, 300, "input\n(C, H, W)"),
        (290, 456, "1. split: one channel\nwith its padding, k//2"),
        (530, 456, "2. multiply: a window by the channel's\nfilter, for every pixel of the output"),
        (765, 300, "3. merge\n(C, OH, OW)"),
    ):
        picture.text(x, y, words)
    return picture


def lattice() -> Picture:
    """Who reads whom along an axis, split into the lattices in which neighbours share sources."""
    panels = (
        ("forward, stride 1", dict(transposed=False, results=8, sources=8, kernel=3, stride=1, dilation=1, pad=1)),
        ("forward, stride 2", dict(transposed=False, results=4, sources=8, kernel=3, stride=2, dilation=1, pad=1)),
        (
            "forward, dilation 2: two lattices, even and odd results",
            dict(transposed=False, results=8, sources=8, kernel=3, stride=1, dilation=2, pad=2),
        ),
        (
            "grad_input, stride 2: even results have one tap, odd ones two",
            dict(transposed=True, results=8, sources=4, kernel=3, stride=2, dilation=1, pad=1),
        ),
    )
    picture = Picture(860, 420, "Results and the sources that they read, along one axis")
    cell, gap, wide = 26, 80, 40
    for number, (title, axis) in enumerate(panels):
        left, top = 70 + 430 * (number % 2), 30 + 190 * (number // 2)
        results, sources = axis["results"], axis["sources"]
        steps = (8 / results * wide, 8 / sources * wide)
        lattices = math.lcm(axis["stride"] if axis["transposed"] else 1, axis["dilation"])
        picture.text(left + 4 * wide, top - 12, title)
        for result, source, tap in reads(**axis):
            ends = (left + (result + 0.5) * steps[0], left + (source + 0.5) * steps[1])
            picture.line(ends[0], top + cell, ends[1], top + cell + gap, TAPS[tap], 2, result % lattices != 0)
        for count, step, y in ((results, steps[0], top), (sources, steps[1], top + cell + gap)):
            for i in range(count):
                shade = WHITE if i % lattices == 0 else LIGHT[6]
                picture.cell(left + (i + 0.5) * step - cell / 2, y, cell, i, PALE if y > top else shade)
        picture.text(left - 4, top + cell / 2, "results", 11, "end")
        picture.text(left - 4, top + cell * 1.5 + gap, "sources", 11, "end")
    for tap in range(3):
        picture.line(320 + 80 * tap, 400, 345 + 80 * tap, 400, TAPS[tap], 3)
        picture.text(352 + 80 * tap, 400, f"tap {tap}", 12, "start")
    return picture


def tile() -> Picture:
    """Seven results and three taps: which position feeds which accumulator, at stride 1 and 2."""
    picture = Picture(860, 270, "A tile: seven accumulators, three taps, each source loaded once")
    cell, left = 24, 66
    for reuse in (1, 2):
        results, taps = 7, 3
        positions = reuse * (results - 1) + taps
        picture.text(left + positions * cell / 2, 16, f"S = {reuse}: {results * taps} FMAs on {positions} loads")
        picture.grid(left, 32, results, positions, cell, stroke="#e5e5e5")
        for r in range(results):
            picture.text(left - 6, 32 + (r + 0.5) * cell, f"acc[{r}]", 10, "end", mono=True)
            for tap in range(taps):
                picture.cell(left + (reuse * r + tap) * cell, 32 + r * cell, cell, f"w{tap}", LIGHT[tap])
        for i in range(positions):
            picture.cell(left + i * cell, 220, cell, i, PALE)
        picture.text(left - 6, 232, "load", 11, "end")
        left += positions * cell + 100
    return picture


def sums() -> Picture:
    """The sums of grad_weight: what is added to what, in which type, so that errors do not grow."""
    picture = Picture(860, 250, "Sums of grad_weight: products, accumulators, totals, chunks")
    for chunk in range(2):
        left = 20 + 330 * chunk
        picture.rectangle(left, 40, 300, 130, PALE, GREY, dashed=True, round=6)
        picture.text(left + 150, 28, f"chunk {chunk}: a part of the images or bands")
        for link in range(4):
            x = left + 12 + 70 * link
            picture.rectangle(x, 52, 62, 34, LIGHT[chunk])
            picture.text(x + 31, 62, "at most 512\nproducts", 8.5)
            picture.arrow(x + 31, 88, left + 150, 122)
        picture.rectangle(left + 60, 124, 180, 34, LIGHT[chunk])
        picture.text(left + 150, 141, "total: at most 512 accumulators", 10)
        picture.arrow(left + 150, 160, 340, 204)
    picture.rectangle(240, 206, 200, 34)
    picture.text(340, 223, "chunks added in order, in float64", 10)
    for y, words in (
        (69, "accumulators: registers,\none vector for each tap"),
        (134, "totals: float64 keeps also\nwhat its additions round away"),
        (223, "one rounding to the result's dtype"),
    ):
        picture.text(656, y, words, 10.5, "start")
    return picture
