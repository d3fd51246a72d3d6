"""Any text is a grammar or a list of diagnostics, and neither takes long, whatever its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nprdsl.grammar import field_borders, field_shapes, load_limits
from nprdsl.grammar.diagnostics import DiagnosticCode, SchemaError
from nprdsl.grammar.ir import Grammar
from nprdsl.grammar.resolve import read_grammar
from nprdsl.regular import dfa
from nprdsl.regular.syntax import RegexError
from nprdsl.schema import Schema, SchemaNotFoundError, load
from nprdsl.testing import byte_vocabulary


def grammar(text: str, imports: dict[str, str] | None = None) -> Grammar:
    return read_grammar(text, file="test.lark", name="test", types={}, imports=imports or {})


def codes(text: str, imports: dict[str, str] | None = None) -> set[DiagnosticCode]:
    with pytest.raises(SchemaError) as caught:
        grammar(text, imports)
    assert len(str(caught.value)) < 100_000
    return {d.code for d in caught.value.diagnostics}


def chain(link: str, end: str, rules: int = 1200) -> str:
    """Rules of which each uses the next one; `{n}` and `{m}` in `link` are numbers of the two."""
    links = (f"a{n}: {link.format(n=n, m=n + 1)}" for n in range(rules))
    return "\n".join(["start: a0", *links, f"a{rules}: {end}", "%declare TEXT", ""])


CHAINS = {
    "references": chain("a{m}", '"<x>" TEXT'),
    "nested": chain('"<x>" a{m} "</x>"', '"<e>" TEXT'),
    "optional": chain('"<x{n}>" [a{m}]', '"<e>" TEXT'),
    "choices": chain('"<x{n}>" TEXT | a{m}', '"<e>"'),
    "branching": chain('"<x{n}>" a{m} | "<y{n}>" TEXT', '"<e>"'),
    "backwards": "\n".join(reversed(chain('"<x>" a{m}', '"<e>" TEXT').splitlines())) + "\n",
}
LARGE = {
    **CHAINS,
    "counted": 'start: ("<a>" ("<b>" TEXT)~1000..2000 "</a>")~1000000000\n%declare TEXT\n',
    "doubling rules": chain("a{m} a{m}", '"<x>"', 60).replace("%declare TEXT\n", ""),
    "doubling texts": chain('a{m} "<x{n}>" a{m}', "TEXT", 500),
    "alternatives": "start: ("
    + " | ".join(f'"<a{n}>" TEXT' for n in range(2500))
    + ')* "<e>"\n%declare TEXT\n',
    "terminal": 'start: WORD "<e>"\nWORD: ' + " | ".join(f'"w{n}"' for n in range(2000)) + "\n",
    "brackets": "start: " + '["<a>" ' * 30 + '"<c>"' + "]" * 30 + "\n",
    "comments": "// a comment\n" * 70_000 + 'start: "<a>"\n',
    "line ends": 'start: "<a>" x\n' + "\n" * 900_000 + 'x: "<b>"\n',
}
TOO_LARGE = {
    "counted": 'start: "<a>" "1"~1000000000 "</a>"\n',
    "counts in counts": 'start: a~1000\na: b~1000\nb: "1"~1000\n',
    "doubling rules": chain("a{m} a{m}", '"1"', 60).replace("%declare TEXT\n", ""),
    "doubling terminals": 'start: A0 "<x>"\n'
    + "".join(f"A{n}: A{n + 1} A{n + 1}\n" for n in range(60))
    + 'A60: "1"\n',
    "template in itself": "start: " + "a{" * 20 + '"<x>"' + "}" * 20 + "\na{x}: x x\n",
    "templates of templates": 'start: t0{"<x>"}\n'
    + "".join(f"t{n}{{x}}: t{n + 1}{{x}} t{n + 1}{{x}}\n" for n in range(40))
    + "t40{x}: x\n",
    "chain of templates": 'start: t0{"<x>"}\n'
    + "".join(f"t{n}{{x}}: t{n + 1}{{x}}\n" for n in range(2000))
    + "t2000{x}: x\n",
    "parentheses": "start: " + "(" * 5000 + '"<a>"' + ")" * 5000 + "\n",
    "open parentheses": "start: " + "(" * 5000 + "\n",
    "long tag": 'start: "<' + "x" * 100_000 + '>"\n',
    "tags that are long together": "start: "
    + " ".join(f'"<{str(n) * 200}>"' for n in range(100, 300))
    + "\n",
    "tags of many first letters": "start: TAG_T\nTAG_T: "
    + " | ".join(f'"{c}{c * 900}" | "{c}x{c * 900}"' for c in map(chr, range(48, 88)))
    + "\n",
    "tag of a page": 'start: "<' + "x" * 2_000 + '>"\n',
    "long regex": "start: /" + "x" * 100_000 + '/ "<e>"\n',
    "long name": "start: " + "a" * 100_000 + "\n",
    "long import": "%import ." + "a" * 5_000 + " (x)\nstart: x\n",
    "digits": 'start: "<a>"~' + "9" * 5_000 + "\n",
    "automata": 'start: "<a>" '
    + " ".join(f'/[a-z]{{{n}}}x/ "<b{n}>"' for n in range(1, 1000))
    + "\n",
    "words": "start: " + "a " * 100_000 + "\n",
    "characters": "//" + "x" * 1_000_000 + '\nstart: "<a>"\n',
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE.keys())
def test_large_schemas_load(text: str) -> None:
    assert grammar(text).tags


@pytest.mark.parametrize("text", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_what_is_too_large_is_refused(text: str) -> None:
    assert codes(text) == {DiagnosticCode.TOO_LARGE}


def test_what_lies_behind_doubling_rules_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk through fields has so many places as there are rules, not as pairs of them."""
    made: list[object] = []

    def counted(*parts: object) -> object:
        made.append(parts)
        return rest(*parts)

    rest: Any = field_shapes._Rest
    monkeypatch.setattr(field_shapes, "_Rest", counted)
    for link, end in (("a{m} a{m}", '"<x>" TEXT "<y>"'), ('a{m} "<x{n}>" a{m}', "TEXT")):
        made.clear()
        grammar(chain(link, end, 200))
        assert 200 < len(made) < 200 * 20


def test_a_regex_of_many_optional_parts_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dfa.compile_regex("(?:.?){30}x").accepts(b"aax")
    monkeypatch.setattr(dfa, "_MOST_PAIRS", 1_000)
    for _ in range(2):
        with pytest.raises(RegexError, match="more than 20,000 states"):
            dfa.compile_regex("(?:.?){31}x" + ".?" * 50)


def test_faults_are_listed_up_to_a_number() -> None:
    for text in (
        "start: " + " ".join(f"n{n}" for n in range(2500)),
        'start: "<a>"\n' + "".join(f'n{n}: "<b{n}>"\n' for n in range(2500)),
        'start: "<a>" )\n' * 2500,
        'start: "<a>"\n' + 'x: "<a>"\n' * 5000,
    ):
        with pytest.raises(SchemaError) as caught:
            grammar(text)
        assert len(caught.value.diagnostics) == load_limits.FAULTS


def test_fields_are_not_searched_behind_the_last_fault_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched = []
    once = field_borders._split

    def counted(*arguments: Any) -> Any:
        searched.append(1)
        return once(*arguments)

    monkeypatch.setattr(field_borders, "_split", counted)
    parts = " ".join(f'"<a{n}>" V{n} TEXT' for n in range(300))
    values = "".join(f"V{n}: /[a-z]+/\n" for n in range(300))
    with pytest.raises(SchemaError) as caught:
        grammar(f'start: {parts} "<e>"\n{values}%declare TEXT\n')
    assert len(caught.value.diagnostics) == load_limits.FAULTS
    assert len(searched) == load_limits.FAULTS


def test_a_large_circle_is_named_in_short() -> None:
    rules = "".join(f'a{n}: a{(n + 1) % 2000} "<x{n}>"\n' for n in range(2000))
    with pytest.raises(SchemaError) as caught:
        grammar("start: a0\n" + rules)
    (fault, *_) = (d for d in caught.value.diagnostics if d.code is DiagnosticCode.LEFT_RECURSION)
    assert "`a1` -> `a2`" in fault.message
    assert len(fault.message) < 200


# -- characters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        'start: "<a\ud800>"',
        r'start: "<a\ud800>"',
        r'start: "<\U00110000>"',
        'start: "<a>" \0',
        'start: "<a>"~5..2',
        'start: "<a>"~-3',
        'start: "<a>"~0 "<b>"',
        'start: "ab".."c" "<e>"',
        'start: "c".."a" "<e>"',
    ],
)
def test_what_no_schema_can_mean_is_a_fault_of_syntax(text: str) -> None:
    assert codes(text + "\n") == {DiagnosticCode.SYNTAX}


@pytest.mark.parametrize(
    "text",
    ['\ufeffstart: "<a>"\n', 'start: "<a>" x\r\nx: "<b>"\r\n  | "<c>"\r\n', 'start: "<a\0>"\n'],
    ids=["byte order mark", "line ends", "zero"],
)
def test_files_of_other_systems_load(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.lark").write_bytes(text.encode())
    schema = load(tmp_path / "x.lark")
    assert schema.tags == Schema(grammar(text)).tags
    assert schema.bind(byte_vocabulary()).minimum


# -- files ----------------------------------------------------------------------------------------


def test_what_is_imported_in_a_circle_is_a_fault() -> None:
    circle = {
        "a.lark": "%import .b (x)\n",
        "b.lark": "%import .c (x)\n",
        "c.lark": "%import .a (x)\n",
    }
    assert codes("%import .a (x)\nstart: x\n", circle) == {DiagnosticCode.IMPORT_NOT_FOUND}
    assert DiagnosticCode.IMPORT_NOT_FOUND in codes("%import .test (start)\n")
    twice = '%import .test (start)\nstart: "<a>"\n'
    assert {DiagnosticCode.IMPORT_NOT_FOUND, DiagnosticCode.DUPLICATE_NAME} <= codes(twice)


def test_a_file_on_disk_may_import_itself(tmp_path: Path) -> None:
    (tmp_path / "x.lark").write_text("%import .x (start)\n")
    with pytest.raises(SchemaError, match="imported in a circle"):
        load(tmp_path / "x.lark")


def test_imports_that_are_too_large_together() -> None:
    rules = "".join(f'r{n}: "<r{n}>"\n' for n in range(2000))
    files = {f"f{n}.lark": rules for n in range(5)}
    text = "".join(f"%import .f{n}.r0 -> x{n}\n" for n in range(5))
    assert codes(f"{text}start: x0 x1 x2 x3 x4\n", files) == {DiagnosticCode.TOO_LARGE}


def test_a_folder_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("npr", "x.lark"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("npr").name == "npr"
    with pytest.raises(SchemaNotFoundError):
        load("x.lark")
    with pytest.raises(SchemaError, match=r"no file `x\.lark`"):
        read_grammar("%import .x (a)\nstart: a\n", file="main.lark", name="main", types={})


def test_names_that_no_file_can_have() -> None:
    for name in ("x\0", "x" * 5000, "x/" * 5000, "x\0.lark", "x" * 5000 + ".lark"):
        with pytest.raises(SchemaNotFoundError):
            load(name)


def test_texts_that_come_with_a_schema_are_all_that_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server reads what a client sent, and names nothing else of its disk."""
    (tmp_path / "secret.lark").write_text('x: "<x>"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SchemaError) as caught:
        grammar("%import .secre (x)\nstart: x\n")
    assert "secret" not in str(caught.value)
    with pytest.raises(SchemaError):
        grammar("%import .secret (x)\nstart: x\n")
    files = {"sub/a.lark": '%import .b (y)\nx: "<x>" y\n', "sub/b.lark": 'y: "<y>"\n'}
    found = grammar("%import .sub.a (x)\nstart: x\n", files)
    assert (found.tags, dict(found.imports)) == (("<x>", "<y>"), files)


def test_where_packages_are_installed_is_not_told() -> None:
    with pytest.raises(SchemaError) as caught:
        grammar('%import common (WS)\nstart: "<a>" WS "<b>"\n')
    assert str(caught.value).startswith("common.lark:")
    assert "write a terminal of your own in place of Lark's" in str(caught.value)
