"""What the figures are drawn with: a picture of rectangles, lines and words, written as SVG, one shape a line.

Lengths are pixels, x goes right, y goes down. The same calls give the same file.
"""

from pathlib import Path
from xml.sax.saxutils import escape

# Of taps, and of channels and what lies under text: Paul Tol's bright and light schemes, safe for the colour-blind.
TAPS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
LIGHT = ("#77aadd", "#ee8866", "#bbcc33", "#eedd88", "#99ddff", "#ffaabb", "#dddddd")
INK, GREY, PALE, WHITE = "#222222", "#999999", "#f2f2f2", "#ffffff"


class Picture:
    def __init__(self, width: float, height: float, title: str) -> None:
        self.size = (width, height)
        self.title = title
        self.shapes: list[str] = []

    def rectangle(self, x, y, width, height, fill=WHITE, stroke=INK, thick=0.8, dashed=False, round=0) -> None:
        extra = ' stroke-dasharray="2 2"' if dashed else ""
        extra += f' rx="{round:g}"' if round else ""
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{stroke}" '
            f'stroke-width="{thick:g}"{extra}/>'
        )

    def frame(self, x, y, width, height, stroke=INK, thick=2.2) -> None:
        """Round other shapes, which show through."""
        self.rectangle(x, y, width, height, "none", stroke, thick)

    def line(self, x1, y1, x2, y2, stroke=INK, thick=1.2, dashed=False, arrow=False) -> None:
        extra = ' stroke-dasharray="4 3"' if dashed else ""
        extra += ' marker-end="url(#head)"' if arrow else ""
        self.shapes.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{stroke}" stroke-width="{thick:g}"{extra}/>'
        )

    def arrow(self, x1, y1, x2, y2) -> None:
        self.line(x1, y1, x2, y2, thick=1.1, arrow=True)

    def text(self, x, y, words, size=12.0, anchor="middle", bold=False, mono=False, fill=INK) -> None:
        """Lines of words, the first one with its middle at y."""
        style = ' font-weight="bold"' if bold else ""
        style += ' font-family="DejaVu Sans Mono, monospace"' if mono else ""
        style += f' fill="{fill}"' if fill != INK else ""
        for number, line in enumerate(str(words).split("\n")):
            at = y + 0.36 * size + 1.3 * size * number
            self.shapes.append(
                f'<text x="{x:g}" y="{at:.4g}" font-size="{size:g}" text-anchor="{anchor}"{style}>{escape(line)}</text>'
            )

    def cell(self, x, y, size, words="", fill=WHITE, stroke=INK, dashed=False, text=10.0) -> None:
        self.rectangle(x, y, size, size, fill, stroke, dashed=dashed)
        if words != "":
            self.text(x + size / 2, y + size / 2, words, text)

    def grid(self, x, y, rows, columns, size, fill=WHITE, border=0, stroke=INK) -> None:
        """Cells; the outermost `border` of them are padding."""
        for row in range(rows):
            for column in range(columns):
                inner = border <= row < rows - border and border <= column < columns - border
                at = (x + column * size, y + row * size)
                self.cell(*at, size, "", fill if inner else WHITE, stroke if inner else GREY, not inner)

    def save(self, path: Path) -> None:
        width, height = self.size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" font-family="DejaVu Sans, Verdana, sans-serif" fill="{INK}">',
            f"<title>{escape(self.title)}</title>",
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker>',
            f'<rect width="{width:g}" height="{height:g}" fill="{WHITE}"/>',
        )
        path.write_text("\n".join((*head, *self.shapes, "</svg>")) + "\n")
