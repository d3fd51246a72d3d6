"""What a vocabulary cannot do for a schema, found when they are bound: with rule, line and witness.

A tag that no tokens spell, a literal or a value that cannot be written, a rule that can never be
finished.
"""

from __future__ import annotations

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Span
from nprdsl.grammar.ir import (
    Field,
    Grammar,
    Literal,
    Node,
    Tag,
    TerminalKind,
)
from nprdsl.grammar.walk import nodes
from nprdsl.masks.automaton import Automaton
from nprdsl.masks.parts import part_of
from nprdsl.regular.dfa import compile_regex
from nprdsl.structure.stack import UNBOUNDED
from nprdsl.structure.tag_machine import Mode
from nprdsl.tokens.spelling import NEVER


def bind_faults(grammar: Grammar, automaton: Automaton) -> list[Diagnostic]:
    """Everything in the grammar that the automaton's vocabulary cannot write."""
    found: dict[tuple[str, str], Diagnostic] = {}
    for rule in grammar.rules.values():
        for node in nodes(rule.node):
            fault = _fault(node, automaton, rule.name)
            if fault is not None:
                found.setdefault((fault.code, fault.message), fault)
    if found or automaton.bounds == UNBOUNDED:  # a valid schema has an end that can be spelled
        return list(found.values())
    start = automaton.machine(Mode.LINEAR).initial
    if automaton.costs.stack(start.cell, start.frame) >= NEVER:
        rule = grammar.rules[grammar.start]
        message = f"no trace can be finished under the limits {automaton.bounds}"
        found["", ""] = _diagnostic(DiagnosticCode.DEAD_END, rule.span, message, "raise the limits")
    return list(found.values())


def _fault(node: Node, automaton: Automaton, rule: str) -> Diagnostic | None:
    spelling = automaton.spelling
    if isinstance(node, Tag):
        if automaton.fields.rests.tag_cost(node.text) < NEVER:
            return None
        message = f"the vocabulary cannot spell the tag `{node.text}` of rule `{rule}`"
        way = f"add `{node.text}` to the tokenizer as a special token, or choose other tags"
        return _diagnostic(DiagnosticCode.UNSPELLABLE_TAG, node.span, message, way)
    if isinstance(node, Literal) and spelling.tokens(node.text.encode()) >= NEVER:
        message = f"the vocabulary cannot spell {node.text!r} of rule `{rule}`"
        return _diagnostic(DiagnosticCode.DEAD_END, node.span, message, "use another literal")
    if isinstance(node, Field):
        return _field_fault(node, automaton, rule)
    return None


def _field_fault(node: Field, automaton: Automaton, rule: str) -> Diagnostic | None:
    terminal = node.terminal
    part = part_of(terminal)
    if part.cost(part.start, automaton.fields.rests) < NEVER:
        return None
    if terminal.kind is TerminalKind.GLUE:
        message = f"the vocabulary cannot spell the glue {terminal.literal!r} of rule `{rule}`"
        return _diagnostic(DiagnosticCode.DEAD_END, node.span, message, "use other glue")
    if terminal.kind is TerminalKind.TEXT:
        message = f"no token spells a text for {terminal.name} of rule `{rule}`"
        return _diagnostic(DiagnosticCode.DEAD_END, node.span, message, "check the vocabulary")
    dfa = compile_regex(terminal.pattern)
    message = (
        f"the vocabulary cannot spell any {terminal.name} of rule `{rule}`: "
        f"its shortest value would be {dfa.completion().decode()!r}"
    )
    way = "add the missing characters to the vocabulary, or change the terminal"
    return _diagnostic(DiagnosticCode.DEAD_END, node.span, message, way)


def _diagnostic(code: DiagnosticCode, span: Span, message: str, way: str) -> Diagnostic:
    return Diagnostic(code, span, message, way)
