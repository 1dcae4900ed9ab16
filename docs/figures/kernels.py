"""Figures of the methods of single kernels."""

from picture import GREY, INK, LIGHT, WHITE, Picture


def lanes() -> Picture:
    """The 16 lanes of an AVX-512 vector of float32 on 7x7 planes, in the three ways the NCHW kernels fill it."""
    picture = Picture(860, 236, "Lanes of a vector on a 7x7 plane")
    rows = (
        ("any", [("row of plane 0", LIGHT[0], 7), ("empty", WHITE, 9)]),
        ("pairs", [("row of plane 0", LIGHT[0], 7), ("row of plane 1", LIGHT[3], 7), ("", WHITE, 2)]),
        ("blocked", [("the same pixel of 16 channels", LIGHT[2], 16)]),
    )
    for number, (name, parts) in enumerate(rows):
        y, x, cell = 16 + 76 * number, 130, 40
        picture.text(x - 12, y + cell / 2, name, 13, "end", mono=True)
        for words, colour, count in parts:
            for _ in range(count):
                picture.cell(x, y, cell, "", colour, GREY if colour == WHITE else INK)
                x += cell
            picture.text(x - count * cell / 2, y + cell + 12, words, 11)
    return picture
