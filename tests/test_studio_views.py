"""What the pages draw: views of traces and schemas against the library's own oracles, and the file
that a view is written to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import nprdsl
from nprdsl import studio
from nprdsl.cli.failures import ExitCode
from nprdsl.pictures.trace_pictures import lanes
from nprdsl.studio import lanes as lane_models
from nprdsl.studio import pages
from nprdsl.studio import reports as report_models
from nprdsl.studio import schemas as schema_models
from nprdsl.studio import trace_rows as row_models
from nprdsl.studio import traces as trace_models
from nprdsl.studio.lanes import LanesView, StudioView
from nprdsl.testing import byte_vocabulary, traces
from nprdsl.trace.graph import Role
from nprdsl.trace.layout import Layout
from tests.cli.commands import ROOT, invoke
from tests.cli.test_check import ILLEGAL, LEGAL
from tests.documents import DOCS, Block, Printed, remade, run_python

SCHEMAS = {name: nprdsl.load(name) for name in ("npr", "multiverse", "threadweaver", "parallel_r1")}
TYPES = ROOT / "studio" / "src" / "model.ts"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&quot;\u2028"


some_trace = st.one_of(*(st.tuples(st.just(schema), traces(schema)) for schema in SCHEMAS.values()))


def pieces(view: studio.TraceView) -> list[str]:
    """The texts of the pieces, cut as a page cuts them: by UTF-16 code units."""
    data, ends = view.text.encode("utf-16-le"), np.cumsum([0, *view.lengths])
    return [data[2 * a : 2 * b].decode("utf-16-le") for a, b in pairwise(ends)]


def rules(view: studio.TraceView) -> Iterator[str]:
    starts = [first for first, _ in view.rule_runs]
    for piece in range(len(view.lengths)):
        run = np.searchsorted(starts, piece, side="right") - 1
        yield view.rules[view.rule_runs[run][1]]


def assert_lanes_are_those_of(view: LanesView, graph: nprdsl.ExecutionGraph) -> None:
    """Numbers of the graph, and what sees what as the dense mask of the layout has it."""
    assert [s.lane for s in view.segments] == list(lanes(graph))
    assert [(s.start, s.end, s.position) for s in view.segments] == [
        (s.start, s.end, s.position) for s in graph.segments
    ]
    visible = Layout.from_graph(graph, np.zeros(graph.length, np.bool_)).visible()
    for query, segment in zip(view.segments, graph.segments, strict=True):
        if not len(segment):
            continue
        seen = {i for first, last in query.sees for i in range(first, last + 1)}
        expected = {
            other.index
            for other in graph.segments
            if len(other) and other is not segment and visible[segment.start, other.start]
        }
        assert {i for i in seen if len(graph.segments[i])} == expected
    assert sum(s.units for s in view.segments) == graph.tokens


@settings(max_examples=60)
@given(some_trace)
def test_a_text_in_pieces(case: tuple[nprdsl.Schema, str]) -> None:
    schema, text = case
    view, trace = studio.text_view(schema, text), schema.parse(text)
    cut = pieces(view)
    assert "".join(cut) == text and all(cut)
    assert list(map(len, cut)) == list(view.sizes)
    assert_lanes_are_those_of(view.lanes, trace.graph)
    tags = {i for a, b in view.tags for i in range(a, b)}
    assert [cut[i] for i in sorted(tags)] == schema.tag_pattern.findall(text)
    starts = np.cumsum([0, *view.sizes]).tolist()
    for start, rule in zip(starts, rules(view), strict=False):
        inside = [e for e in trace.root.walk() if e.start <= start < e.end and e.name.islower()]
        assert rule == (inside[-1].name if inside else "")  # glue at the end is in no rule
    for segment, found in zip(trace.graph.segments, view.lanes.segments, strict=True):
        first, behind = found.pieces
        assert (starts[first], starts[behind]) == (segment.source_start, segment.source_end)


@settings(max_examples=40)
@given(some_trace, st.integers(0, 5))
def test_tokens_are_pieces(case: tuple[nprdsl.Schema, str], prompt: int) -> None:
    schema, text = case
    vocabulary = byte_vocabulary(schema.tags)
    bound = schema.bind(vocabulary)
    ids = (*b"prompt"[:prompt], *bound.encode(text))
    trace = bound.parse(ids, prompt=prompt)
    view = studio.token_view(bound, trace, logprobs=[-0.123456] * (len(ids) - prompt))
    assert view.sizes == () and len(view.lengths) == len(ids) and view.prompt_pieces == prompt
    assert view.text == "prompt"[:prompt] + text
    assert_lanes_are_those_of(view.lanes, trace.graph)
    forced = {i for a, b in view.forced for i in range(a, b)}
    assert forced == {i for i in range(prompt, len(ids)) if not trace.sampled[i]}
    assert view.logprobs == (-0.1235,) * (len(ids) - prompt)
    tagged = {i for a, b in view.tags for i in range(a, b)}
    assert tagged == {i for i, token in enumerate(ids) if token in vocabulary.special_text}


def test_an_end_token_is_a_piece_without_text() -> None:
    schema, text = nprdsl.load("arith"), LEGAL
    vocabulary = byte_vocabulary(schema.tags)
    bound = schema.bind(vocabulary)
    ids = bound.with_end(bound.encode(text))
    view = studio.token_view(bound, bound.parse(ids))
    assert (len(view.lengths), view.lengths[-1], view.text) == (len(ids), 0, text)


def test_faults_are_at_their_pieces() -> None:
    view = studio.text_view(nprdsl.load("arith"), ILLEGAL)
    cut = pieces(view)
    assert [(v.code, cut[v.piece]) for v in view.violations] == [
        (v.code, cut[view.violations[i].piece])
        for i, v in enumerate(nprdsl.load("arith").check(ILLEGAL))
    ]
    ends = np.cumsum(view.sizes)
    for shown, violation in zip(view.violations, nprdsl.load("arith").check(ILLEGAL), strict=True):
        before = ends[shown.piece] - view.sizes[shown.piece]
        assert before <= violation.offset < ends[shown.piece] or shown.piece == len(cut) - 1
    assert view.lanes.most_branches == 2


PARTS = st.sampled_from(
    ["a", "b c", "1:", "\n", "\ud800", "<step>", "<plan>", "</plan>", "<guideline>"]
)


@given(st.lists(PARTS).map("".join))
def test_any_text_has_a_view(text: str) -> None:
    """Halves of characters too, which JSON cannot hold."""
    view = studio.text_view(SCHEMAS["npr"], text)
    assert json.loads(view.model_dump_json())["text"] == text.replace("\ud800", "\ufffd")
    assert sum(view.lengths) == len(text)


def test_a_copy_is_read_and_not_produced() -> None:
    schema = SCHEMAS["parallel_r1"]
    text = schema.examples[0].trace
    view = studio.text_view(schema, text)
    copies = [s for s in view.lanes.segments if s.role is Role.REREAD]
    assert copies and all(s.units == 0 and s.caption == "read again" for s in copies)
    assert view.lanes.entries > view.lanes.tokens == len(text)


def test_a_schema_has_all_there_is_to_see() -> None:
    schema = nprdsl.load("npr")
    bound = schema.bind(byte_vocabulary(schema.tags))
    view = studio.schema_view(schema, bound, "bytes")
    assert [tag.text for tag in view.tags] == list(schema.tags)
    assert all(tag.special and len(tag.ids) == 1 for tag in view.tags)
    assert (view.minimum, view.title) == (bound.minimum, "npr")
    assert [one.target for one in view.exports] == ["xgrammar", "llguidance", "outlines"]
    for one in view.exports:
        assert one.lost == schema.export(one.target, special=bound.tag_tokens).lost
    kinds = []
    pending = [view.root]
    while pending:
        box = pending.pop()
        kinds.append(box.kind.value)
        pending += box.children
    assert {"map", "fork", "join", "rule"} <= set(kinds)


MODELS = [
    model
    for module in (lane_models, schema_models, trace_models, row_models, report_models)
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, StudioView) and model is not StudioView
]


@pytest.mark.parametrize("model", dict.fromkeys(MODELS), ids=lambda model: model.__name__)
def test_the_pages_know_the_same_fields(model: type[BaseModel]) -> None:
    source = TYPES.read_text(encoding="utf-8")
    found = re.search(rf"export interface {model.__name__} {{\n(.*?)\n}}", source, re.S)
    assert found is not None
    assert re.findall(r"^  (\w+):", found[1], re.M) == list(model.model_fields)


class Scripts(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"] or ""

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and data.strip():
            self.scripts.append(data)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that stand for those that `make studio` builds."""
    files = {"viewer.css": "b { color: red }", "viewer.js": 'let a = "</script>", b = 1 && 2;'}
    monkeypatch.setattr(pages, "static_file", files.__getitem__)


@pytest.mark.usefixtures("built")
def test_a_hostile_trace_cannot_leave_its_place() -> None:
    view = studio.text_view(SCHEMAS["npr"], HOSTILE, title=HOSTILE)
    found = Scripts(studio.page(view))
    assert found.tags.count("script") == 2 and "img" not in found.tags
    data, program = found.scripts
    assert studio.TraceView.model_validate_json(data) == view
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in found.policy
    assert "default-src 'none'" in found.policy and "unsafe" not in found.policy


def test_pages_that_are_not_built() -> None:
    with pytest.raises(studio.StudioNotBuiltError, match="run `make studio`"):
        pages.static_file("none.js")


def test_a_built_page_is_small() -> None:
    try:
        shown = studio.page(studio.text_view(nprdsl.load("arith"), LEGAL))
    except studio.StudioNotBuiltError as error:
        pytest.skip(str(error))
    assert len(shown.encode()) <= 500_000
    assert not re.search(r"""(src|href)=["']?https?:""", shown)


@pytest.mark.usefixtures("built")
def test_show_writes_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.txt").write_text(LEGAL + "\n")
    Path("bad.txt").write_text(ILLEGAL + "\n")
    assert invoke("show", "good.txt", "--schema", "arith", "--html", "good.html").output == ""
    assert invoke("show", "npr", "--html", "npr.html").output == ""
    bad = invoke("show", "bad.txt", "--schema", "arith", "--html", "bad.html")
    assert bad.exit_code == ExitCode.BAD and "label-mismatch" in bad.stderr
    views = {name: json.loads(Scripts(Path(name).read_text()).scripts[0]) for name in
             ("good.html", "npr.html", "bad.html")}  # fmt: skip
    assert views["good.html"]["title"] == "good.txt" and not views["good.html"]["violations"]
    assert views["npr.html"]["kind"] == "schema"
    assert [v["code"] for v in views["bad.html"]["violations"]][:1] == ["label-mismatch"]


def test_show_says_where_no_page_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise studio.StudioNotBuiltError("the pages are not built")

    monkeypatch.setattr(pages, "static_file", missing)
    result = invoke("show", "npr", "--html", tmp_path / "npr.html")
    assert result.exit_code == ExitCode.USAGE and "the pages are not built" in result.stderr


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        (LEGAL, "npr"),
        (SCHEMAS["threadweaver"].examples[0].trace, "threadweaver"),
        (SCHEMAS["multiverse"].examples[0].trace + "</Path>", "multiverse"),
        ("no tag at all", "npr"),
    ],
    ids=["several-read-it", "one-reads-it", "none-reads-it", "no-tags"],
)
def test_the_schema_of_a_trace_is_guessed_aloud(text: str, schema: str) -> None:
    result = invoke("show", "-", "--mermaid", stdin=text)
    assert f"read as a trace of `{schema}`" in result.stderr


def test_the_page_of_the_documentation(golden: Callable[[str | Path, str], None]) -> None:
    page = DOCS / "studio.md"

    def run(block: Block) -> Printed | None:
        return run_python(block, {}) if block.language == "python" else None

    golden(page, remade(page.read_text(encoding="utf-8"), run))
