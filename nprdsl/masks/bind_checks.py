"""What a vocabulary cannot do for a schema, found when they are bound: with rule, line and witness.

A tag that no tokens spell, a literal or a value that cannot be written, a rule that can never be
finished.
"""

from __future__ import annotations

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode
from nprdsl.grammar.ir import Field, Grammar, Literal, Node, Tag, Terminal, TerminalKind
from nprdsl.grammar.walk import nodes
from nprdsl.masks.automaton import Automaton
from nprdsl.masks.parts import part_of
from nprdsl.regular.dfa import compile_regex
from nprdsl.structure.stack import UNBOUNDED
from nprdsl.structure.tag_machine import ForkMode
from nprdsl.tokens.spelling import NEVER


def bind_faults(grammar: Grammar, automaton: Automaton) -> list[Diagnostic]:
    """Everything in the grammar that the automaton's vocabulary cannot write."""
    faults: dict[tuple[str, str], Diagnostic] = {}
    for rule in grammar.rules.values():
        for node in nodes(rule.node):
            fault = _fault(node, automaton, rule.name)
            if fault is not None:
                faults.setdefault((fault.code, fault.message), fault)
    if faults or automaton.bounds == UNBOUNDED:  # a valid schema has an end that can be spelled
        return list(faults.values())
    start = automaton.machine(ForkMode.LINEAR).initial
    if automaton.costs.stack(start.cell, start.frame) < NEVER:
        return []
    span = grammar.rules[grammar.start].span
    message = f"no trace can be finished under the limits {automaton.bounds}"
    return [Diagnostic(DiagnosticCode.DEAD_END, span, message, "raise the limits")]


def _fault(node: Node, automaton: Automaton, rule: str) -> Diagnostic | None:
    rests, code = automaton.fields.rests, DiagnosticCode.DEAD_END
    if isinstance(node, Tag) and rests.tag_cost(node.text) >= NEVER:
        code = DiagnosticCode.UNSPELLABLE_TAG
        message = f"the vocabulary cannot spell the tag `{node.text}` of rule `{rule}`"
        way = f"add `{node.text}` to the tokenizer as a special token, or choose other tags"
    elif isinstance(node, Literal) and rests.spelling.tokens(node.text.encode()) >= NEVER:
        message = f"the vocabulary cannot spell {node.text!r} of rule `{rule}`"
        way = "use another literal"
    elif isinstance(node, Field) and part_of(node.terminal).whole_cost(rests) >= NEVER:
        message, way = _unwritable(node.terminal, rule)
    else:
        return None
    return Diagnostic(code, node.span, message, way)


def _unwritable(terminal: Terminal, rule: str) -> tuple[str, str]:
    """What cannot be written of a terminal, and the way out."""
    if terminal.kind is TerminalKind.GLUE:
        message = f"the vocabulary cannot spell the glue {terminal.literal!r} of rule `{rule}`"
        return message, "use other glue"
    if terminal.kind is TerminalKind.TEXT:
        return (
            f"no token spells a text for {terminal.name} of rule `{rule}`",
            "check the vocabulary",
        )
    shortest = compile_regex(terminal.pattern).completion().decode()
    message = f"the vocabulary cannot spell any {terminal.name} of rule `{rule}`: "
    way = "add the missing characters to the vocabulary, or change the terminal"
    return f"{message}its shortest value would be {shortest!r}", way
