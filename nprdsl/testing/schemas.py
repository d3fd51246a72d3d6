"""Random schemas, with all that the language has: what `make fuzz` and the tests put to the proof.

A number gives a schema, always the same one. Most of them load: choices are decided by the next tag
and free text is closed by one. Nothing is left out because it is hard: tags that overlap or share
letters with literals, labels of any regular expression, optional parts without tags, terminals
right before free text, several blocks in a row, blocks that may be left out, lists that may be
empty or that list in rules of their own, recursion, imports, templates, types, tags that end a
model's turn. What cannot work must be refused by the checks, not by this module. What it draws from
is in `nprdsl.testing.schema_pieces`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from hypothesis import strategies as st

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.resolve import read_grammar
from nprdsl.grammar.terminal_types import typed
from nprdsl.schema import Schema
from nprdsl.testing.schema_pieces import (
    BRACKETS,
    FEW_LETTERS,
    FIXED,
    GLUES,
    INLINE,
    LABELS,
    LISTS,
    LITERALS,
    MARKERS,
    REPEATS,
    SEPARATORS,
    SHORT_LISTS,
    TYPES,
    VALUES,
    WORDS,
)


@dataclass(frozen=True, slots=True)
class RandomSchema:
    """One schema: its source, the types of what it declares by name, and the tag, if any, that a
    model's vocabulary should have as its end token."""

    number: int
    source: str
    types: Mapping[str, object] = field(default_factory=dict)
    end: str | None = None

    def load(self) -> Schema:
        """Raises `SchemaError` where the schema is refused."""
        types = {name: typed(name, spec) for name, spec in self.types.items()}
        return Schema(read_grammar(self.source, file="random.lark", name="random", types=types))


def random_schema(number: int, *, max_parts: int = 3, max_depth: int = 2) -> RandomSchema:
    """The schema of that number. `max_parts` bounds the elements of one sequence, `max_depth` the
    elements inside elements."""
    return _Author(number, max_parts, max_depth).schema()


def schemas(
    *, max_parts: int = 3, max_depth: int = 2, first: int = 2**32
) -> st.SearchStrategy[str]:
    """Sources of random schemas that load and declare no terminal that needs a type; of the `first`
    numbers only."""
    numbers = st.integers(0, first - 1)
    drawn = numbers.map(partial(random_schema, max_parts=max_parts, max_depth=max_depth))
    return drawn.filter(_loads).map(lambda schema: schema.source)


def _loads(drawn: RandomSchema) -> bool:
    try:
        drawn.load()
    except SchemaError:
        return False
    return not drawn.types


class _Author:
    """Writes one schema."""

    def __init__(self, number: int, max_parts: int, max_depth: int) -> None:
        self._number = number
        self._random = Random(f"schema {number}")
        self._unled = Random(f"joins of schema {number}")
        self._max_parts = self._random.randint(1, max_parts)
        self._max_depth = self._random.randint(0, max_depth)
        self._rules: list[str] = []
        self._calls: list[str] = []  # elements that may be used again, in place
        self._used: dict[str, str] = {}  # terminal -> definition
        self._declared: set[str] = set()
        self._imported: set[str] = set()
        self._imports: list[str] = []
        self._templates: dict[str, str] = {}
        self._types: dict[str, object] = {}
        self._label_names: list[str] = []
        self._tags = 0
        self._written: list[str] = []  # the texts of tags
        self._style = self._pick("plain", "plain", "plain", "short", "marker", "attribute", "mixed")
        self._letters = self._pick(*FEW_LETTERS)
        self._junctions = self._one_in(4)  # literals and values are made of pieces of tags
        self._closer = self._tag(closes="e") if self._one_in(8) else ""  # closes every element
        self._separator = self._pick(*SEPARATORS)
        self._glue_text = self._pick(*GLUES)

    def schema(self) -> RandomSchema:
        before = self._text() if self._one_in(4) else ""
        after = self._maybe_glue() + self._text() if self._one_in(2) else ""
        between = self._part_always(self._max_depth) if before and after else ""
        self._define("start", before, between, self._parts(self._max_depth), after)
        imports = list(self._imports)
        if self._imported:
            imports.append(f"%import .parallel ({', '.join(sorted(self._imported))})")
        rules = [*reversed(self._rules), *(f"{n}: {b}" for n, b in self._templates.items())]
        names = self._named_in("\n".join(rules))
        terminals = [f"{name}: {text}" for name, text in self._used.items() if name in names]
        declared = [f"%declare {name}" for name in sorted(self._declared & names)]
        types = {name: spec for name, spec in self._types.items() if name in names}
        end = self._pick(*self._written) if self._written and self._one_in(6) else None
        source = "\n".join((*imports, *rules, *terminals, *declared, ""))
        return RandomSchema(self._number, source, types, end)

    def _named_in(self, text: str) -> set[str]:
        """The names in a text, and in the terminals that it names."""
        names = set(re.findall(r"\w+", text))
        return names.union(*(re.findall(r"\w+", t) for n, t in self._used.items() if n in names))

    # -- drawing

    def _one_in(self, n: int) -> bool:
        return self._random.randrange(n) == 0

    def _pick(self, *options: str) -> str:
        return self._random.choice(options)

    def _define(self, name: str, *parts: str) -> str:
        mark = self._pick("?", "!") if name != "start" and self._one_in(30) else ""
        body = " ".join(" ".join(parts).split())
        body += " -> other" if body and self._one_in(30) else ""
        body += "  // a comment" if self._one_in(60) else ""
        self._rules.append(f"{mark}{name}: {body}")
        return name

    def _name(self, kind: str) -> str:
        return f"{kind}_{len(self._rules)}_{self._tags}"

    def _terminal(self, name: str, options: Sequence[str]) -> str:
        """A terminal with one of the definitions, which keeps its name."""
        number = self._random.randrange(len(options))
        name = f"{name}_{number}"
        self._used[name] = options[number]
        if "DIGIT" in options[number]:
            self._used["DIGIT"] = '"0".."3"'
        return name

    # -- tags

    def _tag_pair(self) -> tuple[str, str]:
        self._tags += 1
        return self._tag(), self._closer or self._tag(closes="/")

    def _tag(self, closes: str = "") -> str:
        style = self._style
        if style == "mixed":
            style = self._pick("plain", "short", "marker", "attribute")
        match style:
            case "short" if (text := self._fresh_short()) is not None:
                return self._named_tag(text)
            case "marker":
                word = f"{closes}{self._pick(*WORDS)}{self._tags}"
                return self._named_tag(self._pick(*MARKERS).format(word))
            case "attribute" if not closes:
                opener = self._named_tag(f"<{self._word()} {self._pick('id=', 'n: ')}")
                self._used["TAG_GT"] = quoted('">')
                return f"{opener} {self._value()} TAG_GT"
            case _:
                left, right = self._random.choice(BRACKETS)
                return self._quoted(f"{left}{closes}{self._word()}{right}")

    def _word(self) -> str:
        return f"{self._pick(*WORDS)}{self._tags}"

    def _quoted(self, text: str) -> str:
        self._written.append(text)
        return quoted(text)

    def _named_tag(self, text: str) -> str:
        name = f"TAG_{len(self._written)}"
        self._used[name] = quoted(text) + (' | "\\n==\\n"' if self._one_in(60) else "")
        self._written.append(text)
        return name

    def _fresh_short(self) -> str | None:
        """A short tag that neither holds another one nor is held by it; they may overlap."""
        for _ in range(8):
            count = self._random.randint(1, 3) if len(self._written) > 3 else 2
            text = "".join(self._random.choice(self._letters) for _ in range(count))
            if text.strip() and not any(text in tag or tag in text for tag in self._written):
                return text
        return None

    # -- what stands between tags

    def _text(self) -> str:
        name = "GOAL" if self._one_in(30) else "TEXT"
        self._declared.add(name)
        return name

    def _maybe_glue(self) -> str:
        if self._one_in(2):
            self._used["_GLUE"] = self._glue_text
            return " _GLUE "
        return " "

    def _label(self) -> str:
        """Mostly the one that all lists share."""
        if not self._label_names or self._one_in(8):
            self._label_names.append(self._new_label())
        return self._random.choice(self._label_names)

    def _new_label(self) -> str:
        if self._one_in(12):
            self._imports.append("%import common.INT -> LABEL_INT")
            return "LABEL_INT"
        if self._one_in(12):
            self._imports.append("%import .npr (LABEL)")
            return "LABEL"
        if self._one_in(12):
            return self._typed()
        return self._terminal("LABEL", LABELS)

    def _value(self) -> str:
        if self._junctions and self._written and self._one_in(3):
            return self._tag_like_value()
        return self._typed() if self._one_in(10) else self._terminal("VALUE", VALUES)

    def _typed(self) -> str:
        name = self._random.choice(list(TYPES))
        self._types[name] = TYPES[name]
        self._declared.add(name)
        return name

    def _tag_like_value(self) -> str:
        """A value that may hold a tag, or be one, or end where one begins."""
        tag = self._pick(*self._written)
        cut = self._random.randint(0, len(tag))
        name = f"ODD_{len(self._used)}"
        self._used[name] = self._pick(
            f'{quoted(tag)} | "c"',
            f'{quoted(tag[:cut] or "c")} | "d"',
            f'{quoted(tag[cut:] or "c")} | "d"',
            f'{quoted("x" + tag[:cut])} "y"?',
            f'{quoted("x" + tag + "y")} | "z"',
        )
        return name

    def _literal(self) -> str:
        if self._junctions and self._written and self._one_in(2):
            tag = self._pick(*self._written)
            cut = self._random.randint(1, max(1, len(tag) - 1))
            return quoted(self._pick(tag[:cut], tag[cut:] or "x"))
        return self._pick(*LITERALS)

    def _field(self) -> str:
        """Content that ends by itself or by the tag behind it: literals, values, glue."""
        match self._pick("value", "value", "literal", "pair", "fenced", "run", "inline"):
            case "literal":
                return self._literal()
            case "inline":
                return self._pick(*INLINE)
            case "pair":
                return f"{self._literal()} {self._value()}"
            case "fenced":
                return f"{self._literal()} {self._value()} {self._literal()}"
            case "run":
                return f"{self._value()} {self._literal()} {self._value()}"
            case _:
                return self._value()

    # -- elements

    def _parts(self, depth: int) -> str:
        """One to `max_parts` elements or blocks, each decided by its first tag; the last tag
        closes."""
        count = self._random.randint(1, self._max_parts)
        return " ".join(self._part(depth) for _ in range(count))

    def _part(self, depth: int) -> str:
        kinds = (
            "element",
            "block",
            "optional",
            "repeat",
            "choice",
            "spawn",
            "template",
            "again",
            "imported",
            "maybe block",
            "blocks",
        )
        match self._pick(*kinds):
            case "optional":
                form = "[{}]" if self._one_in(2) else "{}?"
                return form.format(self._element(depth - 1))
            case "repeat":
                return f"{self._element(depth - 1)}{self._pick(*REPEATS)}"
            case "choice":
                return f"({self._element(depth - 1)} | {self._element(depth - 1)})"
            case "block" if depth > 0:
                return self._blocks(depth - 1)
            case "spawn" if depth > 0:
                return self._spawn(depth - 1)
            case "maybe block" if depth > 0:
                form = self._pick("[{}]", "{}?", "{}*", "{}~1..2", "({} | _GLUE)")
                return self._formed(form, self._blocks(depth - 1))
            case "blocks" if depth > 0:
                other = self._blocks(depth - 1) if self._one_in(2) else self._element(depth - 1)
                return f"({self._blocks(depth - 1)} | {other})"
            case "template" if depth > 0 and self._one_in(3):
                return self._block_template(depth - 1)
            case "template":
                return self._template(depth - 1)
            case "again" if self._calls:
                return self._random.choice(self._calls)
            case "imported":
                return self._imported_rule()
            case _:
                return self._element(depth - 1)

    def _element(self, depth: int) -> str:
        name = self._name("element")
        opener, closer = self._tag_pair()
        lead, inner = self._maybe_glue(), self._maybe_glue()
        content = self._content(depth)
        if self._one_in(12):  # holds itself
            content = f"{content} {self._formed(self._pick('[{}]', '{}?', '{}*'), name)}"
        if self._one_in(12):
            content = f"({content} | {self._single_tag()} {self._pick('', self._text())})"
        made = self._define(name, lead, opener, inner, content, closer)
        self._calls.append(made)
        return made

    def _content(self, depth: int) -> str:
        kinds = ("text", "label", "field", "nothing", "parts", "prose", "optional", "open", "count")
        match self._pick(*kinds, "either"):
            case "label":
                return f"{self._label()} {self._separator} {self._text()}"
            case "field":
                return self._field() + self._maybe_glue()
            case "nothing":
                return ""
            case "parts" if depth > 0:
                return self._parts(depth)
            case "prose" if depth > 0:
                return f"{self._text()} ({self._part_always(depth)} {self._text()})*"
            case "optional":
                return self._optional_content()
            case "open":
                return self._open_content()
            case "either":  # free text or a value, each with a tag of its own behind it
                form = self._pick("[{} {}] {} {}", "({} {} | {} {})", "({} {} | {} {})+")
                tags = self._single_tag(), self._single_tag()
                return form.format(self._text(), tags[0], self._field(), tags[1])
            case "count":
                return f"({self._value()} {self._single_tag()}){self._pick(*REPEATS)}"
            case _:
                return self._text()

    def _optional_content(self) -> str:
        """A part without a tag inside that may be missing."""
        part = self._pick(self._text(), self._value(), self._literal(), f"({self._field()})")
        return self._formed(
            self._pick("{}?", "[{}]", "{}~0..1", "({} | _GLUE)", "({} | _GLUE)", "( | {})"), part
        )

    def _formed(self, form: str, part: str) -> str:
        if "_GLUE" in form:
            self._used["_GLUE"] = self._glue_text
        return form.format(part)

    def _open_content(self) -> str:
        """A terminal right before free text."""
        if self._one_in(2):
            return f"{self._terminal('FIXED', FIXED)} {self._text()}"
        if self._one_in(3):
            return f"{self._value()} {self._text()}"
        return f"{self._value()} {self._literal()} {self._text()}"

    def _single_tag(self) -> str:
        self._tags += 1
        return self._tag(closes="go")

    def _part_always(self, depth: int) -> str:
        """An element or a block that cannot be left out, so that it keeps two texts apart."""
        return self._blocks(depth - 1) if self._one_in(2) else self._element(depth - 1)

    def _template(self, depth: int) -> str:
        name = self._pick("wrap", "pair", "twice")
        if f"{name}{{x}}" not in self._templates:
            forms = {"wrap": "{0} x {1}", "pair": "x {0} x {1}", "twice": "{0} x x"}
            body = forms[name].format(self._single_tag(), self._single_tag())
            self._templates[f"{name}{{x}}"] = body
        inner = self._element(depth)
        if self._one_in(3) and "wrap{x}" in self._templates:
            return f"{name}{{wrap{{{inner}}}}}"
        return f"{name}{{{inner}}}"

    def _block_template(self, depth: int) -> str:
        """A block whose list, item, branch and join are given where it is used."""
        made = self._block_calls(depth)
        found = re.fullmatch(r"map\{(\w+)\} process\{(\w+), (\w+)\} (\w+)\{(\w+)\}", made)
        assert found is not None
        listed, item, branch, kind, join = found.groups()
        body = f"map{{list}} process{{item, branch}} {kind}{{join}}"
        self._templates[f"{kind}_all{{list, item, branch, join}}"] = body
        return f"{kind}_all{{{listed}, {item}, {branch}, {join}}}"

    def _imported_rule(self) -> str:
        """An element or a whole block of a schema that ships; each is used once."""
        wanted = self._pick(
            ".npr.takeaway",
            ".arith.takeaway",
            ".npr.block",
            ".parallel_r1.summary",
            ".multiverse.block",
            ".threadweaver.block",
        )
        name = f"own_{wanted.split('.')[-1]}"
        line = f"%import {wanted} -> {name}"
        if any(name in known for known in self._imports):
            return self._element(0)
        self._imports.append(line)
        self._written += ["<takeaway>", "</takeaway>"]
        return name

    # -- blocks

    def _blocks(self, depth: int) -> str:
        """A block, or several in one sequence: the same twice, or two."""
        if self._one_in(5):
            calls = f"{self._block_calls(depth)} {self._block_calls(depth)}"
            return self._define(self._name("blocks"), self._maybe_glue(), calls)
        block = self._block(depth)
        if self._one_in(5):
            return self._define(self._name("blocks"), block, block)
        return block

    def _block(self, depth: int) -> str:
        name = self._name("block")
        lead = self._single_tag() if self._one_in(4) else ""
        return self._define(name, self._maybe_glue(), lead, self._block_calls(depth, name))

    def _block_calls(self, depth: int, name: str = "") -> str:
        item = self._name("item")
        opener, closer = self._tag_pair()
        bound = self._pick("label", "label", "label", "goal", "both", "two", "none", "tail")
        head = self._head(bound)
        rest = self._text() if bound in ("label", "none") else ""
        if self._one_in(8) and bound != "none":  # opened by a literal
            opener = f'"- {self._tags} "'
        if self._one_in(10):  # another way, which writes the same
            self._define(
                item,
                f"{opener} {head} {rest} {closer} | {self._single_tag()}",
                f"{head} {rest} {closer}",
            )
        else:
            self._define(item, opener, head, rest, closer)
        listed = self._list(item)
        branch = self._branch(name, depth, "" if self._one_in(8) else head, goal="GOAL" in head)
        self._imported |= {"map", "process"}
        return f"map{{{listed}}} process{{{item}, {branch}}} {self._join()}"

    def _head(self, bound: str) -> str:
        """What item and branch have in common."""
        match bound:
            case "goal":
                return self._goal()
            case "both":
                return f"{self._label()} {self._separator} {self._goal()}"
            case "two":
                between = self._separator if self._one_in(2) else self._single_tag()
                return f"{self._label()} {between} {self._value()}"
            case "tail":
                return self._label()
            case "none":
                return ""
            case _:
                form = "[{}]" if self._one_in(12) else "{}"
                return f"{self._label()} {form.format(self._separator)}"

    def _goal(self) -> str:
        self._declared.add("GOAL")
        return "GOAL"

    def _spawn(self, depth: int) -> str:
        name = self._name("spread")
        branch = self._branch(name, depth, "", goal=False)
        count = self._pick("~1..3", "~2..4", "+", "~2", "")
        opener = self._single_tag() if self._one_in(2) else self._element(0)
        self._imported.add("spawn")
        return self._define(name, opener, f"spawn{{{branch}}}{count} {self._join()}")

    def _list(self, item: str) -> str:
        name = self._name("list")
        lead = self._maybe_glue()
        if self._one_in(4):  # a list without tags of its own ends by its number of items
            return self._define(name, f"({lead} {item}){self._pick(*SHORT_LISTS)}")
        opener, closer = self._tag_pair()
        inner = self._items(f"{lead} {item}")
        if self._one_in(8):
            inner = f"{self._text()} {inner}"
        return self._define(name, opener, inner, self._maybe_glue(), closer)

    def _items(self, item: str) -> str:
        """The items of a list, in one of the forms that a list may have."""
        repeat = self._pick(*LISTS)
        kinds = ("plain",) * 8 + ("maybe", "groups", "apart", "texts", "mixed", "chain", "twice")
        match self._pick(*kinds):
            case "maybe":
                return f"[({item})+]"
            case "groups":  # listed in a rule of its own
                opener, closer = self._tag_pair()
                inner = f"({item}){self._pick(*LISTS)}"
                group = self._define(self._name("group"), opener, inner, closer)
                return f"({group}){repeat}"
            case "apart":
                between = self._single_tag() if self._one_in(2) else self._literal()
                return f"{item} ({between} {item}){repeat}"
            case "texts":
                return f"({item} {self._text()}){repeat}"
            case "mixed":
                return f"({item} | {self._element(0)}){repeat}"
            case "chain":
                name = self._name("chain")
                return self._define(name, f"{item} [{name}]")
            case "twice":
                return f"({item}){self._pick('', '?', '~2')} {self._single_tag()} ({item}){repeat}"
            case _:
                return f"({item}){repeat}"

    def _branch(self, block: str, depth: int, head: str, *, goal: bool) -> str:
        name = self._name("branch")
        opener, closer = self._tag_pair()
        if goal:
            head += f" {self._single_tag() if self._one_in(2) else self._literal()}"
        elif head.split()[-1:] and head.split()[-1] in self._label_names:
            head += f" {self._separator if self._one_in(2) else self._single_tag()}"
        inner = "" if goal else self._maybe_glue()
        if block and self._one_in(3):
            body = f"{self._text()} ({block} {self._text()})*"
        elif depth > 0 and self._one_in(2):
            body = f"{self._text()} {self._parts(depth)}"
        elif self._one_in(6):
            body = f"({self._text()} | {self._single_tag()})"
        elif self._one_in(8):
            body = self._pick("", f"[{self._text()}]", self._value(), f"{self._value()}?")
        else:
            body = self._text()
        if self._one_in(8):  # another way, which repeats the same
            other = f"{self._single_tag()} {inner} {head} {self._text()} {closer}"
            return self._define(name, f"{opener} {inner} {head} {body} {closer} | {other}")
        return self._define(name, self._maybe_glue(), opener, inner, head, body, closer)

    def _join(self) -> str:
        kind = self._pick("reduce", "reread")
        self._imported.add(kind)
        name = self._name("join")
        opener, closer = self._tag_pair()
        if self._one_in(4):
            self._define(name, opener)
            return f"{kind}{{{name}}}"
        parts = [self._maybe_glue(), opener, self._text(), self._maybe_glue(), closer]
        match self._unled.choice(("led", "led", "led", "text", "choice")):
            case "text":  # the model writes what stands first behind the branches
                parts = parts[2:]
            case "choice":
                parts = [opener, *parts[2:], "|", closer]
            case _:
                pass
        self._define(name, *parts)
        return f"{kind}{{{name}}}"


def quoted(text: str) -> str:
    """A string literal of a schema."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
