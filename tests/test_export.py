"""What is exported, and what is said to be lost; no other library is needed."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nprdsl
from nprdsl.export import ExportError, ExportLimits, Target, export, units
from nprdsl.export.freetext import OPEN, START, free_text, text_regex
from nprdsl.export.linear import linearise
from nprdsl.export.rust_regex import to_rust
from nprdsl.grammar.ir import Node
from nprdsl.regular.syntax import Regex, parse
from nprdsl.schema import Schema
from nprdsl.structure.field_split import BLANKS
from tests.linear_samples import sample
from tests.walks import SUMS
from tests.walks import schema_of as schema_from

SCHEMAS = ("arith", "multiverse", "npr", "parallel_r1", "threadweaver")
TAGS = ("<plan>", "</plan>", "<step>", "<s>", "[go]")
NUMBERED = "`LABEL` in `plan` and `step` is numbered 1, 2, … in order; other labels are refused"
PAST = "a token may run past the end of an item, a list or a branch"
LOOSE = "free text may be blank or empty, and may be broken UTF-8 (`exact_text` forbids both)"
BLANK = "free text may be blank or empty (`exact_text` forbids it)"
LETTERS = "free text may spell a special tag in letters (`exact_text` forbids it)"
UNNAMED = "a special token that `special` does not name may stand in free text"
NAMES = "free text cannot spell the name of a special token"
STAND_IN = "a tag's stand-in may be spelled byte by byte where its token may stand"


def test_limits_reach_the_exported_grammar() -> None:
    schema = nprdsl.load("npr")
    exact = schema.export("xgrammar", limits=ExportLimits(exact_text=True))
    assert LOOSE in schema.export("xgrammar").lost
    assert LOOSE not in exact.lost


def schema_of(source: str, tmp_path: Path) -> Schema:
    file = tmp_path / "own.lark"
    file.write_text(f"{source}\n%declare TEXT\n", "utf-8")
    return nprdsl.load(file)


def special_of(schema: Schema) -> dict[str, int]:
    names = (*schema.tags, "<|end|>")
    return {name: 1000 + index for index, name in enumerate(names)}


# -- the linear language ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_linear_trace_is_legal(name: str) -> None:
    schema = nprdsl.load(name)
    linear = linearise(schema.grammar, ExportLimits(items=3))
    for seed in range(20):
        text = sample(linear, Random(seed), depth=7)
        assert not schema.check(text), text


def test_items_in_a_recursive_list_are_counted(tmp_path: Path) -> None:
    schema = schema_of(
        """
        %import .parallel (map, process, reduce)
        start: map{list} process{item, step} reduce{end}
        list:  "<l>" items "</l>"
        items: item (";" items)?
        item:  "<i>" LABEL "</i>"
        step:  "<s>" LABEL ":" TEXT "</s>"
        end:   "<e>" TEXT "</e>"
        LABEL: /[A-Z]/
        """,
        tmp_path,
    )
    linear = linearise(schema.grammar, ExportLimits(items=3))
    texts = {sample(linear, Random(seed)).partition("</l>")[0] for seed in range(50)}
    assert texts == {
        "<l><i>A</i>",
        "<l><i>A</i>;<i>B</i>",
        "<l><i>A</i>;<i>B</i>;<i>C</i>",
    }
    assert "more than 3 items in `start`" in linear.lost
    assert not schema.check(sample(linear, Random(0)))


def test_several_items_a_turn_and_an_optional_item(tmp_path: Path) -> None:
    schema = schema_of(
        """
        %import .parallel (map, process, reduce)
        start: map{list} process{item, step} reduce{end}
        list:  "<l>" (item ";" item ".")~1..2 ("<x>" item)? "</l>"
        item:  "<i>" LABEL "</i>"
        step:  "<s>" LABEL "</s>"
        end:   "<e>" TEXT "</e>"
        LABEL: /[0-9]/
        """,
        tmp_path,
    )
    linear = linearise(schema.grammar, ExportLimits())
    texts = [sample(linear, Random(seed)) for seed in range(60)]
    assert {text.count("<i>") for text in texts} == {2, 3, 4, 5}
    assert all(text.count("<i>") == text.count("<s>") for text in texts)
    assert not any(schema.check(text) for text in texts)
    assert linear.lost == (
        "`LABEL` in `item` and `step` is numbered 1, 2, … in order; other labels are refused",
    )


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize(
    ("items", "least"), [("i~9", 9), ("i~10..12", 10), ('i~5 "<x>" i~6', 11), ("(i i i)~4", 12)]
)
def test_a_list_of_more_items_than_are_spelled_out(target: Target, items: str, least: int) -> None:
    schema = schema_from(
        "%import .parallel (map, process, reduce)\nstart: map{l} process{i, s} reduce{r}\n"
        f'l: "<l>" {items} "</l>"\ni: "<i>" N "</i>"\ns: "<s>" N "</s>"\nr: "<r>"\n'
        "N: /[1-9][0-9]*/\n"
    )
    exported = schema.export(target)
    assert f"<s>{least}</s>" in re.sub(r"[\\ \"]", "", exported.text) or str(least) in exported.text
    assert any("more than" in lost for lost in exported.lost) == (".." in items)


@pytest.mark.parametrize(
    ("items", "listed"),
    [
        ("i*", ["", "1", "12"]),
        ("i~0..2", ["", "12"]),
        ("[i+]", ["", "123"]),
        ("g*", ["", "<g></g>", "<g></g><g>1</g><g></g>", "<g>1</g><g></g><g>2</g>"]),
        ("g~3", ["<g></g><g></g><g></g>", "<g>1</g><g>2</g><g></g>"]),
        ('(i | "<x>")+', ["<x>", "1<x>", "<x>1<x><x>2"]),
        ("[i~9]", [""]),  # nine of four labels: never written
    ],
)
def test_a_list_may_be_empty(items: str, listed: list[str]) -> None:
    schema = schema_from(
        "%import .parallel (map, process, reduce)\nstart: map{l} process{i, s} reduce{r}\n"
        f'l: "<l>" {items} "</l>"\ni: "<i>" N "</i>"\ns: "<s>" N "</s>"\nr: "<r>"\n'
        + ('g: "<g>" i? "</g>"\n' if "g" in items else "")
        + "N: /[1-4]/\n"
    )
    exported = re.compile(schema.export("outlines").text)
    for marks in listed:
        items_of = re.sub(r"(\d)", r"<i>\1</i>", marks)
        text = f"<l>{items_of}</l>" + re.sub(r"\D*(\d)\D*", r"<s>\1</s>", marks) * any(
            map(str.isdigit, marks)
        )
        assert schema.check(f"{text}<r>") == []
        assert exported.fullmatch(f"{text}<r>"), text


def test_turns_without_items_that_must_stand_behind_are_said() -> None:
    schema = schema_from(
        "%import .parallel (map, process, reduce)\nstart: map{l} process{i, s} reduce{r}\n"
        'l: "<l>" (i | "<x>")~2..3 "</l>"\ni: "<i>" "</i>"\ns: "<s>"\nr: "<r>"\n'
    )
    said = "in the list of `start`, turns without `i` stand behind those with one"
    assert said in schema.export("xgrammar").lost


def test_a_list_that_is_too_long_to_spell_out() -> None:
    schema = schema_from(
        "%import .parallel (map, process, reduce)\nstart: map{l} process{i, s} reduce{r}\n"
        'l: "<l>" i~1000 "</l>"\ni: "<i>" N "</i>"\ns: "<s>" N "</s>"\nr: "<r>"\n'
        "N: /[1-9][0-9]*/\n"
    )
    with pytest.raises(ExportError, match="1000 items at least"):
        schema.export(Target.XGRAMMAR)


def test_what_a_branch_need_not_repeat_is_said(tmp_path: Path) -> None:
    schema = schema_of(
        """
        %import .parallel (map, process, reduce)
        start: map{list} process{item, step} reduce{end}
        list:  "<l>" item~1..2 "</l>"
        item:  "<i>" KIND "/" GOAL "</i>"
        step:  "<s>" KIND "/" GOAL "</s>" TEXT "</t>"
        end:   "<e>" TEXT "</e>"
        KIND:  /(sum|product)/
        %declare GOAL
        """,
        tmp_path,
    )
    linear = linearise(schema.grammar, ExportLimits())
    assert linear.lost == (
        "`step` need not repeat the `KIND` of its `item`",
        "`step` need not repeat the `GOAL` of its `item`",
    )


def test_forks_by_count_lose_nothing() -> None:
    linear = linearise(nprdsl.load("parallel_r1").grammar, ExportLimits())
    assert linear.lost == ()


# -- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "special", "lost"),
    [
        ("xgrammar", False, (NUMBERED, PAST, LOOSE)),
        ("xgrammar", True, (NUMBERED, LOOSE, UNNAMED, NAMES)),
        ("llguidance", False, (NUMBERED, PAST)),
        ("llguidance", True, (NUMBERED, LETTERS)),
        ("outlines", False, (NUMBERED, PAST, BLANK, "a repetition may go beyond its 15 turns")),
        (
            "outlines",
            True,
            (NUMBERED, BLANK, LETTERS, "a repetition may go beyond its 15 turns", STAND_IN),
        ),
    ],
)
def test_losses_are_announced(target: str, special: bool, lost: tuple[str, ...]) -> None:
    schema = nprdsl.load("npr")
    found = schema.export(target, special=special_of(schema) if special else None)
    assert found.target is Target(target)
    assert set(found.lost) == set(lost)


@pytest.mark.parametrize("target", ["xgrammar", "llguidance"])
def test_exact_text_leaves_only_labels_to_lose(target: str) -> None:
    schema = nprdsl.load("npr")
    special = {tag: 7 + index for index, tag in enumerate(schema.tags)}
    found = export(schema.grammar, target, special=special, limits=ExportLimits(exact_text=True))
    assert set(found.lost) - {UNNAMED} == {NUMBERED}


def test_nested_blocks_are_written_out_for_outlines_only() -> None:
    grammar = nprdsl.load("multiverse").grammar
    assert not any("deep" in loss for loss in export(grammar, "xgrammar").lost)
    found = export(grammar, "outlines", limits=ExportLimits(depth=4, items=6))
    assert len(found.text) < 1_500_000
    assert any(re.fullmatch(r"`body` inside `body` is written out \d deep", x) for x in found.lost)


def test_special_tags_are_named_by_id() -> None:
    schema = nprdsl.load("npr")
    special = special_of(schema)
    token = special["</step>"]
    assert f"Token({token})" in schema.export("xgrammar", special).text
    assert f"<[{token}]>" in schema.export("llguidance", special).text
    outlines = schema.export("outlines", special)
    assert outlines.text.count("\\x{e004}") >= 5  # `<step>` is the fifth tag
    assert outlines.stand_ins["<step>"] == "\ue004"


def test_a_target_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="no export to `guidance`; the targets are xgrammar, "):
        nprdsl.load("npr").export("guidance")


def test_a_rule_called_root_is_not_the_root(tmp_path: Path) -> None:
    schema = schema_of('start: "<a>" root "</a>"\nroot: TEXT', tmp_path)
    lines = schema.export("xgrammar").text.splitlines()
    assert lines[:2] == ['root ::= "<a>" ROOT "</a>"', "ROOT ::= TEXT"]


def test_an_expression_that_cannot_be_short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nprdsl.export.outlines._LONGEST", 1000)
    with pytest.raises(ExportError, match="export to xgrammar or llguidance"):
        nprdsl.load("npr").export("outlines")


# -- expressions -----------------------------------------------------------------------------------

parts = st.sampled_from([*TAGS, "<", "</", "<st", "ep>", "[", "g", " ", "\n", "x", "é"])


@given(st.lists(parts, max_size=7).map("".join))
def test_free_text_is_neither_blank_nor_holds_a_tag(text: str) -> None:
    tagless = not any(tag in text for tag in TAGS)
    exact, loose = text_patterns()
    assert bool(exact.fullmatch(text)) == (tagless and bool(text.strip(BLANKS)))
    assert bool(loose.fullmatch(text)) == tagless


def test_a_tag_that_begins_inside_another() -> None:
    """Only tags of no bracket shape can; the automaton holds for any texts."""
    tags = ("x=en", "=e!")
    exact = compiled(text_regex(free_text(tags), START))
    texts = ["".join(letters) for letters in itertools.product("x=en!", repeat=5)]
    assert all(bool(exact.fullmatch(t)) != any(tag in t for tag in tags) for t in texts)


@cache
def text_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    found = free_text(TAGS)
    return compiled(text_regex(found, START)), compiled(text_regex(found, OPEN))


def compiled(regex: Regex) -> re.Pattern[str]:
    return re.compile(python_syntax(to_rust(regex)))


def python_syntax(text: str) -> str:
    """The same expression in Python's syntax, which lacks `\\x{…}`."""
    return re.sub(r"\\x\{([0-9a-f]+)\}", lambda m: f"\\U{int(m[1], 16):08x}", text)


PATTERNS = (
    r"[1-9][0-9]*(\.[1-9][0-9]*)*",
    r"(?i:ab|c)[^\d\s]{2,3}\w?.x*",
    r"(?s:.)a+?|[^\W_]|\S\D",
    r"[\]\-a^]\/?~&&#",
    r"(?i:[a-c])|é|[à-ü]\x00?",
    r"^(a|ab|)(c{2}|c{3,})$",
)


noise = st.text("abcABC12. \n\t_-]/~&#é世ax^\0", max_size=5)


@given(st.data())
def test_expressions_mean_the_same_in_rust(data: st.DataObject) -> None:
    pattern = data.draw(st.sampled_from(PATTERNS))
    ours = re.compile(pattern, re.ASCII)
    legal = data.draw(st.from_regex(ours, fullmatch=True))
    other = data.draw(noise) + legal[data.draw(st.integers(0, 3)) :]
    theirs = compiled(parse(pattern))
    assert theirs.fullmatch(legal)
    assert bool(theirs.fullmatch(other)) == bool(ours.fullmatch(other))


def test_the_dot_excludes_the_newline_unless_told() -> None:
    assert not compiled(parse(".")).fullmatch("\n")
    assert compiled(parse("(?s:.)")).fullmatch("\n")


def test_outlines_text_accepts_traces_and_refuses_faults() -> None:
    schema = schema_from(SUMS)
    text = schema.export("outlines").text
    accepts = re.compile(python_syntax(text))
    linear = linearise(schema.grammar, ExportLimits())
    for seed in range(10):
        trace = sample(linear, Random(seed))
        assert accepts.fullmatch(trace)
        assert not accepts.fullmatch(trace.replace("<step>", "", 1))
        assert not accepts.fullmatch(trace.replace("</guideline>", "<plan>9: x</plan></guideline>"))


def test_every_alternative_of_a_branch_gets_its_number() -> None:
    schema = schema_from(
        "%import .parallel (map, process, reduce)\nstart: map{l} process{i, s} reduce{r}\n"
        'l: "<l>" i~2 "</l>"\ni: "<i>" N "</i>"\ns: "<s>" N "</s>" | "<t>" N ":" TEXT "</t>"\n'
        'r: "<r>"\nN: /[1-9]/\n%declare TEXT\n'
    )
    text = schema.export(Target.XGRAMMAR).text
    assert 's_2 ::= ("<s>" "2" "</s>" | "<t>" "2" ":" TEXT "</t>")' in text
    assert "N ::=" not in text


@pytest.mark.parametrize("turns", ["~0..1000", "~1000", "~3..1000"])
@pytest.mark.parametrize("target", list(Target))
def test_turns_are_written_out_only_until_they_begin_alike(target: Target, turns: str) -> None:
    made = schema_from(f'start: "<a>" _GLUE ("<b>" | "<c>"){turns} "<d>"\n_GLUE: "\\n"\n')
    assert len(export(made.grammar, target).text) < 2000


def blocks(count: int) -> str:
    """A schema of so many blocks, one behind the other, each with rules of its own."""
    lines = ["%import .parallel (map, process, reduce)", "%declare TEXT"]
    lines.append("start: " + " ".join(f"b{n}" for n in range(count)))
    for n in range(count):
        lines.append(f"b{n}: map{{g{n}}} process{{p{n}, s{n}}} reduce{{t{n}}}")
        lines.append(f'g{n}: "<g{n}>" p{n}~1..5 "</g{n}>"')
        lines.append(f'p{n}: "<p{n}>" L ":" TEXT "</p{n}>"')
        lines.append(f's{n}: "<s{n}>" L ":" TEXT "</s{n}>"')
        lines.append(f't{n}: "<t{n}>" TEXT "</t{n}>"')
    return "\n".join([*lines, "L: /[1-9]/"])


def test_a_rule_is_read_again_only_when_what_it_uses_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four times as many blocks took fourteen times as many readings."""
    reads = Counter[int]()
    original = units._Gatherer._read

    def counted(
        gatherer: units._Gatherer, node: Node, opened: units.Open
    ) -> dict[units.Open, Node]:
        reads[count] += 1
        return original(gatherer, node, opened)

    monkeypatch.setattr(units._Gatherer, "_read", counted)
    for count in (6, 24):
        schema_from(blocks(count)).export("llguidance")
    assert reads[24] <= 8 * reads[6]
