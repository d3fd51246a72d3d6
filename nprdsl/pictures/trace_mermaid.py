"""A trace's graph as a Mermaid flowchart: a node for every segment."""

from __future__ import annotations

from nprdsl.pictures.lanes import caption, figures
from nprdsl.pictures.mermaid import escape
from nprdsl.trace.graph import ExecutionGraph, Role, Segment


def to_mermaid(graph: ExecutionGraph) -> str:
    """The graph as Mermaid text. An empty segment is a dot, a copy has a dashed border, and the
    dotted arrows lead from the branches of a `reread` join to the copy that is made of them."""
    lines = [f"%% {figures(graph)}", "flowchart LR"]
    lines += [f"    s{segment.index}{_shape(graph, segment)}" for segment in graph.segments]
    for segment in graph.segments:
        lines += [f"    s{parent} --> s{segment.index}" for parent in segment.parents]
    copies = [join for join in graph.joins if graph.segments[join.after].role is Role.REREAD]
    for join in copies:
        lines += [f"    s{last} -.-> s{join.after}" for last in join.before]
    if copies:
        lines.append("    classDef copy stroke-dasharray: 4 3")
        lines.append(f"    class {','.join(f's{join.after}' for join in copies)} copy")
    return "\n".join(lines) + "\n"


def _shape(graph: ExecutionGraph, segment: Segment) -> str:
    if not len(segment):
        return "(( ))"
    name = caption(segment) or ("begin" if segment.role is Role.TRUNK else "")
    size = f"{len(segment)} {graph.unit}"
    if segment.role is Role.TRUNK and graph.prompt:
        size += f"\n{graph.prompt} of them prompt"
    text = escape(f"{name}\n{size}" if name else size)
    return f'["{text}"]'
