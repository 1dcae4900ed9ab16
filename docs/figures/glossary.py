"""Figures of the glossary that no other page shows."""

from arithmetic import reads
from picture import GREY, LIGHT, PALE, TAPS, WHITE, Picture


def operations() -> Picture:
    """Of input, weight and grad_output each operation reads two and computes the like of the third."""
    picture = Picture(720, 190, "The three operations")
    rows = (
        ("forward", ("input", "weight"), "output"),
        ("grad_input", ("grad_output", "weight"), "grad_input"),
        ("grad_weight", ("input", "grad_output"), "grad_weight"),
    )
    colours = {"input": LIGHT[0], "grad_input": LIGHT[0], "weight": LIGHT[2], "grad_weight": LIGHT[2]}
    for number, (name, operands, result) in enumerate(rows):
        y = 16 + 58 * number
        for place, operand in enumerate(operands):
            picture.rectangle(20 + 150 * place, y, 120, 36, colours.get(operand, LIGHT[1]), round=4)
            picture.text(80 + 150 * place, y + 18, operand)
        picture.arrow(296, y + 18, 336, y + 18)
        picture.text(410, y + 18, name, 13, bold=True)
        picture.arrow(484, y + 18, 524, y + 18)
        picture.rectangle(536, y, 120, 36, colours.get(result, LIGHT[1]), round=4)
        picture.text(596, y + 18, result)
    return picture


def tap() -> Picture:
    """A 3x3 filter has nine taps; tap (1, 2) of every result lies one column to the right of its centre."""
    picture = Picture(720, 190, "A tap")
    cell = 30
    for kh in range(3):
        for kw in range(3):
            chosen = (kh, kw) == (1, 2)
            picture.cell(60 + kw * cell, 44 + kh * cell, cell, f"{kh},{kw}", LIGHT[1] if chosen else WHITE)
    picture.text(105, 26, "filter: 9 taps")
    picture.text(105, 158, "tap (1, 2)")
    picture.grid(300, 30, 4, 5, cell, PALE)
    picture.frame(330, 30, 3 * cell, 3 * cell)
    picture.cell(390, 60, cell, "", LIGHT[1])
    picture.text(375, 168, "input: the window of one result")
    picture.grid(570, 60, 2, 3, cell, WHITE)
    picture.cell(600, 60, cell, "", LIGHT[6])
    picture.line(420, 75, 600, 75, TAPS[1], 2)
    picture.text(615, 138, "output")
    return picture


def memory() -> Picture:
    """Two channels of 2x3 in memory: NCHW stores planes one after the other, NHWC stores pixels."""
    picture = Picture(720, 190, "Planes and pixels in memory")
    cell = 34
    for plane in (1, 0):
        for index in range(6):
            x, y = 30 + 26 * plane + index % 3 * cell, 62 - 26 * plane + index // 3 * cell
            picture.cell(x, y, cell, index if plane == 0 else "", LIGHT[plane])
    picture.text(94, 156, "channels 0 and 1\nof one image", 11)
    orders = (
        ("NCHW (contiguous)", [(c, i) for c in range(2) for i in range(6)]),
        ("NHWC (channels_last)", [(c, i) for i in range(6) for c in range(2)]),
    )
    for number, (name, order) in enumerate(orders):
        y = 30 + 84 * number
        picture.text(250, y - 12, name, 11, "start")
        for place, (channel, index) in enumerate(order):
            picture.cell(250 + place * cell, y, cell, index, LIGHT[channel])
        span = 6 if number == 0 else 2
        picture.line(252, y + cell + 7, 250 + span * cell - 2, y + cell + 7, "#222222", 2)
        picture.text(250 + span * cell / 2, y + cell + 19, "a plane" if number == 0 else "a pixel", 11)
    return picture


def pieces(taps: int) -> list[int]:
    """As for_pieces cuts a row of taps: sevens, then what is left in pieces of 5, 3, 2 and 1."""
    cut = [7] * (taps // 7)
    left = taps % 7
    for size in (5, 3):
        if left >= size:
            cut.append(size)
            left -= size
    return cut + ([left] if left else [])


def piece() -> Picture:
    """Rows of 3, 5, 9 and 13 taps, cut into pieces whose weights fit in registers together."""
    picture = Picture(720, 190, "Pieces of a row of taps")
    cell = 30
    for number, taps in enumerate((3, 5, 9, 13)):
        y, tap = 14 + 44 * number, 0
        picture.text(130, y + cell / 2, f"{taps} taps", 12, "end")
        for index, size in enumerate(pieces(taps)):
            for _ in range(size):
                picture.cell(150 + tap * cell + 8 * index, y, cell, f"w{tap}", LIGHT[index])
                tap += 1
        words = " + ".join(map(str, pieces(taps)))
        picture.text(160 + taps * cell + 8 * len(pieces(taps)), y + cell / 2, words, 12, "start")
    return picture


def pack() -> Picture:
    """Weights of four channels, 2x2, packed for a vector of four lanes: one load then gives a tap of all channels."""
    picture = Picture(720, 190, "Packed weights")
    cell = 34
    picture.text(90, 18, "weight: (C, KH, KW)", 11)
    for channel in range(4):
        for index in range(4):
            picture.cell(22 + index * cell, 34 + channel * cell, cell, f"{index // 2},{index % 2}", LIGHT[channel])
        picture.text(168, 34 + (channel + 0.5) * cell, f"channel {channel}", 10, "start")
    picture.arrow(262, 102, 322, 102)
    picture.text(292, 84, "pack", 12, bold=True)
    picture.text(420, 18, "packed: [tap][lane]", 11)
    for index in range(4):
        for lane in range(4):
            picture.cell(352 + lane * cell, 34 + index * cell, cell, f"{index // 2},{index % 2}", LIGHT[lane])
        picture.text(498, 34 + (index + 0.5) * cell, f"tap ({index // 2}, {index % 2}): one load", 10, "start")
    return picture


def stages() -> Picture:
    """A call: a plan, then stages, each of which is cut into items that threads share."""
    picture = Picture(720, 210, "Plan, stages and items of a call")
    picture.rectangle(20, 74, 90, 44, LIGHT[3], round=4)
    picture.text(65, 90, "plan\nonce a call", 11)
    left = 150
    for items, words in ((3, "stage 0: pack weights"), (8, "stage 1: bands of planes")):
        picture.arrow(left - 36, 96, left - 6, 96)
        width = items * 34 + 20
        picture.rectangle(left, 56, width, 84, PALE, GREY, dashed=True, round=4)
        picture.text(left + width / 2, 40, words, 11)
        for item in range(items):
            owner = 0 if item < (items + 1) // 2 else 1
            picture.cell(left + 10 + 34 * item, 80, 34, item, LIGHT[owner])
        left += width + 50
    picture.arrow(left - 46, 96, left - 16, 96)
    picture.text(left - 8, 96, "result", 12, "start")
    for thread in range(2):
        picture.cell(240 + 130 * thread, 170, 16, "", LIGHT[thread])
        picture.text(264 + 130 * thread, 178, f"thread {thread}", 11, "start")
    return picture


def kernel_name() -> Picture:
    """What the parts of a kernel's name say."""
    picture = Picture(720, 110, "The parts of a kernel's name")
    parts = (
        ("forward", "operation"),
        ("nchw", "layout"),
        ("f32", "dtype"),
        ("rows", "method"),
        ("avx512", "instruction set"),
    )
    x = 60
    for number, (word, meaning) in enumerate(parts):
        width = 24 + 14 * len(word)
        picture.rectangle(x, 22, width, 36, LIGHT[number], round=4)
        picture.text(x + width / 2, 40, word, 15, mono=True)
        picture.text(x + width / 2, 80, meaning, 11)
        x += width
        if number + 1 < len(parts):
            picture.text(x + 10, 44, "_", 15, mono=True)
            x += 20
    return picture


def sources() -> Picture:
    """One result and the sources that it reads, in forward and in grad_input: 3 taps, stride 1, padding 1."""
    picture = Picture(720, 165, "Results and sources")
    cell = 32
    for number, (name, above, below) in enumerate(
        (("forward", "output", "input"), ("grad_input", "grad_input", "grad_output"))
    ):
        left = 110 + 350 * number
        picture.text(left + 2.5 * cell, 14, name, 12, bold=True)
        for result, source, tap in reads(number == 1, 5, 5, 3, 1, 1, 1):
            if result == 2:
                ends = (left + (result + 0.5) * cell, left + (source + 0.5) * cell)
                picture.line(ends[0], 32 + cell, ends[1], 120, TAPS[tap], 2)
                picture.text(ends[1] + (14 if source > 2 else -14 if source < 2 else 14), 108, f"w{tap}", 10)
        for i in range(5):
            picture.cell(left + i * cell, 32, cell, i, LIGHT[6] if i == 2 else WHITE)
            picture.cell(left + i * cell, 120, cell, i, LIGHT[0] if 1 <= i <= 3 else PALE)
        picture.text(left - 8, 48, f"results:\n{above}", 10, "end")
        picture.text(left - 8, 136, f"sources:\n{below}", 10, "end")
    return picture


def block() -> Picture:
    """An inverted residual as one block: three steps, and a residual that the last one adds."""
    picture = Picture(720, 150, "A block of three steps")
    steps = (("dense 1x1", "16→96 relu6"), ("depthwise 3x3", "relu6"), ("dense 1x1", "96→16"))
    picture.rectangle(120, 20, 470, 76, PALE, GREY, dashed=True, round=4)
    picture.text(60, 58, "input")
    picture.arrow(86, 58, 136, 58)
    for number, (name, words) in enumerate(steps):
        left = 140 + 150 * number
        picture.rectangle(left, 34, 126, 48, LIGHT[number], round=4)
        picture.text(left + 63, 58, f"{name}\n{words}", 11)
        picture.arrow(left + 128, 58, left + 148 if number < 2 else left + 184, 58)
    picture.text(660, 58, "output")
    for x, y, to_x, to_y in ((60, 74, 60, 128), (60, 128, 503, 128)):
        picture.line(x, y, to_x, to_y, GREY, 2)
    picture.arrow(503, 128, 503, 84)
    picture.text(280, 116, "residual", 11)
    return picture


def panel() -> Picture:
    """Dense weights of 20 outputs and 3 taps: two panels, each tap of a panel a row of 16 lanes."""
    picture = Picture(720, 190, "Panels of packed weights")
    cell, outputs = 18, 20
    for number in range(2):
        left = 30 + 350 * number
        picture.text(left + 8 * cell, 20, f"panel {number}", 12, bold=True)
        for tap in range(3):
            picture.text(left - 6, 46 + cell / 2 + 34 * tap, f"{tap}", 10, "end")
            for lane in range(16):
                output = 16 * number + lane
                inside = output < outputs
                words = output if inside else 0
                picture.cell(left + lane * cell, 46 + 34 * tap, cell, words, LIGHT[tap] if inside else WHITE)
    picture.text(174, 166, "a row is one tap of sixteen output channels", 11)
    picture.text(524, 166, "zeros past the last output, 19", 11)
    return picture
