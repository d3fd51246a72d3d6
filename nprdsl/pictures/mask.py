"""Pictures of the attention mask of a layout: rows are queries, columns are keys.

Long traces are averaged over square blocks. Where a block is larger than `SAMPLES` entries a side,
that many evenly spaced ones stand for it, so that time and memory do not grow with the square of
the length.
"""

from __future__ import annotations

from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from nprdsl.pictures.svg import FAINT, INK, LINE, Drawing, text_width
from nprdsl.pictures.trace_pictures import caption
from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trace.layout import Layout

SAMPLES = 8
SHADES = 16
SIDE = 512  # pixels of the picture without its margins
MARGIN = 28
VISIBLE = "#2563eb"
_LINE, _APART = 13, 10  # pixels from name to name, and from a name to what is beside it


def coverage(layout: Layout, size: int) -> NDArray[np.float64]:
    """Which part of each block is visible: [n, n] from 0 to 1, with n = min(size, L).

    Block (i, j) holds the queries from i*L/n to (i+1)*L/n and the keys likewise.
    """
    if size < 1:
        raise ValueError(f"a picture of a mask needs at least one cell a side, not {size}")
    length = len(layout)
    count = min(size, length)
    if not count:
        return np.zeros((0, 0))
    edges = np.arange(count + 1) * length // count
    samples = min(SAMPLES, int(np.diff(edges).max()))
    offsets = (np.arange(samples) * np.diff(edges)[:, None]) // samples
    entries = (edges[:-1, None] + offsets).ravel()
    order, mirror, until = layout.order[entries], layout.mirror[entries], layout.until[entries]
    visible = (order <= order[:, None]) & (order[:, None] < until) & (mirror <= mirror[:, None])
    mean: NDArray[np.float64] = visible.reshape(count, samples, count, samples).mean(axis=(1, 3))
    return mean


def mask_text(layout: Layout, size: int = 64) -> str:
    """The mask in half blocks, `size` columns by half as many lines: filled where at least half of
    what a cell stands for is visible."""
    cells = coverage(layout, size) >= 0.5
    if len(cells) % 2:
        cells = np.vstack([cells, np.zeros((1, cells.shape[1]), dtype=bool)])
    lines = [
        "".join(" ▀▄█"[top + 2 * bottom] for top, bottom in zip(upper, lower, strict=True))
        for upper, lower in zip(cells[::2], cells[1::2], strict=True)
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def mask_svg(layout: Layout, graph: ExecutionGraph | None = None, *, size: int = 128) -> str:
    """The mask as one SVG document of `size` cells a side at most: the darker, the more of a cell
    is visible. Strips on top and at the left show the segments; the prompt is hatched. With the
    `graph` of the layout the strips name them, and so do the rows where there is room."""
    cells = np.rint(coverage(layout, size) * SHADES).astype(int)
    drawing = Drawing()
    cell = SIDE / max(1, len(cells))
    for row, shades in enumerate(cells):
        column = 0
        for shade, run in groupby(shades):
            width = len(list(run))
            if shade:
                drawing.rect(
                    MARGIN + column * cell,
                    MARGIN + row * cell,
                    width * cell,
                    cell,
                    fill=VISIBLE,
                    crisp=True,
                    opacity=int(shade) / SHADES,
                )
            column += width
    drawing.rect(MARGIN, MARGIN, SIDE, SIDE, stroke=LINE)
    _strips(drawing, layout, graph)
    right = MARGIN if graph is None else _names(drawing, graph)
    y = MARGIN + SIDE + 20
    drawing.text(
        MARGIN, y, f"{len(layout)} entries; rows are queries, columns keys", size=11, fill=FAINT
    )
    return drawing.document(SIDE + MARGIN + right, SIDE + 2 * MARGIN + 8, "Attention mask")


def _names(drawing: Drawing, graph: ExecutionGraph) -> float:
    """The names of the segments at the right of their rows, those of long ones first; gives the
    room that they take."""
    scale, x = SIDE / max(1, graph.entries), MARGIN + SIDE + _APART
    named = [(len(s), (s.start + s.end) / 2, caption(s)) for s in graph.segments if caption(s)]
    taken: list[float] = []
    widest = 0.0
    for _, middle, name in sorted(named, reverse=True):
        y = MARGIN + middle * scale
        if all(abs(y - other) >= _LINE for other in taken):
            drawing.text(x, y + 4, name, size=11, fill=FAINT)
            taken.append(y)
            widest = max(widest, text_width(name, 11))
    return max(MARGIN, widest + 2 * _APART)


def _strips(drawing: Drawing, layout: Layout, graph: ExecutionGraph | None) -> None:
    """The segments in two shades in turn, along both axes."""
    if not len(layout):
        return
    scale = SIDE / len(layout)
    bounds = np.flatnonzero(np.diff(layout.segment)) + 1
    edges = [*sorted({0, layout.prompt, *bounds.tolist()} - {len(layout)}), len(layout)]
    for index, (begin, end) in enumerate(pairwise(edges)):
        fill = INK if index % 2 else LINE
        if end <= layout.prompt:
            fill = drawing.hatch(FAINT)
        at, width = MARGIN + begin * scale, (end - begin) * scale
        name = "" if graph is None else _name(graph, layout, begin)
        drawing.rect(at, MARGIN - 12, width, 8, fill=fill, title=name)
        drawing.rect(MARGIN - 12, at, 8, width, fill=fill, title=name)


def _name(graph: ExecutionGraph, layout: Layout, entry: int) -> str:
    segment = graph.segments[layout.segment[entry]]
    return "prompt" if entry < layout.prompt else caption(segment) or segment.role.value
