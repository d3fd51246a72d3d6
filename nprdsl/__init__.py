"""A language for parallel reasoning.

One schema is the parser, the constraint, the scheduler and the mask: `load` it, `check` and `parse`
texts with it, `bind` it to a vocabulary, run it with an engine of `nprdsl.runtime`. Import paths
of version 0.1 still work in this version, with a DeprecationWarning.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, SchemaError
from nprdsl.grammar.terminal_types import FreeText
from nprdsl.machine.actions import JoinPolicy
from nprdsl.machine.budget import LimitError, Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.matcher import IllegalTokenError, Matcher
from nprdsl.schema import Schema, SchemaNotFoundError, load, shipped
from nprdsl.structure.events import BranchReason, EndReason
from nprdsl.structure.stack import Bounds
from nprdsl.structure.violations import TraceError, Violation, ViolationCode
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trace.layout import Layout
from nprdsl.trace.trace import Element, TokenTrace, Trace

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

_MOVED = {
    "nprdsl.actions": "nprdsl.machine.actions",
    "nprdsl.bound": "nprdsl.masks.bound_schema",
    "nprdsl.diagnostics": "nprdsl.grammar.diagnostics",
    "nprdsl.events": "nprdsl.structure.events",
    "nprdsl.graph": "nprdsl.trace.graph",
    "nprdsl.layout": "nprdsl.trace.layout",
    "nprdsl.ledger": "nprdsl.machine.budget",
    "nprdsl.matcher": "nprdsl.masks.matcher",
    "nprdsl.terminals": "nprdsl.grammar.terminal_types",
    "nprdsl.trainers.losses": "nprdsl.trainers.objective.losses",
    "nprdsl.violations": "nprdsl.structure.violations",
    "nprdsl.vocabulary": "nprdsl.tokens.vocabulary",
}


class _MovedModules(MetaPathFinder, Loader):
    """Finds a module under the name that it had in version 0.1."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        message = f"`{name}` is `{_MOVED[name]}` now; the old name goes with version 0.3"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        sys.modules[name] = import_module(_MOVED[name])


sys.meta_path.append(_MovedModules())
