"""The figure of docs/architecture.md: the way of a call down through the rooms of the house."""

from picture import GREY, LIGHT, PALE, Picture

# Of each floor: its name, its rooms (folder, what is in it), and where a call may leave, if it may.
FLOORS = (
    (
        "what a user calls",
        (
            ("torch_dwconv/functional", "functions"),
            ("torch_dwconv/layers", "layers"),
            ("torch_dwconv/models", "convert, fuse"),
        ),
        "",
    ),
    (
        "rules, and who computes",
        (("torch_dwconv/functional", "arguments become sizes; which tensors have kernels"),),
        "F.conv2d:\nother dtypes, devices,\ntensor classes",
    ),
    (
        "operators",
        (
            ("torch_dwconv/operators", "plain tensors: the shortest way"),
            ("torch_dwconv/operators, compile", "transforms, export, compile"),
        ),
        "compiled and exported\ngraphs enter here",
    ),
    (
        "binding",
        (("csrc/binding", "checks; tensors become pointers and a Shape"),),
        "an error that names\nthe argument",
    ),
    (
        "choice",
        (("csrc/cpu", "lists and preferences: one kernel; its plan, made once"),),
        "csrc/cuda:\nthe same for CUDA",
    ),
    (
        "kernel",
        (
            ("csrc/cpu/nchw", "planes"),
            ("csrc/cpu/nhwc", "pixels"),
            ("csrc/cpu/grad_weight", "both layouts"),
        ),
        "stages, one after the\nother; threads share items",
    ),
    ("arithmetic", (("csrc/cpu/axis", "lattices, tiles"), ("csrc/cpu/simd", "vectors, instruction sets")), ""),
)
OUTSIDE = ("tests", "benchmarks", "tools", "examples", "docs")


def house() -> Picture:
    """Each floor calls the one below it, and none above."""
    picture = Picture(860, 590, "The way of a call through the house")
    left, width, height, gap = 130, 520, 50, 22
    for number, (name, rooms, beside) in enumerate(FLOORS):
        y = 14 + number * (height + gap)
        picture.text(left - 12, y + height / 2, name.replace(", and ", ",\n"), 11, "end", bold=True)
        each = (width - 10 * (len(rooms) - 1)) / len(rooms)
        colour = LIGHT[0] if number < 3 else LIGHT[3] if number < 5 else LIGHT[2]
        for place, (folder, content) in enumerate(rooms):
            x = left + place * (each + 10)
            picture.rectangle(x, y, each, height, colour, round=5)
            picture.text(x + each / 2, y + 17, folder, 10, mono=True)
            picture.text(x + each / 2, y + 35, content, 10)
        if number + 1 < len(FLOORS):
            picture.arrow(left + width / 2, y + height + 2, left + width / 2, y + height + gap - 2)
        if beside:
            picture.line(left + width + 4, y + height / 2, left + width + 26, y + height / 2, GREY, 1, True)
            lines = beside.count("\n")
            picture.text(left + width + 32, y + height / 2 - 7 * lines, beside, 10.5, "start")
    y = 14 + len(FLOORS) * (height + gap) + 6
    picture.text(left - 12, y + 16, "round the house", 11, "end", bold=True)
    for place, folder in enumerate(OUTSIDE):
        picture.rectangle(left + place * 106, y, 96, 32, PALE, GREY, round=5)
        picture.text(left + place * 106 + 48, y + 16, folder, 10.5, mono=True)
    for x, colour, words in (
        (130, LIGHT[0], "Python"),
        (230, LIGHT[3], "C++"),
        (310, LIGHT[2], "C++, compiled for each instruction set"),
    ):
        picture.rectangle(x, y + 46, 12, 12, colour)
        picture.text(x + 18, y + 52, words, 10, "start")
    return picture
