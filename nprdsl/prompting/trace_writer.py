"""Writes one trace of a grammar from its start rule, and leaves every choice to a subclass.

What follows from the grammar is done here: tags and literals, the items that a map lists, a branch
for each of them, and the bound values that a branch repeats of its item. `prompting.instructions`
writes the example that a model is shown with it, `nprdsl.testing.traces` draws random traces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from nprdsl.grammar import ir


class TraceWriter(ABC):
    """Writes one trace, whose text is that of `parts`.

    `rules` are the rules that are being written, the outermost first, and `numbers` those of the
    items and branches. `items` holds the bound values of the items that wait for their branches:
    for each block, by its index, one list for every map of it that is open, the innermost last.
    `item` are those of the item that is being written, in the map of the block `listing`.
    """

    def __init__(self, grammar: ir.Grammar) -> None:
        self.grammar = grammar
        self.parts: list[str] = []
        self.rules: list[str] = []
        self.numbers: list[str] = []
        self.items: dict[int, list[list[tuple[str, ...]]]] = {}
        self.item: list[str] | None = None
        self.listing: ir.Block | None = None
        self._repeated: list[tuple[str, str]] = []  # names and values that the branch must repeat

    @abstractmethod
    def value(self, terminal: ir.Terminal) -> str:
        """A text or value of a terminal, where it is free."""

    @abstractmethod
    def option(self, node: ir.Alt) -> ir.Node:
        """The option to write."""

    @abstractmethod
    def turns(self, node: ir.Repeat) -> int:
        """How often to write the node inside."""

    @abstractmethod
    def branches(self, block: ir.Block) -> int:
        """How many branches to write where no item asks for them."""

    def glue(self, terminal: ir.Terminal) -> str:
        return terminal.literal

    def is_bound(self, terminal: ir.Terminal) -> bool:
        """Whether a field here is the next bound one of the item that is being written."""
        if self.item is None or self.listing is None:
            return False
        return self.listing.bound[len(self.item) :][:1] == (terminal.name,)

    def text(self) -> str:
        self.rule(self.grammar.start)
        return "".join(self.parts)

    def emit(self, text: str) -> None:
        if text:
            self.parts.append(text)

    def write(self, node: ir.Node) -> None:
        match node:
            case ir.Tag() | ir.Literal():
                self.emit(node.text)
            case ir.Field():
                self.field(node.terminal)
            case ir.Ref():
                self.rule(node.rule)
            case ir.Seq():
                for inner in node.items:
                    self.write(inner)
            case ir.Alt():
                self.write(self.option(node))
            case ir.Repeat():
                self.repeat(node)
            case ir.MapNode():
                self.map(node)
            case ir.ForkNode():
                self.fork(node)
            case ir.JoinNode():
                self.write(node.node)

    def field(self, terminal: ir.Terminal) -> None:
        if terminal.kind is ir.TerminalKind.GLUE:
            self.emit(self.glue(terminal))
            return
        if self._repeated and self._repeated[0][0] == terminal.name:
            value = self._repeated.pop(0)[1]
        else:
            value = self.value(terminal)
            if self.item is not None and self.is_bound(terminal):
                self.item.append(value)
        self.emit(value)

    def repeat(self, node: ir.Repeat) -> None:
        for _ in range(self.turns(node)):
            self.write(node.node)

    def rule(self, name: str) -> None:
        block = self.listing if self.item is None else None
        if block is not None and block.item == name:
            item = self.item = []
            self.numbers.append(str(len(self.items[block.index][-1]) + 1))
            self._body(name)
            self.numbers.pop()
            self.items[block.index][-1].append(tuple(item))
            self.item = None
        else:
            self._body(name)

    def _body(self, name: str) -> None:
        self.rules.append(name)
        self.write(self.grammar.rules[name].node)
        self.rules.pop()

    def map(self, node: ir.MapNode) -> None:
        outer = self.listing, self.item
        self.listing, self.item = node.block, None
        self.items.setdefault(node.block.index, []).append([])
        self.write(node.node)
        self.listing, self.item = outer

    def fork(self, node: ir.ForkNode) -> None:
        block = node.block
        listed = block.item is not None
        items = self.items[block.index].pop() if listed else [()] * self.branches(block)
        outer = self.listing, self.item, self._repeated
        self.listing = self.item = None
        for number, item in enumerate(items, 1):
            self._repeated = list(zip(block.bound, item, strict=True))
            self.numbers.append(str(number))
            self.write(node.branch)
            self.numbers.pop()
        self.listing, self.item, self._repeated = outer
