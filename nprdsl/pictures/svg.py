"""Writes SVG: shapes with escaped text, collected into one document without outside references.

Lengths are pixels. Text is measured as if every character were `CHARACTER` wide, which holds for
the monospace face that all text is set in. `mermaid_label` escapes text for the other format.
"""

from __future__ import annotations

import re
from html import escape

CHARACTER = 7.25  # width of a character at 12 px
FACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK, FAINT, LINE, PAPER = "#1f2937", "#6b7280", "#9ca3af", "#ffffff"

# (fill, stroke) for the branches of a block in turn; all strokes read on all fills
TINTS = (
    ("#dbeafe", "#2563eb"),
    ("#dcfce7", "#15803d"),
    ("#fef3c7", "#b45309"),
    ("#fce7f3", "#be185d"),
    ("#ede9fe", "#6d28d9"),
    ("#cffafe", "#0e7490"),
)
PLAIN = ("#f3f4f6", "#4b5563")

_MERMAID = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "\n": "<br/>"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml(text: str) -> str:
    """`text` as XML character data; what XML cannot hold becomes the replacement character."""
    return escape(_NOT_XML.sub("\ufffd", text))


def mermaid_label(text: str) -> str:
    """`text` as the inside of a quoted Mermaid label; a newline becomes a line break."""
    return "".join(_MERMAID.get(character, character) for character in text)


def text_width(text: str, size: float = 12) -> float:
    return len(text) * CHARACTER * size / 12


def fit(text: str, width: float, size: float = 12) -> str:
    """`text` on one line, cut with an ellipsis to `width`; empty where not even that fits."""
    line = " ".join(text.split())
    most = int(width / (CHARACTER * size / 12))
    if len(line) <= most:
        return line
    return line[: most - 1].rstrip() + "…" if most > 3 else ""


class Drawing:
    """Collects shapes in drawing order."""

    def __init__(self) -> None:
        self._shapes: list[str] = []
        self._definitions: dict[str, None] = {}

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "none",
        stroke: str = "none",
        radius: float = 0,
        dashed: bool = False,
        crisp: bool = False,
        opacity: float = 1,
        title: str = "",
    ) -> None:
        """`crisp`: no antialiasing, so that neighbours leave no seam."""
        extra = f' rx="{number(radius)}"' if radius else ""
        extra += ' stroke-dasharray="4 3"' if dashed else ""
        extra += ' shape-rendering="crispEdges"' if crisp else ""
        extra += f' opacity="{number(opacity)}"' if opacity < 1 else ""
        shape = (
            f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}"'
            f' height="{number(height)}" fill="{fill}" stroke="{stroke}"{extra}'
        )
        closed = f"><title>{xml(title)}</title></rect>" if title else "/>"
        self._shapes.append(shape + closed)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, stroke: str, dashed: bool = False
    ) -> None:
        extra = ' stroke-dasharray="2 3"' if dashed else ""
        self._shapes.append(
            f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
            f' stroke="{stroke}" stroke-width="1.5"{extra}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        fill: str = INK,
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """One line of text; `y` is its baseline."""
        extra = f' font-size="{number(size)}"' if size != 12 else ""
        extra += f' text-anchor="{anchor}"' if anchor != "start" else ""
        extra += ' font-weight="600"' if bold else ""
        self._shapes.append(
            f'<text x="{number(x)}" y="{number(y)}" fill="{fill}"{extra}>{xml(text)}</text>'
        )

    def hatch(self, stroke: str) -> str:
        """A fill of slanted lines, for what was read and not produced."""
        name = f"hatch-{stroke.lstrip('#')}"
        self._definitions[
            f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse"'
            f' patternTransform="rotate(45)"><rect width="6" height="6" fill="{PAPER}"/>'
            f'<rect width="2" height="6" fill="{stroke}" opacity="0.35"/></pattern>'
        ] = None
        return f"url(#{name})"

    def document(self, width: float, height: float, title: str) -> str:
        definitions = "".join(self._definitions)
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{number(width)}"'
            f' height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}"'
            f' role="img" font-family="{FACE}" font-size="12">',
            f"<title>{xml(title)}</title>",
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
            *([f"<defs>{definitions}</defs>"] if definitions else []),
            *self._shapes,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Two decimals at most, without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
