"""The strategies of `nprdsl.testing` themselves: what they draw is what they promise."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from nprdsl.grammar.ir import ForkNode, Grammar
from nprdsl.grammar.resolve import read_grammar
from nprdsl.schema import Schema, load, shipped
from nprdsl.structure.stack import Bounds
from nprdsl.structure.violations import Violation, ViolationCode
from nprdsl.testing import (
    Mutation,
    MutationKind,
    Property,
    Reading,
    Spacing,
    all_mutations,
    byte_vocabulary,
    derive,
    fuzz,
    mutated,
    mutations,
    straddling_merges,
    token_traces,
    tokenise,
    traces,
)
from nprdsl.testing.reference import Tree, Unread, items_of
from nprdsl.tokens.vocabulary import Vocabulary
from tests.walks import schema_of

UNBOUNDED = Bounds()
SMALL = settings(max_examples=50, deadline=None, suppress_health_check=tuple(HealthCheck))

TINY = """
%import .parallel (map, process, reduce)
start: map{list} process{item, branch} reduce{join}
list: "<l>" item~1..3 "</l>"
item: "<i>" LABEL ":" TEXT "</i>"
branch: "<b>" LABEL ":" TEXT "</b>"
join: _NL "<j>" TEXT "</j>"
LABEL: /[1-9]/
_NL: "\\n"
%declare TEXT
"""
LEGAL = "<l><i>1:a</i><i>2:b</i></l><b>1:c</b><b>2:d</b>\n<j>e</j>"


def grammar(source: str = TINY) -> Grammar:
    return read_grammar(source, file="tiny.lark", name="tiny", types={})


def forks(tree: Tree) -> list[Tree]:
    return [node for node in tree.walk() if isinstance(node.node, ForkNode)]


# -- the reference reading


def test_the_reference_gives_the_tree_of_a_legal_text() -> None:
    tree = derive(grammar(), LEGAL)
    assert tree is not None
    (fork,) = forks(tree)
    assert [LEGAL[b.start : b.end] for b in fork.children] == ["<b>1:c</b>", "<b>2:d</b>"]
    assert "".join(LEGAL[leaf.start : leaf.end] for leaf in tree.leaves()) == LEGAL


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<b>2:d</b>", ""),
        ("<b>2:d</b>", "<b>2:d</b><b>3:x</b>"),
        ("<b>2", "<b>3"),
        ("<i>2", "<i>1"),
        ("2:b", "2: "),
        ("2:b", "2b"),
        ("\n<j>", "x<j>"),
        ("</j>", ""),
        ("</j>", "</j>\n"),
        ("<i>2:b</i>", "<i>2:b</i><i>3:c</i><i>4:d</i>"),
    ],
)
def test_the_reference_refuses_what_is_not_legal(old: str, new: str) -> None:
    text = LEGAL.replace(old, new)
    reading = Reading(grammar(), text)
    assert reading.tree is None
    assert reading.refusal is not None
    assert (
        LEGAL[: min(reading.refusal.offset, LEGAL.index(old))]
        == text[: LEGAL.index(old)][: reading.refusal.offset]
    )


@pytest.mark.parametrize("glue", ["", "\n", "  \r\n\t\f\v"])
def test_the_reference_takes_any_white_space_for_glue(glue: str) -> None:
    assert derive(grammar(), LEGAL.replace("\n", glue)) is not None


def test_the_refusal_says_where_and_what_was_wanted() -> None:
    refusal = Reading(grammar(), LEGAL.removesuffix("</j>")).refusal
    assert refusal is not None
    assert (refusal.offset, refusal.unread) == (len(LEGAL) - 4, Unread.END)
    short = Reading(grammar(), LEGAL.replace("<b>2:d</b>", "")).refusal
    assert short is not None and short.miscounted
    wrong = Reading(grammar(), LEGAL.replace("<b>2", "<b>3")).refusal
    assert wrong is not None and wrong.mislabelled


# -- legal traces


@pytest.mark.parametrize("name", shipped())
def test_bounds_of_traces_are_kept(name: str) -> None:
    if name == "triage":
        pytest.skip("has types of its own")
    schema = load(name)

    @SMALL
    @given(traces(schema, max_items=3, max_depth=1, max_blocks=2))
    def run(text: str) -> None:
        reading = Reading(schema.grammar, text, max_depth=1)
        assert reading.tree is not None, reading.refusal
        assert len(forks(reading.tree)) <= 2
        assert all(len(fork.children) <= 3 for fork in forks(reading.tree))

    run()


@SMALL
@given(traces(Schema(grammar()), spacing=Spacing.CANONICAL))
def test_canonical_traces_have_the_glue_of_the_schema(text: str) -> None:
    assert "</b>\n<j>" in text


def test_all_counts_labels_and_awkward_texts_are_reached() -> None:
    schema = load("npr")
    strategy = traces(schema)
    for wanted in ("</pla", "\\boxed", "🙂", "<plan>4:", "\n\n", "\x00"):
        find(
            strategy, lambda text, w=wanted: w in text, settings=settings(SMALL, max_examples=4000)
        )


def test_traces_shrink_to_one_block_with_one_item() -> None:
    schema = load("npr")
    text = find(traces(schema), lambda _: True, settings=settings(SMALL, database=None))
    assert text.count("<plan>") == text.count("<step>") == text.count("<guideline>") == 1


def test_own_text_is_used_and_never_holds_a_tag() -> None:
    schema = Schema(grammar())
    own = st.sampled_from(["ok", "<b>", "  "])

    @SMALL
    @given(traces(schema, text=own))
    def run(text: str) -> None:
        assert text == text.replace(">ok", ">").replace(":ok", ":") or "ok" in text
        assert derive(schema.grammar, text) is not None

    run()


# -- token traces


@pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
def test_token_traces_spell_legal_texts(special: bool) -> None:
    schema = load("npr")
    merges = () if special else straddling_merges(schema.tags)
    bound = schema.bind(byte_vocabulary(special=schema.tags if special else (), merges=merges))

    @SMALL
    @given(token_traces(bound))
    def run(ids: tuple[int, ...]) -> None:
        assert derive(schema.grammar, bound.vocabulary.text(ids)) is not None
        used = {bound.vocabulary.special_text[i] for i in ids if i in bound.vocabulary.special_text}
        assert used == (set(schema.tags) if special else set())

    run()


def test_tokens_straddle_tags_where_the_vocabulary_has_them() -> None:
    tiny = grammar()
    vocabulary = byte_vocabulary(merges=["x<", "1:a<", ">\n"])
    ids = tokenise(tiny, vocabulary, LEGAL)
    assert ids is not None and vocabulary.text(ids) == LEGAL
    spelled = [vocabulary.bytes_of(token) for token in ids]
    assert b"1:a<" in spelled
    assert b">\n" not in spelled, "the last branch must end with its token"


def test_a_vocabulary_that_cannot_spell_gives_none() -> None:
    vocabulary = Vocabulary({0: "a"}, special={"<e>": 1}, eos="<e>")
    assert tokenise(grammar(), vocabulary, LEGAL) is None


# -- mutations


def test_all_mutations_leave_the_language_and_cover_every_kind() -> None:
    tiny = Schema(grammar())
    made = list(all_mutations(tiny, LEGAL))
    assert {m.kind for m in made} == set(MutationKind) - {MutationKind.TOO_DEEP}
    assert all(derive(tiny.grammar, m.text) is None for m in made)
    assert all(m.expected and 0 <= m.offset <= len(m.text) for m in made)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (MutationKind.ADD_BRANCH, ViolationCode.COUNT_MISMATCH),
        (MutationKind.RELABEL_BRANCH, ViolationCode.LABEL_MISMATCH),
        (MutationKind.DUPLICATE_LABEL, ViolationCode.DUPLICATE_LABEL),
        (MutationKind.STRAY_TEXT, ViolationCode.STRAY_TEXT),
        (MutationKind.BLANK_TEXT, ViolationCode.EMPTY_TEXT),
        (MutationKind.ONE_TOO_MANY, ViolationCode.TOO_MANY),
    ],
)
def test_plain_kinds_have_one_expected_code(kind: MutationKind, code: ViolationCode) -> None:
    tiny = Schema(grammar())
    assert {m.expected for m in all_mutations(tiny, LEGAL) if m.kind is kind} == {frozenset({code})}


def test_a_tag_that_begins_as_glue_does_may_be_told_as_a_tag_out_of_place() -> None:
    made = schema_of(
        'start: TAG_0 _GLUE TEXT TAG_1\nTAG_0: " :"\nTAG_1: "::"\n_GLUE: " "\n%declare TEXT\n'
    )
    for mutation in all_mutations(made, " : x::"):
        assert made.check(mutation.text)[0].code in mutation.expected, mutation


def test_mutations_of_an_illegal_text_are_refused() -> None:
    with pytest.raises(ValueError, match="this text is not legal"):
        mutations(Schema(grammar()), "<l>")


def test_too_deep_needs_a_limit() -> None:
    schema = load("multiverse")

    @SMALL
    @given(mutated(schema, kinds=[MutationKind.TOO_DEEP], max_depth=1))
    def run(mutation: Mutation) -> None:
        assert derive(schema.grammar, mutation.text) is not None
        assert schema.check(mutation.text, Bounds(depth=1))[0].code is ViolationCode.TOO_DEEP

    run()


# -- the fuzzer


def test_fuzz_counts_what_it_ran() -> None:
    calls: list[tuple[int, int]] = []
    report = fuzz(load("npr"), 20, lambda done, total: calls.append((done, total)))
    assert report.ok, report.failure
    assert report.examples == 20 == len(calls)
    assert calls[-1] == (20, 20)
    assert sum(report.refused.values()) == 20 and report.characters > 0


def test_fuzz_finds_and_shrinks_a_wrong_checker(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = load("npr")
    honest = Schema.check

    def blind(self: Schema, text: str, bounds: Bounds = UNBOUNDED) -> list[Violation]:
        found = honest(self, text, bounds)
        return [v for v in found if v.code is not ViolationCode.DUPLICATE_LABEL]

    monkeypatch.setattr(Schema, "check", blind)
    report = fuzz(schema, 1000)
    assert report.failure is not None
    assert report.failure.broken is Property.REFUSED
    assert "duplicate-label" in report.failure.message
    assert report.failure.text.count("<plan>") <= 3


def test_items_of_a_map_are_those_of_its_own_block() -> None:
    made = grammar()
    tree = derive(made, LEGAL)
    assert tree is not None
    assert [LEGAL[i.start : i.end] for i in items_of(made.blocks[0], tree)] == [
        "<i>1:a</i>",
        "<i>2:b</i>",
    ]


def test_the_reference_reads_a_repeated_value_as_its_item_has_it() -> None:
    made = grammar(
        """
%import .parallel (map, process, reduce)
start: map{l} process{i, b} reduce{j}
l: "<l>" i "</l>"
i: "<i>" V "</i>"
b: "<b>" V TEXT "</b>"
j: "<j>"
V: /[a-z]{1,4}/
%declare TEXT
"""
    )
    assert derive(made, "<l><i>ab</i></l><b>abcd</b><j>") is not None
    assert derive(made, "<l><i>ab</i></l><b>acbd</b><j>") is None


REPEATED_TEXT = """
%import .parallel (map, process, reread)
start:  map{{list}} process{{item, branch}} reread{{join}} TEXT
list:   "<l>" item~1..2 "</l>"
item:   "<i>" GOAL "</i>"
branch: "<b>" {} "</b>"
join:   "<j>"
_NL:    "\\n"
%declare GOAL TEXT
"""


@pytest.mark.parametrize("body", ['GOAL _NL "x"', '"y" GOAL "x" TEXT _NL'])
def test_a_repeated_text_is_compared_with_the_blanks_around_it(body: str) -> None:
    schema = schema_of(REPEATED_TEXT.format(body))
    front = "y" if '"y"' in body else ""
    for listed, repeated in itertools.product(("(", " (", "( "), ("(", " (", "( ", " ( ")):
        end = "x" if body.endswith('"x"') else "xg"
        text = f"<l><i>{listed}</i></l><b>{front}{repeated}{end}</b><j>e"
        legal = derive(schema.grammar, text) is not None
        assert legal == (not schema.check(text)), text
        assert legal or listed != repeated, text


def test_the_reference_reads_a_rule_once_at_each_place() -> None:
    nested = 'start: e TEXT\ne: _GLUE "<a>" _GLUE (V "<b>")* e? "</a>"\nV: /[a-z]/\n_GLUE: " "\n'
    depth = 30  # each glue may take its blanks or leave them
    text = "  <a>  " * depth + "</a>" * depth + "x"
    assert derive(grammar(nested + "%declare TEXT\n"), text) is not None


def test_one_more_in_a_list_that_holds_itself_is_not_one_too_many() -> None:
    source = """
    %import .parallel (map, process, reread)
    start:  map{list} process{item, branch} reread{join} TEXT
    list:   "<l>" chain "</l>"
    chain:  item [chain]
    item:   "<i>" TEXT "</i>"
    branch: "<b>" TEXT "</b>"
    join:   "<j>"
    %declare TEXT
    """
    made = schema_of("\n".join(line.strip() for line in source.splitlines()))
    legal = "<l><i>x</i><i>y</i></l><b>x</b><b>y</b><j>e"
    many = [m for m in all_mutations(made, legal) if m.kind is MutationKind.ONE_TOO_MANY]
    assert many
    for mutation in many:
        found = made.check(mutation.text)
        assert found and found[0].code in mutation.expected
