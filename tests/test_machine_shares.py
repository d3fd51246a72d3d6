"""Shares of a budget: no text can eat what the others need, whatever the model writes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nprdsl.machine.budget import LimitError, Limits, TextTokens
from nprdsl.machine.machine import Machine
from nprdsl.machine.shares import LINE, shared_limits
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.http.wire_forms import LimitsForm
from nprdsl.structure.events import EndReason
from nprdsl.testing import byte_vocabulary
from nprdsl.trace.trace import Element, TokenTrace
from tests.machines import MODES, NAMES, byte_bound, verify
from tests.runs import Model, run, seeded, talkative
from tests.walks import allowed, schema_of

NOTES = """
start: note+ "<end>" TEXT "</end>"
note: "<note>" TEXT "</note>"
%declare TEXT
"""
WORDS = """
start: "<a>" TEXT TAG_THINK TEXT "</a>"
TAG_THINK: "THINK:"
%declare TEXT
"""
MANY = """
%import .parallel (map, process, spawn, reduce, reread)
start: first second tail
first: map{asks} process{ask, reply} reduce{sum}
asks: "<asks>" ask~5..9 "</asks>"
ask: "<ask>" TEXT "</ask>"
reply: "<reply>" TEXT "<more>" TEXT "</reply>"
sum: "<sum>" TEXT "</sum>"
second: "<try>" spawn{path}~2..4 reread{close}
path: "<path>" TEXT "</path>"
close: "</try>"
tail: TEXT
%declare TEXT
"""


def special_bound(source: str) -> BoundSchema:
    made = schema_of(source)
    return made.bind(byte_vocabulary(made.tags))


def texts(trace: TokenTrace) -> list[str]:
    return [found.text.strip() for found in trace.find("TEXT")]


@MODES
@pytest.mark.parametrize("name", NAMES)
def test_every_trace_is_legal_at_any_budget(name: str, special: bool) -> None:
    bound = byte_bound(name, special)
    for budget in (bound.minimum, bound.minimum + 9, 3 * bound.minimum, 900):
        limits = shared_limits(bound, budget)
        for model in (talkative, seeded(budget)):
            verify(run(bound, limits, model), limits)


def test_a_model_that_never_ends_a_text_leaves_each_its_share() -> None:
    bound = byte_bound("npr", special=False)
    limits = shared_limits(bound, 900)
    caps = limits.text_tokens
    assert caps is not None and caps.item < caps.trunk < caps.branch
    trace = verify(run(bound, limits, talkative), limits)
    lengths = {name: [len(t.find("TEXT")[0].text) for t in trace.find(name)] for name in
               ("plan", "step", "takeaway", "answer")}  # fmt: skip
    assert len(lengths["plan"]) == 3
    for name, most in (("plan", caps.item), ("step", caps.branch), ("takeaway", caps.trunk)):
        assert all(most - 4 <= n <= most for n in lengths[name]), (name, lengths, caps)
    assert caps.trunk - 4 <= lengths["answer"][0] <= caps.trunk


def test_the_numbers_are_those_of_a_typical_trace() -> None:
    """Three items: three lines, three branches of four parts, join and answer of three each."""
    bound = byte_bound("npr", special=False)
    caps = shared_limits(bound, 1_000_000).text_tokens
    assert caps is not None
    assert caps.item == LINE == caps.kept
    assert 1_000_000 - 300 <= 3 * caps.branch // 4 + 3 * caps.branch + 2 * caps.trunk <= 1_000_000


def test_notes_without_number_leave_the_last_text_its_share() -> None:
    """What is kept back: a list without forks goes on while the budget lasts, the end is not cut
    to nothing."""
    bound = special_bound(NOTES)
    limits = shared_limits(bound, 300)
    caps = limits.text_tokens
    assert caps is not None
    trace = verify(run(bound, limits, eager), limits)
    assert len(trace.find("note")) > 5
    assert len(texts(trace)[-1]) >= caps.kept
    bare = Limits(max_tokens=300)
    assert len(texts(verify(run(bound, bare, eager), bare))[-1]) <= 2


def eager(machine: Machine, branch: int) -> int:
    """Begins as many notes as it may: a tag where there is one, else a letter."""
    special = machine.bound.vocabulary.special
    may = allowed(machine.mask(branch), 999)
    written = machine.written
    if special["<note>"] in may:
        return special["<note>"]
    if special["</note>"] in may and written and written[-1].token == ord("a"):
        return special["</note>"]
    return ord("a") if ord("a") in may else may[0]


def test_bounds_are_as_narrow_as_the_schema_allows() -> None:
    npr = shared_limits(byte_bound("npr"), 900)
    assert (npr.depth, npr.branches, npr.blocks) == (1, 3, 1)
    bound = special_bound(MANY)
    many = shared_limits(bound, 900)
    assert (many.depth, many.branches, many.blocks) == (1, 6, 2)
    verify(run(bound, many, talkative), many)


def test_a_budget_that_no_trace_fits_is_refused() -> None:
    bound = byte_bound("npr")
    with pytest.raises(LimitError, match=f"allow at least {bound.minimum}"):
        shared_limits(bound, bound.minimum - 1)


def test_what_is_forced_is_not_counted() -> None:
    """A branch that begins with its item's text has its whole share beside it."""
    bound = byte_bound("goal")
    limits = Limits(max_tokens=400, text_tokens=TextTokens(30, 12, 12, 4))
    trace = verify(run(bound, limits, talkative), limits)
    for step in trace.find("step"):
        assert 10 <= len(step.find("TEXT")[0].text) <= 12


def test_a_text_that_ends_by_itself_is_not_called_cut() -> None:
    """The closing tag, which is spelled, is not counted with the text."""
    bound = byte_bound("npr", special=False)
    limits = Limits(max_tokens=900, text_tokens=TextTokens(4, 4, 4))
    machine = Machine(bound, limits=limits)
    machine.start()
    for byte in b"1:abcd</plan":
        assert byte in allowed(machine.mask(0), 256)
        machine.advance(0, byte)
    assert b">"[0] in allowed(machine.mask(0), 256)
    assert len(allowed(machine.mask(0), 256)) == 1  # nothing further: the share is used up


def test_without_shares_nothing_changes() -> None:
    for name in ("npr", "multiverse"):
        bound = byte_bound(name)
        limits = Limits(max_tokens=200)
        assert limits.text_tokens is None
        assert run(bound, limits, seeded(3)).ids == run(bound, Limits(200), seeded(3)).ids


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "9", None])
def test_shares_are_checked_at_birth(value: object) -> None:
    with pytest.raises(LimitError, match=r"text_tokens\.branch (is .*, it )?must be"):
        TextTokens(item=1, branch=value, trunk=1)  # type: ignore[arg-type]


def test_shares_travel_to_a_server() -> None:
    limits = shared_limits(byte_bound("npr"), 900)
    sent = LimitsForm.of(limits).model_dump(mode="json")
    assert LimitsForm.model_validate(sent).limits() == limits


def test_the_completed_end_is_told_apart() -> None:
    bound = byte_bound("npr")
    limits = shared_limits(bound, 900)
    assert run(bound, limits, talkative).machine.ended is EndReason.BUDGET
    assert isinstance(verify(run(bound, limits, talkative), limits).find("answer")[0], Element)


def test_texts_under_shares_hold_no_half_tags() -> None:
    bound = byte_bound("npr", special=False)
    limits = shared_limits(bound, 900)
    machine = Machine(bound, limits=limits)
    machine.start()
    for byte in b"1:ab":
        machine.advance(0, byte)
    assert ord("<") in allowed(machine.mask(0), 256)
    machine.advance(0, ord("<"))
    assert allowed(machine.mask(0), 256) == [ord("/")]
    plain = Machine(bound, limits=Limits(900))
    plain.start()
    for byte in b"1:ab<":
        plain.advance(0, byte)
    assert len(allowed(plain.mask(0), 256)) > 100
    for seed in range(3):  # wild text, spelled tags: `<` is nowhere but in tags
        trace = verify(run(bound, limits, seeded(seed, 0.9)), limits)
        assert not any("<" in text for text in texts(trace))
    assert "\n" not in texts(trace)[-1]  # no tag may come behind the answer


def test_tags_that_are_tokens_leave_texts_alone() -> None:
    bound = byte_bound("npr")
    machine = Machine(bound, limits=shared_limits(bound, 900))
    machine.start()
    for byte in b"1:ab<b":
        machine.advance(0, byte)
    assert {ord("<"), ord("\n")} <= set(allowed(machine.mask(0), 256))


def test_tags_that_are_words_may_begin_in_a_text() -> None:
    made = schema_of(WORDS)
    bound = made.bind(byte_vocabulary())
    machine = Machine(bound, limits=shared_limits(bound, 300))
    machine.start()
    for byte in b"a TH":
        machine.advance(0, byte)
    assert {ord("I"), ord("e"), ord("\n")} <= set(allowed(machine.mask(0), 256))


def test_a_line_that_would_begin_ends_the_last_text_and_is_not_written() -> None:
    line = b"\n"[0]

    def breaks_off(machine: Machine, branch: int) -> int:
        text = machine.bound.vocabulary.text([written.token for written in machine.written])
        may = line in allowed(machine.mask(branch), 256) and "</takeaway>" in text
        return line if may else talkative(machine, branch)

    limits = Limits(max_tokens=900, blocks=1, text_tokens=TextTokens(4, 4, 20))
    made = run(byte_bound("npr", special=False), limits, breaks_off)
    assert made.machine.ended is EndReason.COMPLETED
    trace = verify(made, limits)
    assert trace.answer.strip() and trace.text.endswith(trace.answer)


@pytest.mark.parametrize("words", [0, 7, 25])
def test_a_share_bounds_its_text_and_not_the_block_behind_it(words: int) -> None:
    """What a tag leads to costs more than any share; it can be written all the same."""
    bound = byte_bound("multiverse", special=False)
    limits = Limits(max_tokens=2000, depth=1, blocks=1, text_tokens=TextTokens(9, 9, 50))
    machine = Machine(bound, limits=limits)
    machine.start()
    for byte in f"{'x' * words}a\n<Parallel>".encode():
        assert byte in allowed(machine.mask(0), 256)
        machine.advance(0, byte)
    assert "<Parallel>\n<Goal>" in bound.vocabulary.text([w.token for w in machine.written])


def test_a_tag_that_the_budget_has_no_room_for_is_not_begun() -> None:
    """`<Parallel` could only go on as `<Parallelism>`."""
    bound = byte_bound("multiverse", special=False)
    texts = TextTokens(9, 9, 30)
    for tokens, offered in ((60, False), (2000, True)):
        limits = Limits(max_tokens=tokens, depth=1, blocks=1, text_tokens=texts)
        machine = Machine(bound, limits=limits)
        machine.start()
        machine.advance(0, b"a"[0])
        assert (b"<"[0] in allowed(machine.mask(0), 256)) is offered


def test_a_tag_begins_only_where_it_may_stand() -> None:
    """Before any text `<Parallel>` may not stand behind nothing, so no `<` is offered either."""
    bound = byte_bound("multiverse", special=False)
    limits = Limits(max_tokens=2000, depth=1, blocks=1, text_tokens=TextTokens(9, 9, 30))
    machine = Machine(bound, limits=limits)
    machine.start()
    assert b"<"[0] not in allowed(machine.mask(0), 256)
    machine.advance(0, b"\n"[0])
    assert b"<"[0] in allowed(machine.mask(0), 256)


def test_a_last_text_may_begin_with_the_line_that_is_its_glue() -> None:
    """`</Parallel>` stands on a line of its own, as in the examples."""
    lead, line = b"\n<Parallel>", b"\n"[0]

    def goes_on(machine: Machine, branch: int) -> int:
        tokens = allowed(machine.mask(branch), 256)
        text = machine.bound.vocabulary.text([written.token for written in machine.written])
        if len(text) < len(lead):
            return lead[len(text)]
        return (
            line if text.endswith("</Parallel>") and line in tokens else talkative(machine, branch)
        )

    texts = TextTokens(4, 4, 30)
    limits = Limits(max_tokens=2000, depth=1, branches=2, blocks=1, text_tokens=texts)
    made = run(byte_bound("multiverse", special=False), limits, goes_on)
    assert "</Parallel>\nz" in made.machine.trace().text


def ends_at_once(machine: Machine, branch: int) -> int:
    """Ends whenever it may: the end token, a closing tag, else a letter."""
    may = allowed(machine.mask(branch), 999)
    vocabulary = machine.bound.vocabulary
    closing = [vocabulary.eos_id, *(i for t, i in vocabulary.special.items() if t[1] == "/")]
    wanted = [token for token in (*closing, ord("<"), ord("/"), ord("z")) if token in may]
    return wanted[0] if wanted else may[-1]


@MODES
@pytest.mark.parametrize("name", ["multiverse", "threadweaver", "parallel_r1", "nested"])
@pytest.mark.parametrize("model", [talkative, ends_at_once, seeded(1), seeded(2, 0.9)])
def test_a_model_that_was_not_trained_writes_a_block(
    name: str, special: bool, model: Model
) -> None:
    bound = byte_bound(name, special)
    limits = shared_limits(bound, 900)
    made = run(bound, limits, model)
    block = bound.grammar.blocks[0]
    assert verify(made, limits).find(block.branch), made.machine.trace().text


@MODES
def test_no_block_where_none_may_stand_or_none_can_be_paid(special: bool) -> None:
    bound = byte_bound("threadweaver", special)
    short = shared_limits(bound, bound.minimum + 4)
    for limits in (replace(shared_limits(bound, 900), blocks=0), short):
        for model in (talkative, ends_at_once):
            assert not verify(run(bound, limits, model), limits).find("thread")


def test_a_line_that_ends_the_text_before_the_first_block_leads_to_it() -> None:
    bound = byte_bound("multiverse", special=False)
    machine = Machine(bound, limits=shared_limits(bound, 900))
    machine.start()
    for byte in b"\nab\n":
        assert byte in allowed(machine.mask(0), 256)
        machine.advance(0, byte)
    assert allowed(machine.mask(0), 256) == [ord("<")]


def test_a_tag_that_leads_to_no_block_is_not_begun_before_the_first() -> None:
    bound = byte_bound("threadweaver", special=False)
    machine = Machine(bound, limits=shared_limits(bound, 900))
    machine.start()
    for byte in b"ab<":
        assert byte in allowed(machine.mask(0), 256)
        machine.advance(0, byte)
    assert allowed(machine.mask(0), 256) == [ord("P")]
