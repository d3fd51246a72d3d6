"""The checks that a resolved schema must pass; every fault of a file is found, not the first only.

Checked here are names that nothing uses, tags that hold other tags, maps that never list their
item, or more items than there are labels, regular expressions, and free text. Free text has no end
of its own: a tag or the end of the trace must close it, across the borders of rules too; only a
text that a branch repeats from its item has a known length. What the next tag decides is checked by
`nprdsl.grammar.tag_decisions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from typing import TypeGuard

from nprdsl.grammar import ir, load_limits
from nprdsl.grammar.bindings import bindings
from nprdsl.grammar.declarations import (
    ConstructKind,
    Declare,
    Definition,
    Import,
    NameUse,
    inside,
    is_terminal_name,
)
from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Span, did_you_mean
from nprdsl.grammar.first_follow import FirstFollow, KeptSets, by_leaf, by_tag, is_blank
from nprdsl.grammar.fixes import removed
from nprdsl.grammar.ir import nodes
from nprdsl.grammar.item_counts import least_items
from nprdsl.grammar.load_limits import too_large
from nprdsl.grammar.namespaces import Linked
from nprdsl.grammar.sizes import too_large_parts, too_large_tags
from nprdsl.grammar.tag_decisions import decisions
from nprdsl.grammar.tag_shapes import shown, tag_names, way_to_tag
from nprdsl.grammar.walk import (
    Bodies,
    Rules,
    Uses,
    all_nodes,
    bodies,
    reach,
    reachable,
    references,
    written_texts,
)
from nprdsl.regular.aho_corasick import words_inside
from nprdsl.regular.dfa import compile_regex, whitespace_loop
from nprdsl.regular.syntax import STATE_LIMIT, RegexError
from nprdsl.regular.tag_free import has_values, tag_free
from nprdsl.regular.words import words_of


@dataclass(slots=True)
class CheckedSets:
    """The sets of one reading that are kept for the next."""

    by_tag: KeptSets = field(default_factory=KeptSets)
    by_leaf: KeptSets = field(default_factory=KeptSets)


def validate(
    rules: Rules, grammar: ir.Grammar, linked: Linked, uses: Uses, kept: CheckedSets
) -> Iterator[Diagnostic]:
    """Every fault of the rules, reachable or not. `uses` are those of rules by rules; what is
    `kept` is used, and replaced."""
    if grammar.start in rules:
        yield from _unused(linked, grammar.start)
    if (fault := too_large_tags(rules)) is not None:
        yield fault
        return
    trees = bodies(rules)
    yield from too_large_parts(rules, uses)
    yield from _not_listed(rules, uses)
    yield from _tag_overlaps(rules)
    yield from _patterns(grammar)
    yield from _too_few_labels(grammar, trees, uses)
    yield from decisions(rules, FirstFollow(trees, grammar.start, by_tag, uses, kept.by_tag))
    bound, faults = bindings(rules, uses)
    yield from faults
    by_leaves = FirstFollow(trees, grammar.start, by_leaf, uses, kept.by_leaf)
    yield from _free_texts(rules, by_leaves, bound)


def _unused(linked: Linked, start: str) -> Iterator[Diagnostic]:
    reached = _reached(linked, start)
    source = linked.sources[0]
    for declaration in source.declarations:
        match declaration:
            case Definition() if not declaration.parameters and declaration.name in linked.rules:
                unused, name = declaration.name not in reached, declaration.name
            case Definition() | Declare():
                unused, name = declaration.name not in linked.used, declaration.name
            case Import() if declaration.name not in set(ConstructKind):
                unused, name = declaration.alias not in linked.used, declaration.alias
            case _:
                continue
        if unused:
            fault = _never_used(name, declaration.span, start, is_rule=name in linked.rules)
            if isinstance(declaration, Import):
                yield fault
            else:
                yield replace(fault, fix=removed(source, declaration))


def _never_used(name: str, span: Span, start: str, *, is_rule: bool) -> Diagnostic:
    terminal = is_terminal_name(name)
    code = DiagnosticCode.UNUSED_TERMINAL if terminal else DiagnosticCode.UNUSED_RULE
    message = f"`{name}` is not reached from `{start}`" if is_rule else f"`{name}` is not used"
    return Diagnostic(code, span, message, "use it, or remove it")


def _reached(linked: Linked, start: str) -> set[str]:
    reached = {start, *(linked.lost & linked.rules.keys())}
    pending = list(reached)
    while pending:
        for part in inside(linked.rules[pending.pop()].body):
            if isinstance(part, NameUse) and part.name in linked.rules and part.name not in reached:
                reached.add(part.name)
                pending.append(part.name)
    return reached


def _not_listed(rules: Rules, uses: Uses) -> Iterator[Diagnostic]:
    reached = cache(lambda: reach(bodies(rules), uses))

    def lists(listing: ir.Node, item: str) -> bool:
        return reached()(listing, item)

    for rule in rules.values():
        maps = {n.block: n for n in rule.nodes if isinstance(n, ir.MapNode)}
        for node in rule.nodes if maps else ():
            if not isinstance(node, ir.ForkNode) or node.block not in maps:
                continue
            item, listing = node.block.item or "", maps[node.block]
            if not uses.once("lists", node.block, rule.name, partial(lists, listing, item)):
                listed = reachable(references(listing), bodies(rules))
                yield Diagnostic(
                    DiagnosticCode.ITEM_NOT_LISTED,
                    node.span,
                    f"the map of this block never lists the item `{item}`",
                    did_you_mean(item, listed) or f"use `{item}` in the list of the map",
                    ((listing.span, "the items are listed here"),),
                )


def _tag_overlaps(rules: Rules) -> Iterator[Diagnostic]:
    tags: dict[str, ir.Tag] = {}
    literals: dict[str, ir.Literal] = {}
    for node in all_nodes(rules):
        if isinstance(node, ir.Tag):
            tags.setdefault(node.text, node)
        elif isinstance(node, ir.Literal):
            literals.setdefault(node.text, node)
    names = list(tags)
    places: list[ir.Tag | ir.Literal] = [*tags.values(), *literals.values()]
    for index, found in words_inside(names, [place.text for place in places]):
        large, small = places[index], tags[names[found]]
        yield Diagnostic(
            DiagnosticCode.TAG_OVERLAP,
            large.span,
            f"`{shown(large.text)}` contains the tag `{shown(small.text)}`",
            "use the terminal that is this tag here too"
            if large.text == small.text
            else "rename one, or write the longer one in parts, of which one is the tag: a tag is "
            "found wherever its text stands",
            ((small.span, f"`{shown(small.text)}` is a tag here"),),
        )


def _patterns(grammar: ir.Grammar) -> Iterator[Diagnostic]:
    states = 0
    for terminal in grammar.terminals.values():
        if not terminal.pattern or terminal.kind is ir.TerminalKind.GLUE:
            continue  # free text, or a pattern that was refused before
        if states > load_limits.STATES:
            what = f"the automata of terminals up to `{terminal.name}` have {states:,} states"
            way = "lower the counts in their regular expressions"
            yield too_large(terminal.span, what, load_limits.STATES, way)
            return
        try:
            dfa = compile_regex(terminal.pattern)
        except RegexError as error:
            states += STATE_LIMIT // 2  # what it took to find out
            yield _bad_regex(terminal, error.message)
        else:
            states += len(dfa.table)
            if dfa.accepts(b""):
                yield _empty_match(terminal)
            if (witness := whitespace_loop(dfa)) is not None:
                yield _unbounded(terminal, witness)


def _bad_regex(terminal: ir.Terminal, message: str) -> Diagnostic:
    return Diagnostic(
        DiagnosticCode.BAD_REGEX,
        terminal.span,
        f"the regex of `{terminal.name}` cannot be used: {message}",
        f"its pattern is `{shown(terminal.pattern)}`",
    )


def _too_few_labels(grammar: ir.Grammar, rules: Bodies, uses: Uses) -> Iterator[Diagnostic]:
    """Lists that ask for more items than their label has values."""
    for block in grammar.blocks:
        name = grammar.label_of(block)
        if name is None:
            continue
        least = uses.once("least items", block, block.rule, partial(least_items, block, rules))
        label = grammar.terminals[name]
        try:
            values = tag_free(label.pattern, grammar.tags)
        except RegexError:
            continue  # it is reported where it is defined
        if has_values(values) and least < 2:
            continue
        number = words_of(values).size
        free = "" if values is compile_regex(label.pattern) else " without a tag inside"
        if number < least:
            yield Diagnostic(
                DiagnosticCode.DEAD_END,
                block.span,
                f"the list of this block asks for {least:,} items whose `{name}` must differ, and "
                f"`{name}` has {number:,} value{'s' * (number != 1)}{free}",
                f"let `{name}` have more values, or ask for fewer items",
                ((label.span, f"`{name}` is defined here"),),
            )


def _empty_match(terminal: ir.Terminal) -> Diagnostic:
    return Diagnostic(
        DiagnosticCode.BAD_REGEX,
        terminal.span,
        f"`{terminal.name}` may match nothing",
        f"let it match a character at least, and write `[{terminal.name}]` where it may be missing",
    )


def _unbounded(terminal: ir.Terminal, witness: bytes) -> Diagnostic:
    shown = witness.decode("utf-8", "backslashreplace")
    return Diagnostic(
        DiagnosticCode.UNBOUNDED_WHITESPACE,
        terminal.span,
        f"`{terminal.name}` may repeat white space without end, first behind {shown!r}",
        "bound it, as in `[ ]{0,3}`: a model can spend its whole budget there",
    )


# -- where free text ends -------------------------------------------------------------------------


def _free_texts(rules: Rules, sets: FirstFollow, bound: Set[ir.Node]) -> Iterator[Diagnostic]:
    """Every free text that something other than a tag may follow. `sets` are by leaf."""
    yield from _beside_glue(rules)
    names = cache(lambda: tag_names(written_texts(rules)))
    texts = sets.bits(_is_text)
    open_ends = texts | sets.bits(lambda symbol: isinstance(symbol, (ir.Literal, ir.Field)))
    for node in all_nodes(rules):
        if not _is_text(node) or node in bound:
            continue
        after = sets.after(node).any
        follower = next(sets.named(after & texts or after & open_ends), None)
        if _is_text(follower):
            yield _next_to(node, follower)
        elif isinstance(follower, (ir.Literal, ir.Field)):
            yield _not_closed(node, follower, names())


def _beside_glue(rules: Rules) -> Iterator[Diagnostic]:
    """Glue beside a text that a branch repeats: nothing shows which blanks belong to the text."""
    bound: dict[str, set[str]] = {}
    for fork in all_nodes(rules):
        if isinstance(fork, ir.ForkNode) and fork.block.item in rules:
            bound.setdefault(fork.block.item or "", set()).update(fork.block.bound)
    for item, names in bound.items():
        for node in nodes(rules[item].node):
            for pair in pairwise(node.items) if isinstance(node, ir.Seq) else ():
                texts = [n for n in pair if _is_text(n)]
                glue = [n for n in pair if isinstance(n, ir.Field) and is_blank(n)]
                if texts and glue and texts[0].terminal.name in names:
                    yield _glued(texts[0], glue[0])


def _glued(text: ir.Field, glue: ir.Field) -> Diagnostic:
    return Diagnostic(
        DiagnosticCode.TEXT_NOT_CLOSED,
        text.span,
        f"`{text.terminal.name}`, which a branch repeats, stands beside glue: nothing shows which "
        "blanks belong to the text",
        "leave the glue out, or put a tag between them",
        ((glue.span, "this glue"),),
    )


def _is_text(node: object) -> TypeGuard[ir.Field]:
    return isinstance(node, ir.Field) and node.terminal.kind is ir.TerminalKind.TEXT


def _next_to(text: ir.Field, follower: ir.Field) -> Diagnostic:
    return Diagnostic(
        DiagnosticCode.TEXT_NEXT_TO_TEXT,
        text.span,
        f"free text `{text.terminal.name}` may stand next to free text `{follower.terminal.name}`",
        "put a tag between them: nothing else shows where the first one ends",
        ((follower.span, "this may follow it"),),
    )


def _not_closed(
    text: ir.Field, follower: ir.Literal | ir.Field, names: Mapping[str, str]
) -> Diagnostic:
    if isinstance(follower, ir.Literal):
        what, way = f"`{shown(follower.text)}`", way_to_tag(follower.text, names)
    else:
        what, way = f"`{follower.terminal.name}`", "put a tag between them"
    return Diagnostic(
        DiagnosticCode.TEXT_NOT_CLOSED,
        text.span,
        f"free text `{text.terminal.name}` may be followed by {what}, which is not a tag",
        f"close it with a tag, for nothing else ends free text; {way}",
        ((follower.span, "this may follow it"),),
    )
