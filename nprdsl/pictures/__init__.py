"""Pictures of traces, masks and schemas: for a terminal, as SVG, as Mermaid; all plain strings."""

from nprdsl.pictures.mask import mask_svg, mask_text
from nprdsl.pictures.schema_pictures import schema_mermaid, schema_svg, schema_text
from nprdsl.pictures.trace_pictures import to_mermaid, to_svg, to_text

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
