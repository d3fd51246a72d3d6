"""A Hypothesis strategy for small random schemas, as source texts that must all load.

Each element has tags of its own, so that the next tag decides every choice; free text is always
followed by a tag or by the end.
"""

from __future__ import annotations

from hypothesis import strategies as st

WORDS = ("a", "step", "Path", "plan_b", "think", "x-1", "done", "Π")
BRACKETS = (("<", ">"), ("[", "]"), ("⟨", "⟩"))
LABELS = ("/[1-9][0-9]*/", r"/[1-9][0-9]*(\.[1-9][0-9]*)*/", "/[a-z]{1,3}/", "/[A-Z][0-9]?/")
VALUES = ("/yes|no/", "/[0-9]{1,3}/", r"/-?[0-9]+(\.[0-9]+)?/", '"maybe"', "/[a-c]+(,[a-c]+)*/")
SEPARATORS = ('":"', '": "', '")"', '" = "')
GLUES = (r'"\n"', '" "', r'"\n\n"')


def schemas(
    *, max_parts: int = 3, max_depth: int = 2, recursive: bool = True
) -> st.SearchStrategy[str]:
    """Source texts of valid schemas.

    `max_parts` bounds the elements of one sequence, `max_depth` the elements inside elements. With
    `recursive`, some branches can hold the block that they belong to.
    """

    @st.composite
    def source(draw: st.DrawFn) -> str:
        return _SchemaAuthor(draw, max_parts, max(max_depth, 0), recursive).source()

    return source()


class _SchemaAuthor:
    """Writes one schema; lives for one example."""

    def __init__(self, draw: st.DrawFn, max_parts: int, max_depth: int, recursive: bool) -> None:
        self._draw = draw
        self._max_parts = max_parts
        self._max_depth = max_depth
        self._recursive = recursive
        self._rules: list[str] = []
        self._tags = 0
        self._used: dict[str, str] = {}  # terminal -> definition, as far as they are used
        self._declared: set[str] = set()
        self._templates: set[str] = set()
        self._separator = draw(st.sampled_from(SEPARATORS))
        self._glue_text = draw(st.sampled_from(GLUES))

    def source(self) -> str:
        before = self._text() if self._one_in(4) else ""
        after = self._maybe_glue() + self._text() if self._one_in(2) else ""
        between = self._part_always(self._max_depth) if before and after else ""
        parts = f"{between} {self._parts(self._max_depth)}"
        self._define("start", before, parts, after)
        header = f"%import .parallel ({', '.join(sorted(self._templates))})\n" * bool(
            self._templates
        )
        terminals = [f"{name}: {definition}" for name, definition in self._used.items()]
        declared = [f"%declare {name}" for name in sorted(self._declared)]
        return "\n".join((header, *reversed(self._rules), "", *terminals, *declared, ""))

    def _define(self, name: str, *parts: str) -> str:
        self._rules.append(f"{name}: {' '.join(' '.join(parts).split())}")
        return name

    def _name(self, kind: str) -> str:
        return f"{kind}_{len(self._rules)}_{self._tags}"

    def _tag_pair(self) -> tuple[str, str]:
        self._tags += 1
        left, right = self._draw(st.sampled_from(BRACKETS))
        word = f"{self._draw(st.sampled_from(WORDS))}{self._tags}"
        if self._one_in(12):
            opener, closer = f"TAG_{self._tags}_OPEN", f"TAG_{self._tags}_CLOSE"
            self._used[opener] = f'"=={self._tags}>>"'
            self._used[closer] = f'"<<{self._tags}=="'
            return opener, closer
        return f'"{left}{word}{right}"', f'"{left}/{word}{right}"'

    def _single_tag(self) -> str:
        self._tags += 1
        left, right = self._draw(st.sampled_from(BRACKETS))
        return f'"{left}go{self._tags}{right}"'

    def _one_in(self, n: int) -> bool:
        return self._draw(st.integers(0, n - 1)) == n - 1

    def _pick(self, *options: str) -> str:
        return self._draw(st.sampled_from(options))

    def _text(self) -> str:
        self._declared.add("TEXT")
        return "TEXT"

    def _maybe_glue(self) -> str:
        if self._one_in(2):
            self._used["_GLUE"] = self._glue_text
            return " _GLUE "
        return " "

    def _label(self) -> str:
        if "LABEL" not in self._used:
            self._used["LABEL"] = self._pick(*LABELS)
        return f"LABEL {self._separator}"

    def _value(self) -> str:
        number = self._draw(st.integers(0, len(VALUES) - 1))
        name = f"VALUE_{'ABCDEFG'[number]}"
        self._used[name] = VALUES[number]
        return name

    def _parts(self, depth: int) -> str:
        """One to `max_parts` elements or blocks, each decided by its first tag; the last tag
        closes.
        """
        count = self._draw(st.integers(1, self._max_parts))
        return " ".join(self._part(depth) for _ in range(count))

    def _part(self, depth: int) -> str:
        kind = self._pick("element", "block", "optional", "repeat", "choice", "spawn")
        match kind:
            case "optional":
                form = "[{}]" if self._one_in(2) else "{}?"
                return form.format(self._element(depth - 1))
            case "repeat":
                repeat = self._pick("*", "+", "~1..3", "~2", "~0..2")
                return f"{self._element(depth - 1)}{repeat}"
            case "choice":
                return f"({self._element(depth - 1)} | {self._element(depth - 1)})"
            case "block" if depth > 0:
                return self._block(depth - 1)
            case "spawn" if depth > 0:
                return self._spawn(depth - 1)
            case _:
                return self._element(depth - 1)

    def _element(self, depth: int) -> str:
        name = self._name("element")
        opener, closer = self._tag_pair()
        lead, inner = self._maybe_glue(), self._maybe_glue()
        return self._define(name, lead, opener, inner, self._content(depth), closer)

    def _content(self, depth: int) -> str:
        kind = self._pick("text", "label", "value", "nothing", "parts", "prose")
        match kind:
            case "label":
                return f"{self._label()} {self._text()}"
            case "value":
                return self._value() + self._maybe_glue()
            case "nothing":
                return ""
            case "parts" if depth > 0:
                return self._parts(depth)
            case "prose" if depth > 0:
                return f"{self._text()} ({self._part_always(depth)} {self._text()})*"
            case _:
                return self._text()

    def _part_always(self, depth: int) -> str:
        """An element or a block that cannot be left out, so that it keeps two texts apart."""
        return self._block(depth - 1) if self._one_in(2) else self._element(depth - 1)

    def _block(self, depth: int) -> str:
        name, item = self._name("block"), self._name("item")
        opener, closer = self._tag_pair()
        labelled, goal = not self._one_in(4), self._one_in(4)
        label = self._label() if labelled else ""
        if goal:
            self._declared.add("GOAL")
        self._define(item, opener, label, "GOAL" if goal else self._text(), closer)
        listed = self._list(item)
        branch = self._branch(name, depth, label if not self._one_in(8) else "", goal=goal)
        join = self._join()
        self._templates |= {"map", "process"}
        calls = f"map{{{listed}}} process{{{item}, {branch}}} {join}"
        return self._define(name, self._maybe_glue(), calls)

    def _spawn(self, depth: int) -> str:
        name = self._name("spread")
        branch = self._branch(name, depth, "", goal=False)
        count = self._pick("~1..3", "~2..4", "+", "~2")
        opener = self._single_tag() if self._one_in(2) else self._element(0)
        self._templates.add("spawn")
        return self._define(name, opener, f"spawn{{{branch}}}{count} {self._join()}")

    def _list(self, item: str) -> str:
        name = self._name("list")
        repeat = self._pick("+", "~1..3", "~2..4")
        lead = self._maybe_glue()
        if self._one_in(4):  # a list without tags of its own ends by its number of items
            return self._define(name, f"({lead} {item})~2")
        opener, closer = self._tag_pair()
        return self._define(name, opener, f"({lead} {item}){repeat}", self._maybe_glue(), closer)

    def _branch(self, block: str, depth: int, label: str, *, goal: bool) -> str:
        name = self._name("branch")
        opener, closer = self._tag_pair()
        head = f"{self._maybe_glue()} {opener} {self._maybe_glue()} {label}"
        if goal:
            inner = self._tag_pair()
            head += f" {inner[0]} GOAL {inner[1]}"
        if self._recursive and self._one_in(3):
            body = f"{self._text()} ({block} {self._text()})*"
        elif depth > 0 and self._one_in(2):
            body = f"{self._text()} {self._parts(depth)}"
        else:
            body = self._text()
        return self._define(name, head, body, closer)

    def _join(self) -> str:
        kind = self._pick("reduce", "reread")
        self._templates.add(kind)
        name = self._name("join")
        opener, closer = self._tag_pair()
        self._define(name, self._maybe_glue(), opener, self._text(), self._maybe_glue(), closer)
        return f"{kind}{{{name}}}"
