"""Reading a schema: from what is written to declarations with places, to one resolved grammar."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from lark.exceptions import UnexpectedInput

from nprdsl.grammar import reader
from nprdsl.grammar.declarations import (
    Alternatives,
    Declare,
    Definition,
    Expansion,
    Import,
    RegexLiteral,
    Repetition,
    SourceFile,
    StringLiteral,
)
from nprdsl.grammar.diagnostics import DiagnosticCode, SchemaError, Span
from nprdsl.grammar.ir import (
    Alt,
    Field,
    ForkNode,
    Grammar,
    JoinKind,
    JoinNode,
    Literal,
    MapNode,
    Ref,
    Repeat,
    Seq,
    Tag,
    TerminalKind,
)
from nprdsl.grammar.reader import read
from nprdsl.grammar.resolve import read_grammar
from nprdsl.grammar.terminal_types import TerminalType
from tests.schema_chunks import chunks


def typed(pattern: str, *, free_text: bool = False) -> TerminalType:
    return TerminalType(pattern=pattern, convert=str, description="", free_text=free_text)


def grammar(text: str, **types: TerminalType) -> Grammar:
    return read_grammar(text, file="test.lark", name="test", types=types)


def faults(text: str, **types: TerminalType) -> list[tuple[DiagnosticCode, int]]:
    with pytest.raises(SchemaError) as caught:
        grammar(text, **types)
    return [(d.code, d.span.line) for d in caught.value.diagnostics]


# -- declarations ---------------------------------------------------------------------------------


def test_declarations_and_places() -> None:
    found = read(
        "// a comment\n%import .parallel (map, reduce)\n%import common.INT -> NUMBER\n"
        "?start.2: a\n%declare TEXT GOAL\n%ignore X\n",
        "f.lark",
    ).declarations
    assert found[0] == Import(("parallel",), True, "map", "map", Span("f.lark", 2, 20, 2, 23))
    assert found[2] == Import(("common",), False, "INT", "NUMBER", Span("f.lark", 3, 1, 3, 29))
    start = found[3]
    assert isinstance(start, Definition)
    assert (start.name, start.span) == ("start", Span("f.lark", 4, 1, 4, 7))
    assert start.priority == Span("f.lark", 4, 7, 4, 9)
    assert found[5] == Declare("GOAL", Span("f.lark", 5, 15, 5, 19))


@pytest.mark.parametrize(
    ("written", "low", "high"),
    [
        ("x?", 0, 1),
        ("[x]", 0, 1),
        ("x*", 0, None),
        ("x+", 1, None),
        ("x~3", 3, 3),
        ("x~2..5", 2, 5),
    ],
)
def test_repetition(written: str, low: int, high: int | None) -> None:
    definition = read(f"start: {written}", "f").declarations[0]
    assert isinstance(definition, Definition)
    body = definition.body
    assert isinstance(body, Repetition)
    assert (body.low, body.high) == (low, high)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r'"a\"b"', 'a"b'),
        (r'"\n\t\\"', "\n\t\\"),
        (r'"\x41\u00e9"', "Aé"),
        (r'"\boxed"', r"\boxed"),
        ('"⟨a⟩"', "⟨a⟩"),
    ],
)
def test_strings_are_unquoted_as_lark_does(written: str, value: str) -> None:
    definition = read(f"start: {written}", "f").declarations[0]
    assert isinstance(definition, Definition)
    assert isinstance(definition.body, StringLiteral)
    assert definition.body.value == value


def test_regexes_keep_their_escapes() -> None:
    definition = read(r"X: /a\/\d[\/]\\/is", "f").declarations[0]
    assert isinstance(definition, Definition)
    body = definition.body
    assert isinstance(body, RegexLiteral)
    assert (body.pattern, body.flags) == (r"a/\d[/]\\", "is")


def test_alternatives_over_lines_may_be_empty() -> None:
    definition = read('start: "<a>"  // one\n  // two\n  | "<b>" -> b\n  |\n', "f").declarations[0]
    assert isinstance(definition, Definition)
    body = definition.body
    assert isinstance(body, Alternatives)
    assert len(body.options) == 3
    assert isinstance(body.options[2], Expansion)


def test_all_faults_of_syntax_at_once_not_larks_exception() -> None:
    with pytest.raises(SchemaError) as caught:
        read('start: "<a>\nx: (y\ny: "<y>"\nz: /abc\n', "f.lark")
    assert [(d.code, d.span.line) for d in caught.value.diagnostics] == [
        (DiagnosticCode.SYNTAX, 1),
        (DiagnosticCode.SYNTAX, 2),
        (DiagnosticCode.SYNTAX, 4),
    ]
    assert "not closed" in caught.value.diagnostics[0].message
    assert caught.value.__suppress_context__


def test_text_that_is_no_schema_at_all() -> None:
    with pytest.raises(SchemaError) as caught:
        read("hello", "f.lark")
    assert [d.code for d in caught.value.diagnostics] == [DiagnosticCode.SYNTAX]


def test_an_empty_file_has_no_start() -> None:
    assert faults("") == [(DiagnosticCode.NO_START, 1)]


# -- terminals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "accepted", "refused"),
    [
        ('"a".."z"', ["a", "z"], ["A", "aa"]),
        ('"x"i', ["x", "X"], ["y"]),
        ('"a" | "b" "c"', ["a", "bc"], ["ac", "b"]),
        ('("a" | "b") "c"', ["ac", "bc"], ["a"]),
        ("A~2 [B]", ["11", "11-"], ["1", "111"]),
        ("A+ (B A)~1..2", ["1-1", "11-1-1"], ["1", "1-1-1-1"]),
        ('/a|b/ "."', ["a.", "b."], ["a", "ax"]),
        ("/[a-c]+/i", ["aBc"], ["d"]),
        ("/a.b/s", ["a\nb"], ["ab"]),
        ('"(" "[" "\\n"', ["([\n"], ["("]),
    ],
)
def test_a_terminal_becomes_one_pattern(
    definition: str, accepted: list[str], refused: list[str]
) -> None:
    used = [f'[{n} "<{n}>"]' for n in ("A", "B") if n in definition]
    rest = 'A: /1/\nB: "-"\n' if used else ""
    found = grammar(f'start: X "<x>" {" ".join(used)}\nX: {definition}\n{rest}').terminals["X"]
    assert found.kind is TerminalKind.REGULAR
    for text in accepted:
        assert re.fullmatch(found.pattern, text, re.ASCII), text
    for text in refused:
        assert not re.fullmatch(found.pattern, text, re.ASCII), text


def test_kinds_of_terminals() -> None:
    found = grammar(
        'start: "<a>" TEXT "<b>" _NL GOAL "<c>" V "<d>" /[0-9]/ "<e>" "yes"i "<f>" NOTE\n'
        '_NL: "\\n\\n" | /\\s+/\n%declare TEXT GOAL V NOTE\n',
        V=typed("[ab]"),
        NOTE=typed("", free_text=True),
    ).terminals
    assert {name: t.kind for name, t in found.items()} == {
        "TEXT": TerminalKind.TEXT,
        "_NL": TerminalKind.GLUE,
        "GOAL": TerminalKind.TEXT,
        "V": TerminalKind.TYPED,
        "ANONYMOUS_1": TerminalKind.REGULAR,
        "ANONYMOUS_2": TerminalKind.REGULAR,
        "NOTE": TerminalKind.TEXT,
    }
    assert found["_NL"].literal == "\n\n"
    assert found["V"].pattern == "[ab]"


def test_types_must_fit_the_declarations() -> None:
    given = typed("[ab]")
    schema = 'start: "<a>" V\nX: /x/\n%declare V\n'.replace("V\nX", 'V "<b>" X\nX')
    assert faults(schema, V=given, W=given) == [(DiagnosticCode.BAD_TERMINAL_TYPE, 1)]
    assert faults(schema, V=given, X=given) == [(DiagnosticCode.BAD_TERMINAL_TYPE, 2)]


def test_tags_are_literals_in_brackets_and_terminals_named_so() -> None:
    found = grammar(
        'start: "<a>" "[b]" "⟨c⟩" TAG_D E "x:" TEXT\nTAG_D: "DD"\nE: "</e>"\n%declare TEXT'
    )
    assert found.tags == ("<a>", "[b]", "⟨c⟩", "DD", "</e>")
    node = found.rules["start"].node
    assert isinstance(node, Seq)
    assert [type(n) for n in node.items] == [Tag, Tag, Tag, Tag, Tag, Literal, Field]


# -- rules, templates, imports --------------------------------------------------------------------


def test_templates_are_expanded_in_place() -> None:
    found = grammar('start: sep{a, "<,>"}\nsep{x, y}: x (y x)*\na: "<a>"\n')
    node = found.rules["start"].node
    assert isinstance(node, Seq)
    first, again = node.items
    assert isinstance(first, Ref)
    assert isinstance(again, Repeat)
    assert isinstance(again.node, Seq)
    assert [type(n) for n in again.node.items] == [Tag, Ref]
    assert list(found.rules) == ["start", "a"]


def test_a_block_may_stand_in_a_template_of_the_author() -> None:
    found = grammar(
        "%import .parallel (map, process, reduce)\nstart: fan{list, item, step, end}\n"
        "fan{l, i, s, e}: map{l} process{i, s} reduce{e}\n"
        'list: "<l>" item+ "</l>"\nitem: "<i>" N "</i>"\nstep: "<s>" N "</s>"\nend: "<e>"\n'
        "N: /[0-9]/\n"
    )
    (block,) = found.blocks
    assert (block.rule, block.item, block.branch, block.bound) == ("start", "item", "step", ("N",))
    node = found.rules["start"].node
    assert isinstance(node, Seq)
    assert [type(n) for n in node.items] == [MapNode, ForkNode, JoinNode]


def test_imports_are_followed_and_renamed(tmp_path: Path) -> None:
    (tmp_path / "parts.lark").write_text(
        '%import .words (WORD)\nnote: "<n>" WORD inner "</n>"\ninner: "<i>" TEXT\n%declare TEXT\n'
    )
    (tmp_path / "words.lark").write_text('WORD: LETTER+\nLETTER: "a".."z"\n')
    text = (
        "%import .parts.note -> remark\n%import common (INT)\n"
        'start: "<s>" TEXT inner remark "<k>" INT\ninner: "<own>"\n%declare TEXT\n'
    )
    file = str(tmp_path / "main.lark")
    found = read_grammar(text, file=file, name="main", types={})
    assert list(found.rules) == ["start", "inner", "remark", "parts__inner"]
    assert set(found.terminals) == {"TEXT", "WORDS__WORD", "INT"}
    assert re.fullmatch(found.terminals["INT"].pattern, "2026")
    (tmp_path / "words.lark").write_text('WORD: LETTER+\nLETTER: "a".."y"\n')
    changed = read_grammar(text, file=file, name="main", types={})
    assert changed.digest != found.digest


def test_faults_in_an_imported_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "parts.lark").write_text('note: "<n>" )\n')
    text = "%import .parts (note)\nstart: note\n"
    with pytest.raises(SchemaError) as caught:
        read_grammar(text, file=str(tmp_path / "main.lark"), name="main", types={})
    assert [Path(d.span.file).name for d in caught.value.diagnostics] == ["parts.lark"]


def test_imports_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.lark").write_text('%import .b (y)\nx: "<x>" [y]\n')
    (tmp_path / "b.lark").write_text('%import .a (x)\ny: "<y>" [x]\n')
    text = "%import .a (x)\nstart: x\n"
    found = read_grammar(text, file=str(tmp_path / "main.lark"), name="main", types={})
    assert list(found.rules) == ["start", "x", "b__y"]


# -- blocks ---------------------------------------------------------------------------------------

BLOCK = """
%import .parallel (map, process, reduce)
start: map{{list}} process{{item, step}} reduce{{end}}
list: "<list>" item+ "</list>"
item: "<item>" {item} "</item>"
step: "<step>" {step} "</step>"
end: "<end>"
head: LABEL ":"
LABEL: /[0-9]/
KIND: "a" | "b"
_NL: "\\n"
%declare TEXT GOAL
"""


@pytest.mark.parametrize(
    ("item", "step", "bound"),
    [
        ('LABEL ":" TEXT', '_NL LABEL ":" TEXT', ("LABEL",)),
        ('LABEL ":" TEXT', '"step " LABEL', ("LABEL",)),
        ('KIND LABEL ":" TEXT', 'KIND LABEL ":" TEXT', ("KIND", "LABEL")),
        ("head GOAL", 'head GOAL "<t>" TEXT', ("LABEL", "GOAL")),
        ('GOAL "<t>" LABEL', 'TEXT "<t>" GOAL "<u>" LABEL', ()),
        ('GOAL "<t>" LABEL', 'GOAL "<u>" LABEL "<t>" TEXT', ("GOAL", "LABEL")),
        ('TEXT "<t>" LABEL', 'TEXT "<t>" LABEL', ()),
        ("LABEL", '[_NL "<n>"] LABEL', ("LABEL",)),
        ("LABEL", '[KIND "<n>"] LABEL', ("LABEL",)),
        ('LABEL "<n>" KIND', '(LABEL | LABEL "<m>") "<n>" KIND', ("LABEL", "KIND")),
        ('KIND ":" LABEL', '("<o>" KIND "<n>" LABEL TEXT | "<p>" KIND LABEL)', ("KIND", "LABEL")),
        ('("<o>" LABEL TEXT | "<p>" LABEL)', "LABEL", ("LABEL",)),
        ('LABEL "<n>" LABEL', "LABEL", ("LABEL",)),
    ],
)
def test_terminals_before_the_first_free_text_are_bound(
    item: str, step: str, bound: tuple[str, ...]
) -> None:
    text = BLOCK.format(item=item, step=step)
    for name in ("head: ", "KIND: ", "_NL: ", "LABEL: "):
        lines = text.split("\n")
        uses = sum(name[:-2] in re.findall(r"\w+", line) for line in lines)
        if uses < 2:
            text = "\n".join(line for line in lines if not line.startswith(name))
    declared = [n for n in ("TEXT", "GOAL") if n in item + step]
    text = text.replace("%declare TEXT GOAL", f"%declare {' '.join(declared)}" if declared else "")
    (block,) = grammar(text).blocks
    assert block.bound == bound


@pytest.mark.parametrize(
    ("item", "step"),
    [
        ('KIND LABEL ":" TEXT', 'LABEL KIND ":" TEXT'),
        ('[LABEL "<n>"] KIND', "LABEL KIND"),
        ("LABEL", '("<o>" LABEL TEXT | "<p>" TEXT)'),
        ("LABEL", '("<o>" LABEL | "<p>")'),
        ('("<o>" LABEL | "<p>") KIND', '"<s>" LABEL'),
        ("LABEL", '[TEXT "<n>"] LABEL'),
        ('("<o>" KIND "<n>" LABEL | "<p>" LABEL "<n>" KIND)', "KIND LABEL"),
        ('("<o>" LABEL "<n>")* "<p>"', "LABEL"),
    ],
)
def test_a_terminal_that_some_ways_bind_is_refused(item: str, step: str) -> None:
    text = BLOCK.format(item=item, step=step)
    assert DiagnosticCode.UNDECIDED_BINDING in {code for code, _ in faults(text)}


def test_spawn_counts() -> None:
    found = grammar(
        '%import .parallel (spawn, reread)\nstart: ("<x>" spawn{path}~2..8 reread{end})+ "<over>"\n'
        'path: "<p>" TEXT "</p>"\nend: "<e>" | "<f>"\n%declare TEXT\n'
    )
    (block,) = found.blocks
    assert (block.item, block.low, block.high, block.join) == (None, 2, 8, JoinKind.REREAD)


def test_blocks_nest_through_rules() -> None:
    found = grammar(
        '%import .parallel (spawn, reduce)\nstart: block\nblock: "<o>" spawn{path}~2 reduce{end}\n'
        'path: "<p>" [block] "</p>"\nend: "<e>"\n'
    )
    (block,) = found.blocks
    assert block.rule == "block"
    path = found.rules["path"].node
    assert isinstance(path, Seq)
    assert isinstance(path.items[1], Repeat)
    assert not any(isinstance(n, Alt) for n in path.items)


def test_one_fault_does_not_hide_others() -> None:
    text = 'start: "<a>" missing TEXT TEXT ("<b>" | "<b>")\n%declare TEXT\nunused: "<c>"\n'
    assert faults(text) == [
        (DiagnosticCode.UNDEFINED_RULE, 1),
        (DiagnosticCode.TEXT_NEXT_TO_TEXT, 1),
        (DiagnosticCode.UNDECIDED_CHOICE, 1),
        (DiagnosticCode.UNUSED_RULE, 3),
    ]


def test_whatever_is_written_the_answer_is_a_grammar_or_diagnostics() -> None:
    for text in written():
        with contextlib.suppress(SchemaError):
            grammar(text)


def written() -> Iterator[str]:
    """Texts as they are while somebody types."""
    texts = [chunk.source for chunk in chunks()]
    split = re.compile(r'"[^"\n]*"|\w+|\s+|.')
    words = [w for text in texts for w in split.findall(text)]
    random = Random(7)
    for _ in range(300):
        parts = split.findall(random.choice(texts))
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(parts) + 1)
            parts[at : at + random.randint(0, 1)] = random.choices(words, k=random.randint(0, 1))
        yield "".join(parts)


def said_of(text: str, read: Callable[[str, str], SourceFile | None]) -> object:
    try:
        return read(text, "f.lark")
    except UnexpectedInput as error:
        return reader._faults(text, "f.lark") or [reader._syntax_error(error, text, "f.lark")]
    except SchemaError as error:
        return list(error.diagnostics)


def test_declarations_are_the_same_at_once_and_one_by_one() -> None:
    """Also where a line that looks like the beginning of one stands inside another."""
    inside = [
        "A: /a\nb: c/\n",  # of a regex
        "A: /a\nb: c\n",
        "a: b \\\nc: d\n",  # of a line that goes on
        "a: b // c\\\nc: d\n",
        "what\na: b\n",
        "a.1: b\r\n\n  | c\n%declare X\n",
        "a: (\nb: c)\n",
        'A: "b".."a"\nb: (\n',
    ]
    for text in (*inside, *written()):
        in_pieces = said_of(text, reader._read_in_pieces)
        if in_pieces is not None:
            assert in_pieces == said_of(text, reader._read_whole), text
    assert [said_of(text, reader._read_in_pieces) for text in inside[:3]] == [None] * 3


def test_one_change_is_read_alone() -> None:
    text = "".join(f'a{n}: "<a>" TEXT\n' for n in range(50))
    read(text, "f.lark")
    before = reader._known_piece.cache_info().misses
    read(text.replace("a7:", "b7:"), "f.lark")
    assert reader._known_piece.cache_info().misses == before + 1
