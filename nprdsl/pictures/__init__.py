"""Pictures of traces, masks and schemas: for a terminal, as SVG, as Mermaid; all plain strings."""

from nprdsl.pictures.mask import mask_svg, mask_text
from nprdsl.pictures.schema_mermaid import schema_mermaid
from nprdsl.pictures.schema_svg import schema_svg
from nprdsl.pictures.schema_text import schema_text
from nprdsl.pictures.trace_mermaid import to_mermaid
from nprdsl.pictures.trace_svg import to_svg
from nprdsl.pictures.trace_text import to_text

__all__ = [
    "mask_svg",
    "mask_text",
    "schema_mermaid",
    "schema_svg",
    "schema_text",
    "to_mermaid",
    "to_svg",
    "to_text",
]
