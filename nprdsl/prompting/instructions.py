"""Tells a model the format of a schema: an instruction in words with an example, from the grammar.

The instruction is for models that were not trained on the format. The example, the *skeleton*, is a
short legal trace with placeholders such as `(text of step 2)` for its texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from nprdsl.grammar import ir
from nprdsl.grammar.ir import nodes
from nprdsl.grammar.item_counts import fewest, most_items
from nprdsl.grammar.walk import all_nodes, bodies, height, references, rule_heights
from nprdsl.prompting.shortest_trace import shortest_trace
from nprdsl.prompting.trace_writer import TraceWriter
from nprdsl.regular.tag_free import tag_free
from nprdsl.regular.words import ENDLESS, words_of
from nprdsl.structure.stack import UNBOUNDED
from nprdsl.trace.lexemes import tag_pattern, text_lexemes
from nprdsl.trace.parser import Parser

# Values to try for a terminal in the example, before its pattern is asked for one.
SIMPLE_VALUES = ("1", "a", "A", "yes", "true", "0", "0.5", "x")


def instructions(grammar: ir.Grammar) -> str:
    """The instruction for a model that was not trained on the format."""
    sections = [
        "Write your whole reply in the format described here. Copy the tags exactly; they give the "
        "reply its structure, so never use them for anything else.",
        "The parts of the reply:\n" + "\n".join(_parts(grammar)),
        *(_block(grammar, block) for block in grammar.blocks),
        "Rules:\n" + "\n".join(f"- {rule}" for rule in _rules(grammar)),
    ]
    values = list(_values(grammar))
    if values:
        sections.insert(-1, "Values:\n" + "\n".join(f"- {value}" for value in values))
    sections.append(
        "An example of the format; replace what stands in round brackets by your own text, and "
        f"write as many parts as you need:\n\n{skeleton(grammar)}"
    )
    return "\n\n".join(sections) + "\n"


def _parts(grammar: ir.Grammar) -> Iterator[str]:
    """One line for every rule, the start first, in the order in which a reader meets them."""
    for name in _order(grammar):
        content = _phrase(grammar.rules[name].node) or "nothing"
        yield f"- {'the whole reply' if name == grammar.start else _quoted(name)}: {content}"


def _order(grammar: ir.Grammar) -> list[str]:
    order = [grammar.start]
    for name in order:
        order += [r for r in references(grammar.rules[name].node) if r not in order]
    return order


def _phrase(node: ir.Node) -> str:
    match node:
        case ir.Tag() | ir.Literal():
            return _quoted(node.text)
        case ir.Field():
            return _field(node.terminal)
        case ir.Ref():
            return _quoted(node.rule)
        case ir.Seq():
            return ", ".join(_sequence(node))
        case ir.Alt():
            return _choice(node)
        case ir.Repeat():
            return _repetition(node)
        case ir.MapNode() | ir.JoinNode():
            return _phrase(node.node)
        case ir.ForkNode():
            return _fork(node.block)


def _sequence(node: ir.Seq) -> list[str]:
    """The phrases of a sequence; `x, up to 4 x` becomes `1 to 5 x`."""
    phrases: list[str] = []
    for item in node.items:
        turn = _turn(item) if isinstance(item, ir.Repeat) else []
        if isinstance(item, ir.Repeat) and turn and phrases[-len(turn) :] == turn:
            del phrases[-len(turn) :]
            high = None if item.high is None else item.high + 1
            item = ir.Repeat(item.node, item.low + 1, high, item.span)
        phrases += filter(None, [_phrase(item)])
    return phrases


def _turn(node: ir.Repeat) -> list[str]:
    if isinstance(node.node, ir.Seq):
        return _sequence(node.node)
    return [phrase] if (phrase := _phrase(node.node)) else []


def _field(terminal: ir.Terminal) -> str:
    match terminal.kind:
        case ir.TerminalKind.GLUE:
            return ""
        case ir.TerminalKind.TEXT:
            return "text" if terminal.name == "TEXT" else f"the {terminal.name} (text)"
        case ir.TerminalKind.REGULAR | ir.TerminalKind.TYPED:
            return f"a {terminal.name}"


def _choice(node: ir.Alt) -> str:
    phrases = [phrase for option in node.options if (phrase := _phrase(option))]
    together = " or ".join(f"({p})" if ", " in p else p for p in phrases)
    if len(phrases) == len(node.options) or not phrases:
        return f"either {together}" if len(phrases) > 1 else together
    return f"optionally {together}"


def _repetition(node: ir.Repeat) -> str:
    phrase = _phrase(node.node)
    if not phrase:
        return ""
    phrase = f"({phrase})" if ", " in phrase else phrase
    if (node.low, node.high) == (0, 1):
        return f"optionally {phrase}"
    return f"{_count(node.low, node.high)} {phrase}"


def _fork(block: ir.Block) -> str:
    if block.item is not None:
        return f"one {_quoted(block.branch)} for every {_quoted(block.item)}"
    return f"{_count(block.low, block.high)} {_quoted(block.branch)}"


def _count(low: int, high: int | None) -> str:
    if high is None:
        return {0: "any number of", 1: "one or more"}.get(low, f"{low} or more")
    if low == high:
        return f"exactly {low}"
    return f"up to {high}" if low == 0 else f"{low} to {high}"


def _block(grammar: ir.Grammar, block: ir.Block) -> str:
    """How one kind of block works: what is listed, what its branches may see, what follows."""
    branch, join = _quoted(block.branch), _joined(grammar, block)
    lines = [f"How {_quoted(block.rule)} works:"]
    if block.item is None:
        count = _count(block.low, block.high)
        lines.append(f"- Write {count} {branch}: independent attempts, one after another.")
    else:
        item = _quoted(block.item)
        lines.append(
            f"- Each {item} opens one branch. Write exactly one {branch} for every {item}, in the "
            f"order of the list."
        )
        if block.bound:
            names = " and the ".join(block.bound)
            lines.append(f"- A {branch} begins with the {names} of its {item}, copied unchanged.")
        label = grammar.label_of(block)
        if label is not None:
            lines.append(f"- No two {item} of one list have the same {label}.")
        lines.append(f"- Make each {item} self-contained: it must say all that its {branch} needs.")
    lines.append(
        f"- All {branch} are worked out at the same time, and none can see another. Use only what "
        f"stands before the first of them, and never refer to another {branch}."
    )
    if join:
        lines.append(f"- Then comes {join}. It, and all behind it, can build on every {branch}.")
    return "\n".join(lines)


def _joined(grammar: ir.Grammar, block: ir.Block) -> str:
    for node in all_nodes(grammar.rules):
        if isinstance(node, ir.JoinNode) and node.block is block:
            return _phrase(node.node)
    return ""


def _values(grammar: ir.Grammar) -> Iterator[str]:
    for terminal in grammar.terminals.values():
        if terminal.kind is ir.TerminalKind.TYPED:
            yield f"{terminal.name}: {terminal.description or _quoted(terminal.pattern)}"
        elif terminal.kind is ir.TerminalKind.REGULAR:
            example = _quoted(example_value(terminal, grammar.tags))
            yield f"{terminal.name}: for example {example}; of the form {_quoted(terminal.pattern)}"


def _rules(grammar: ir.Grammar) -> Iterator[str]:
    texts = [t for t in grammar.terminals.values() if t.kind is ir.TerminalKind.TEXT]
    if texts:
        yield "Every text says something: none is left empty, and no tag stands inside it."
    yield "Close every element that you open, and leave out none that is not optional."
    yield "Nothing stands between the parts but white space as in the example."


def _quoted(text: str) -> str:
    return f"`{text}`"


# -- the example -----------------------------------------------------------------------------------


def skeleton(grammar: ir.Grammar) -> str:
    """A short legal trace: two items in every list, every optional part once, canonical glue.

    Where the words of the example spell tags it is a shortest trace instead.
    """
    text = _Skeleton(grammar).text()
    lexemes = text_lexemes(text, tag_pattern(grammar.tags))
    return text if Parser(grammar, UNBOUNDED).legal(text, lexemes) else shortest_trace(grammar)


class _Skeleton(TraceWriter):
    """Writes the skeleton of one grammar."""

    def __init__(self, grammar: ir.Grammar) -> None:
        super().__init__(grammar)
        self._met: set[str] = set()  # rules written, or being written
        self._rules = bodies(grammar.rules)
        self._heights = rule_heights(self._rules)

    def rule(self, name: str) -> None:
        self._met.add(name)
        super().rule(name)

    def value(self, terminal: ir.Terminal) -> str:
        if terminal.kind is ir.TerminalKind.TEXT:
            name = "text" if terminal.name == "TEXT" else terminal.name.lower()
            number = f" {self.numbers[-1]}" if self.numbers else ""
            return f"({name} of {self.rules[-1]}{number})"
        block = self.listing
        if self.item is None or block is None or terminal.name not in block.bound:
            return example_value(terminal, self.grammar.tags)
        listed = (zip(block.bound, item, strict=True) for item in self.items[block.index][-1])
        taken = [value for item in listed for name, value in item if name == terminal.name]
        return example_value(terminal, self.grammar.tags, taken)

    def branches(self, block: ir.Block) -> int:
        least = max(block.low, 2)
        return least if block.high is None else min(least, block.high)

    def turns(self, node: ir.Repeat) -> int:
        turns, block = node.low, self.listing if self.item is None else None
        owed, left = (most_items(block, self._rules), self._labels_left(block)) if block else (0, 1)
        if block is not None and block.item in references(node.node):
            turns = max(turns, 2 if left > owed else 1 if left == owed else 0)
        elif not turns and self._adds(node.node) and left >= owed:
            turns = 1
        return turns if node.high is None else min(turns, node.high)

    def option(self, node: ir.Alt) -> ir.Node:
        """The option that shows most, among those that do not nest a rule in itself and have
        labels for all of their items."""
        options, block = list(node.options), self.listing if self.item is None else None
        if block is not None:
            counts, left = fewest(block, self._rules), self._labels_left(block)
            options = [o for o in options if counts.of(o) <= left]
        flat = [o for o in options if not set(self.rules) & set(references(o))]
        if not flat:
            return min(options, key=lambda o: height(o, self._heights))
        return max(flat, key=lambda o: (len(references(o)), sum(1 for _ in nodes(o)), _has_text(o)))

    def _labels_left(self, block: ir.Block) -> float:
        """How many labels the list that is being written has not used."""
        name = self.grammar.label_of(block)
        if name is None:
            return math.inf
        size = words_of(tag_free(self.grammar.terminals[name].pattern, self.grammar.tags)).size
        return math.inf if size >= ENDLESS else size - len(self.items[block.index][-1])

    def _adds(self, node: ir.Node) -> bool:
        """Whether an optional part shows something that was not shown yet."""
        named = set(references(node))
        return not named & set(self.rules) and (not named or bool(named - self._met))


def _has_text(node: ir.Node) -> bool:
    return isinstance(node, ir.Field) and node.terminal.kind is ir.TerminalKind.TEXT


def example_value(terminal: ir.Terminal, tags: tuple[str, ...], taken: Iterable[str] = ()) -> str:
    """A value of a regular or typed terminal that holds none of `tags` and is not among `taken`, a
    number if it may be. Where all values are taken, one of them.
    """
    dfa, used = tag_free(terminal.pattern, tags), set(taken)
    for value in (*(str(n + 1) for n in range(len(used) + 1)), *SIMPLE_VALUES):
        if value not in used and dfa.accepts(value.encode()):
            return value
    word = words_of(dfa).first(dfa.start, [v.encode() for v in used if dfa.accepts(v.encode())])
    return next(iter(used), "") if word is None else word.decode()
