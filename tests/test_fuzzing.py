"""`fuzz` blames no fine schema, and finds faults that are planted in the product."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import pytest

from nprdsl.masks import automaton, budget_masks, completion_cost, fields
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.regular.tag_scan import tag_scan
from nprdsl.structure.field_content import FieldContent
from nprdsl.structure.stack import BoundValue
from nprdsl.structure.violations import Violation
from nprdsl.testing import byte_vocabulary, fuzz
from nprdsl.testing.fuzzing import refused_at
from nprdsl.testing.mutations import MutationKind, all_mutations
from nprdsl.tokens.fresh_labels import FreshLabels
from nprdsl.trace.lexemes import Lexeme
from nprdsl.trace.parser import ParsedText, Parser
from tests.walks import schema_of

# An element that begins with a literal; a branch and a join that open with one tag; a tag that
# begins where free text may end; parts without a tag that may be missing; labels that run out.
FINE = {
    "attributes": r"""
%import .parallel (map, process, reduce)
start: map{plan} process{item, step} reduce{final}
plan: "<plan>" item~1..9 "</plan>"
item: "<item id=\"" ID "\" kind=\"" KIND "\">" TEXT "</item>"
step: "<step id=\"" ID "\">" TEXT "</step>"
final: "<final confidence=\"" CONF "\">" TEXT "</final>"
ID: /[1-9]/
KIND: "compute" | "lookup"
CONF: /0\.[0-9]{1,2}|1\.0/
%declare TEXT
""",
    "chat turns": r"""
%import .parallel (map, process, reread)
start: map{lead} process{ask, agent} reread{final}
lead: "<|im_start|>" "lead\n" TEXT (ask _NL)+ "<|im_end|>"
ask: "<|ask|>" NAME ": " GOAL "<|/ask|>"
agent: _NL "<|im_start|>" "agent " NAME "\n" GOAL "<|think|>" TEXT "<|im_end|>"
final: _NL "<|im_start|>" "lead\n" TEXT "<|im_end|>"
NAME: /[a-z]{2,10}/
_NL: "\n"
%declare TEXT GOAL
""",
    "branch and join alike": r"""
%import .parallel (map, process, reduce)
start: map{list} process{item, turn} reduce{end}
list: "<list>" item~1..3 "</list>"
item: "<item>" N "</item>"
turn: "<turn>" N ":" TEXT "</turn>"
end: "<turn>" TEXT "</turn>"
N: /[1-9]/
%declare TEXT
""",
    "tags that overlap": r"""
%import .parallel (map, process, reduce)
start: map{l} process{i, s} reduce{r}
l: TAG_A i~2..4 TAG_B
i: TAG_C V TAG_D
s: TAG_E V TAG_D TEXT TAG_C
r: TAG_F
TAG_A: "ab"
TAG_B: "ba"
TAG_C: "cc"
TAG_D: "cd"
TAG_E: "dc"
TAG_F: "dd"
V: /[a-d]{1,3}/
%declare TEXT
""",
    "rows of a table": r"""
%import .parallel (map, process, reduce)
start: map{head} process{row, cell} reduce{foot}
head: TAG_TOP row* TAG_MID
row: TAG_BAR N TAG_EOL
cell: TAG_CELL N ": " TEXT TAG_EOL
foot: TAG_BOT [TEXT]
N: /[a-z|]{1,3}/
TAG_TOP: "|==\n"
TAG_MID: "|--\n"
TAG_BAR: "| "
TAG_EOL: " |\n"
TAG_CELL: "> "
TAG_BOT: "==|"
%declare TEXT
""",
    "lines of YAML": r"""
%import .parallel (map, process, reduce)
start: TAG_DOC map{keys} process{key, entry} reduce{tail}
keys: "keys" (TAG_DASH key)~0..4 TAG_SEP
key: K TAG_COLON
entry: TAG_ENTRY K TAG_COLON " " VAL TAG_STOP
tail: TAG_TAIL
K: /[a-z](-?[a-z]){0,2}/
VAL: /"[^"\n]{0,4}"|-?[0-9]{1,3}(\.[0-9])?|null/
TAG_DOC: "---\n"
TAG_DASH: "\n- "
TAG_COLON: ":"
TAG_SEP: "\n...\n"
TAG_ENTRY: "\n* "
TAG_STOP: ";"
TAG_TAIL: "\n#"
""",
    "values and text beside tags that overlap": r"""
start: "<a>" V TAG_AB W TAG_BA [TEXT TAG_BB] V
V: /[ab]{1,3}/
W: "b" | "c" | "ca"
TAG_AB: "abc"
TAG_BA: "cb"
TAG_BB: "bb"
%declare TEXT
""",
    "blocks in branches, lists that may be empty": r"""
%import .parallel (map, process, reduce, spawn, reread)
start: "<w>" body "</w>"
body: TEXT | block+ | "<e/>"
block: map{list} process{task, branch} reduce{result} | "<s>" spawn{leaf}~2..3 reread{close}
list: "<l>" (group | task)* "</l>"
group: "<g>" task~0..2 [group] "</g>"
task: "<t>" N [": "] "</t>"
branch: "<b>" N ":" body "</b>"
leaf: "<f>" body? "</f>"
close: "</s>"
result: "<r>" [TEXT] "</r>"
N: /[1-3]|[1-3]\.[1-2]/
%declare TEXT
""",
    "text or a value": r"""
%import .parallel (map, process, reduce)
start: map{l} process{i, b} reduce{j}
l: "<l>" i~0..3 "</l>"
i: "<i>" N "</i>"
b: "<b>" N ":" [TEXT "<alt>"] V "</b>"
j: "<j>" ([TEXT] | "<none>") "</j>"
N: /[xyz][1-3]/
V: "yes" | "no" | /[0-9]{1,2}/
%declare TEXT
""",
    "a line end is a tag": r"""
%import .parallel (map, process, reduce)
start: map{list} process{item, tick} reduce{sum}
list: "<list>" item+ "</list>"
item: TAG_OPEN NAME TAG_NL
tick: TAG_X NAME ": " TEXT TAG_NL
sum: "<sum>" TEXT "</sum>"
TAG_X: "- [x] "
TAG_OPEN: "- [ ] "
TAG_NL: "\n"
NAME: /[a-z]+/
%declare TEXT
""",
    "options": r"""
start: "<a>" ((" - " V) | _NL) "</a>" ("<b>" V "<c>")~0..2 "</b>" TEXT
V: "maybe" | "no"
_NL: " "
%declare TEXT
""",
}


@pytest.mark.parametrize("name", FINE)
def test_a_fine_schema_is_not_blamed(name: str) -> None:
    report = fuzz(schema_of(FINE[name]), 30)
    assert report.failure is None


def test_a_tag_that_is_the_end_token_does_not_end_a_trace_that_goes_on() -> None:
    schema = schema_of('start: "<a>" (TEXT "<|end|>")~2 "</a>"\n%declare TEXT\n')
    bound = schema.bind(byte_vocabulary(schema.tags))
    assert bound.tag_tokens["<|end|>"] == bound.vocabulary.eos_id
    whole = bound.encode("<a>x<|end|>y<|end|></a>")
    assert refused_at(bound, tuple(whole)) is None
    assert refused_at(bound, tuple(whole[:2])) == 2


# -- planted faults: what each patch undoes is one decision of the product

LISTED = """
%import .parallel (map, process, reduce)
start: map{list} process{item, step} reduce{end}
list: "<list>" item~1..4 "</list>"
item: "<item>" NAME ":" TEXT "</item>"
step: "<step>" NAME ":" TEXT "</step>"
end: "<end>" TEXT "</end>"
NAME: /[a-z]{4,6}/
%declare TEXT
"""
TWO_BLOCKS = """
%import .parallel (map, process, reduce)
start: "<s>" map{l} process{i, b} reduce{j} map{k} process{m, n} reduce{o}
l: "<l>" i+ "</l>"
i: "<i>" "</i>"
b: "<b>" "</b>"
j: "<j>" "</j>"
k: "<k>" m+ "</k>"
m: "<m>" "</m>"
n: "<n>" "</n>"
o: "<o>" "</o>"
"""
FEW_LABELS = """
%import .parallel (map, process, reduce)
start: map{l} process{i, b} reduce{j}
l: "<l>" i+ "</l>"
i: "<i>" N "</i>"
b: "<b>" N "</b>"
j: "<j>"
N: /[xy][12]/
"""
OPTIONAL = 'start: "<a>" TEXT? "<b>" "<c>"\n%declare TEXT\n'
PROSE = 'start: "<a>" TEXT "<b>" TEXT "<c>"\n%declare TEXT\n'
TURN = 'start: "<|im_start|>" TEXT "<|im_end|>"\n%declare TEXT\n'


def no_further_label(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FreshLabels, "may_go_on", lambda _self, _prefix, taken: not taken)


def no_repair(patch: pytest.MonkeyPatch) -> None:
    honest = Parser.read

    def read(
        self: Parser, text: str, lexemes: Sequence[Lexeme], tag_tokens: Collection[str] = ()
    ) -> ParsedText:
        if not self.legal(text, lexemes):
            raise RecursionError
        return honest(self, text, lexemes, tag_tokens)

    patch.setattr(Parser, "read", read)


def no_list_is_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion_cost, "_open_map", lambda frame: None)


def one_tag_is_overlooked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(automaton, "tag_scan", lambda tags: tag_scan(tags[1:]))


def values_lose_a_letter(patch: pytest.MonkeyPatch) -> None:
    honest = FieldContent.captured

    def captured(self: FieldContent, content: str) -> tuple[BoundValue, ...]:
        return tuple(BoundValue(value.text[:-1]) for value in honest(self, content))

    patch.setattr(FieldContent, "captured", captured)


def the_end_is_no_tag(patch: pytest.MonkeyPatch) -> None:
    honest = BoundSchema.check

    def check(self: BoundSchema, ids: Sequence[int], *, prompt: int = 0) -> list[Violation]:
        cut = ids[:-1] if ids and ids[-1] == self.vocabulary.eos_id else ids
        return honest(self, cut, prompt=prompt)

    patch.setattr(BoundSchema, "check", check)


def taken_labels_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FreshLabels, "begun", lambda _self, _prefix, _taken: [])


def text_hides_a_value(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fields, "_is_text_alone", lambda _state: True)


def tight_masks_forget_a_value(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budget_masks, "_value_tokens", lambda *_asked: ())


PLANTED = {
    no_further_label: LISTED,
    taken_labels_are_forgotten: FEW_LABELS,
    text_hides_a_value: FINE["text or a value"],
    tight_masks_forget_a_value: FINE["values and text beside tags that overlap"],
    no_repair: OPTIONAL,
    no_list_is_open: TWO_BLOCKS,
    one_tag_is_overlooked: PROSE,
    values_lose_a_letter: LISTED,
    the_end_is_no_tag: TURN,
}


@pytest.mark.parametrize(("plant", "source"), PLANTED.items(), ids=[p.__name__ for p in PLANTED])
def test_a_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    report = fuzz(schema_of(source), 100)
    assert report.failure is not None


def test_fresh_labels_spell_no_tag_with_what_stands_around_them() -> None:
    """`c` and `d` are fresh behind `cc`, but `ccc` and `ccd` begin with other tags."""
    schema = schema_of(FINE["tags that overlap"])
    text = "abccacdccbcdbadcacdxccdcbcdxccdd"
    made = [m for m in all_mutations(schema, text) if m.kind is MutationKind.ONE_TOO_MANY]
    assert made
    for mutation in made:
        assert schema.check(mutation.text)[0].code in mutation.expected
