"""Pages to look at schemas, traces and running models with: what they draw, as JSON, and the files.

What is drawn is worked out here, from the library's own graph, layout and pictures; the pages (in
`studio/` of the repository, in TypeScript) put it on the screen and read no tags themselves.
"""

from nprdsl.studio.pages import StudioNotBuiltError, page
from nprdsl.studio.recognising import recognised
from nprdsl.studio.reports import ReportView
from nprdsl.studio.schemas import SchemaView, schema_view
from nprdsl.studio.trace_rows import TraceRow, TraceRowsView, trace_rows
from nprdsl.studio.traces import TraceView, text_view, token_view

__all__ = [
    "ReportView",
    "SchemaView",
    "StudioNotBuiltError",
    "TraceRow",
    "TraceRowsView",
    "TraceView",
    "page",
    "recognised",
    "schema_view",
    "text_view",
    "token_view",
    "trace_rows",
]
