"""Published formats as a new author writes them: they run, or the refusal says how to write them.

`tests/formats` holds them; the first line of each file says what cannot be said. Two ways of one
format show that what a refusal says leads to a schema that runs.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import nprdsl
from nprdsl.grammar.diagnostics import DiagnosticCode
from nprdsl.grammar.tag_shapes import tag_names, way_to_tag
from nprdsl.pictures.messages import render_schema_error
from nprdsl.schema import UnenforcedWarning, UntaggedWarning
from nprdsl.testing import fuzz
from tests.walks import schema_of

FORMATS = Path(__file__).parent / "formats"
# What a refusal of a format must name: the way out, or what the language lacks.
REFUSED = {
    "asyncthink": ["`[TEXT] x`"],
    "chat_turns": ["move `_NL` to the front"],
    "chinese_names": ["names are ASCII"],
    "debate": ["nor two forks with one join", "alternatives of one rule"],
    "fork_without_join": ["a fork without a join cannot be said"],
    "llmcompiler": ["`nprdsl.FreeText`", "a terminal named `TAG_…`"],
    "numbered_paths": ["`TAG_BOXED: "],
    "sot": ['`TAG_NL: "\\n"`'],
    "sprint": ['`TAG_PROMPT: "<Prompt_"`', "no closing tag can repeat it"],
    "tot": ['write `"</score>" "</thought>"`'],
}
NAMES = sorted(path.stem for path in FORMATS.glob("*.lark"))


@pytest.mark.filterwarnings("ignore::nprdsl.schema.UnenforcedWarning")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_a_format_runs(name: str) -> None:
    report = fuzz(nprdsl.load(FORMATS / f"{name}.lark"), examples=3)
    assert report.ok, report.failure


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_leads_on(name: str, golden: Callable[[str, str], None]) -> None:
    with pytest.raises(nprdsl.SchemaError) as caught:
        nprdsl.load(FORMATS / f"{name}.lark")
    for words in REFUSED[name]:
        assert words in str(caught.value)
    golden(f"rendering/formats/{name}.txt", render_schema_error(caught.value))


# What is warned of in formats that load, as they seem to mean more than the language holds.
UNENFORCED = {
    "asyncthink_joined": "branches that run while their list is written cannot be said",
    "parathinker": "branches that know their number cannot be said",
    "pasta": "branches that run while their list is written cannot be said",
    "react": "text from outside, such as the answer to `Action `, cannot be said",
    "result_only": "a join that sees a part of each branch cannot be said",
    "tool_result": "text from outside, such as the answer to `<call>`, cannot be said",
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_what_a_format_does_not_hold_is_warned_of(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnenforcedWarning)
        nprdsl.load(FORMATS / f"{name}.lark")
    said = [str(warning.message) for warning in caught]
    assert len(said) == (name in UNENFORCED), said
    assert all(UNENFORCED[name] in sentence for sentence in said)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ('l: "<l>" (i "<x>" TEXT)+ "</l>"', "between two `i` is written before"),
        ('l: "<l>" g+ "</l>"\ng: TEXT "<g>" i "</g>"', "between two `i` is written before"),
        ('l: "<l>" TEXT i+ "</l>"', ""),
        ('l: "<l>" i+ "<x>" TEXT "</l>"', ""),
        ('l: "<l>" (i TEXT)? "</l>"', ""),
        ('l: "<l>" (i | "<x>" TEXT "</x>") [l] "</l>"', "between two `i` is written before"),
    ],
)
def test_text_between_items_is_written_before_branches(
    rules: str, words: str, tmp_path: Path
) -> None:
    text = (
        "%import .parallel (map, process, reduce)\nstart: map{l} process{i, b} reduce{j}\n"
        f'{rules}\ni: "<i>" N "</i>"\nb: "<b>" N "</b>"\nj: "<j>"\nN: /[1-9]/\n%declare TEXT\n'
    )
    text = text if "TEXT" in rules else text.replace("%declare TEXT\n", "")
    (tmp_path / "x.lark").write_text(text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nprdsl.load(tmp_path / "x.lark")
    assert [words in str(w.message) for w in caught] == [True] * bool(words)


def test_a_label_that_may_not_stand_everywhere_is_warned_of(tmp_path: Path) -> None:
    text = (
        "%import .parallel (map, process, reduce)\nstart: map{l} process{i, b} reduce{j}\n"
        'l: "<l>" i~1..3 "</l>"\ni: "<i>" N "a" "</i>" | "<k>" N "b" "</i>"\n'
        'b: "<b>" N ":" TAG_T\nj: "<j>"\nN: "x" | "y" | "z"\nTAG_T: "xa" | "yb" | "!"\n'
    )
    (tmp_path / "x.lark").write_text(text)
    with pytest.warns(UnenforcedWarning, match="this list may end after 1 item: only so many"):
        nprdsl.load(tmp_path / "x.lark")
    (tmp_path / "x.lark").write_text(text.replace("i~1..3", "i~2"))
    with pytest.raises(nprdsl.SchemaError, match="only 1 value of `N` spells no tag with what"):
        nprdsl.load(tmp_path / "x.lark")
    (tmp_path / "x.lark").write_text(text.replace("i~1..3", "i"))  # one is enough
    (tmp_path / "y.lark").write_text(text.replace('N "b"', 'N "a"'))  # the same everywhere
    (tmp_path / "z.lark").write_text(text.replace('N "a"', 'N "." "a"').replace('"b"', '"." "b"'))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in "xyz":
            nprdsl.load(tmp_path / f"{name}.lark")


# -- names that promise a tag ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "tags"),
    [
        ('"THINK:" | "PLAN:"', ["THINK:", "PLAN:"]),
        ('"THINK" ":"', ["THINK:"]),
        ('("a" | "b") "=" ("1" | "2")', ["a=1", "a=2", "b=1", "b=2"]),
        ('"<x>" | "<y>"', ["<x>", "<y>"]),
        ('("a" | "a") "."', ["a."]),
    ],
)
def test_all_strings_of_a_named_tag_are_tags(definition: str, tags: list[str]) -> None:
    schema = schema_of(f'start: TAG_T TEXT "</s>"\nTAG_T: {definition}\n%declare TEXT\n')
    assert list(schema.tags) == [*tags, "</s>"]
    for tag in tags:
        assert schema.check(f"{tag} text</s>") == []
        assert schema.check(f"{tag} text {tag} text</s>")
    assert fuzz(schema, examples=3).ok


def test_an_imported_name_promises_a_tag_too(tmp_path: Path) -> None:
    (tmp_path / "parts.lark").write_text(
        'note: TAG_A TEXT TAG_B\nTAG_A: "A:"\nTAG_B: "B:"\nC: "C:"\n%declare TEXT\n'
    )
    text = (
        "%import .parts (note, TAG_A)\n%import .parts.C -> TAG_C\n"
        "start: note TEXT TAG_A TEXT TAG_C\n%declare TEXT\n"
    )
    (tmp_path / "main.lark").write_text(text)
    assert nprdsl.load(tmp_path / "main.lark").tags == ("A:", "B:", "C:")


@pytest.mark.parametrize(
    ("literal", "way"), [("【计划】", 'TAG_END: "【计划】"'), ("<a b>", 'TAG_A_B: "<a b>"')]
)
def test_a_literal_that_looks_like_a_tag_is_warned_of(
    literal: str, way: str, tmp_path: Path
) -> None:
    (tmp_path / "x.lark").write_text(f'start: "<x>" "{literal}" WORD "</x>"\nWORD: /[a-z]+/\n')
    with pytest.warns(UntaggedWarning, match="is a literal, no tag") as caught:
        nprdsl.load(tmp_path / "x.lark")
    assert way in str(caught[0].message)


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("<a></a>", 'write `"<a>" "</a>"`'),
        ("</a>\n</b>", 'write `"</a>" _NL "</b>"`'),
        ("</a>\n", "move the rest to the front of the element that follows"),
        ("\n</a>", "move the rest in front of it"),
        ("</a\t", '`TAG_A: "</a\\t"`; a value in a tag'),
        ('say "x"', '`TAG_SAY_X: "say \\"x\\""`'),
        ("x" * 1000, "…"),
    ],
)
def test_ways_to_a_tag(text: str, way: str) -> None:
    found = way_to_tag(text, tag_names([text]))
    assert way in found
    assert len(found) < 200


@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.parametrize(
    "texts",
    [
        ("--", "==", "\n\n"),
        ("prompt 1", "prompt 2", "prompt 3"),
        ("# Plan", "= Plan", "PLAN:", "END."),
        ("【计划】", "【步骤】"),
        ("a beginning that is long", "a beginning of another"),
    ],
)
def test_ways_to_tags_can_be_followed_one_by_one(
    texts: tuple[str, ...], which: int, tmp_path: Path
) -> None:
    quoted = [json.dumps(text, ensure_ascii=False) for text in texts]
    source = f"start: {' '.join(f'TEXT {text}' for text in quoted)}\n%declare TEXT\n"
    file = tmp_path / "x.lark"
    for _ in texts:
        file.write_text(source, encoding="utf-8")
        with pytest.raises(nprdsl.SchemaError) as caught:
            nprdsl.load(file)
        assert {fault.code for fault in caught.value.diagnostics} == {
            DiagnosticCode.TEXT_NOT_CLOSED
        }
        way = re.search(r"`(TAG_\w+): (.*)`", caught.value.diagnostics[which].suggestion)
        assert way is not None
        source = f"{source.replace(way[2], way[1], 1)}{way[1]}: {way[2]}\n"
    file.write_text(source, encoding="utf-8")
    assert set(nprdsl.load(file).tags) == set(texts)


def test_a_text_among_tags_is_written_as_its_refusal_says(tmp_path: Path) -> None:
    rest = 'x: "<x>" TEXT "</x>"\n%declare TEXT\n'
    (tmp_path / "x.lark").write_text(f'start: "<s>" (TEXT | x)* "</s>"\n{rest}')
    with pytest.raises(nprdsl.SchemaError, match=r"make `\[TEXT\] \(x \[TEXT\]\)\*`"):
        nprdsl.load(tmp_path / "x.lark")
    (tmp_path / "x.lark").write_text(f'start: "<s>" [TEXT] (x [TEXT])* "</s>"\n{rest}')
    schema = nprdsl.load(tmp_path / "x.lark")
    for inner in ("", "a", "<x>b</x>", "a<x>b</x><x>c</x>d"):
        assert schema.check(f"<s>{inner}</s>") == []


def test_shipped_schemas_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("npr", "multiverse", "threadweaver", "parallel_r1", "arith"):
            nprdsl.load(name)


def test_end_of_a_line_in_the_middle_of_a_message() -> None:
    with pytest.raises(nprdsl.SchemaError) as caught:
        schema_of('start: TAG_A TEXT TAG_B\nTAG_A: "\\n"\nTAG_B: "\\nAction: "\n%declare TEXT\n')
    assert [d.code for d in caught.value.diagnostics] == [DiagnosticCode.TAG_OVERLAP]
    assert "`\\nAction: ` contains the tag `\\n`" in str(caught.value)
