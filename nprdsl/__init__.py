"""A language for parallel reasoning.

One schema is the parser, the constraint, the scheduler and the mask: `load` it, `check` and `parse`
texts with it, `bind` it to a vocabulary, run it with an engine of `nprdsl.runtime`.
"""

from nprdsl.actions import JoinPolicy
from nprdsl.bound import BoundSchema
from nprdsl.diagnostics import Diagnostic, DiagnosticCode, SchemaError
from nprdsl.events import BranchReason, EndReason
from nprdsl.graph import ExecutionGraph
from nprdsl.layout import Layout
from nprdsl.ledger import LimitError, Limits
from nprdsl.machine import Machine
from nprdsl.matcher import IllegalTokenError, Matcher
from nprdsl.schema import Schema, SchemaNotFoundError, load, shipped
from nprdsl.stack import Bounds
from nprdsl.terminals import FreeText
from nprdsl.trace import Element, TokenTrace, Trace
from nprdsl.violations import TraceError, Violation, ViolationCode
from nprdsl.vocabulary import Vocabulary

__all__ = [
    "BoundSchema",
    "Bounds",
    "BranchReason",
    "Diagnostic",
    "DiagnosticCode",
    "Element",
    "EndReason",
    "ExecutionGraph",
    "FreeText",
    "IllegalTokenError",
    "JoinPolicy",
    "Layout",
    "LimitError",
    "Limits",
    "Machine",
    "Matcher",
    "Schema",
    "SchemaError",
    "SchemaNotFoundError",
    "TokenTrace",
    "Trace",
    "TraceError",
    "Violation",
    "ViolationCode",
    "Vocabulary",
    "load",
    "shipped",
]
