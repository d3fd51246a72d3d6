"""Labels of one list must differ: room for a further one in masks and costs, and none where they
run out."""

from __future__ import annotations

import itertools
import re
from random import Random
from typing import Literal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.resolve import read_grammar
from nprdsl.grammar.terminal_types import typed
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.matcher import Matcher
from nprdsl.regular.dfa import compile_regex
from nprdsl.regular.words import ENDLESS, words_of
from nprdsl.schema import Schema
from nprdsl.testing import byte_vocabulary, traces
from nprdsl.tokens.vocabulary import Vocabulary
from tests.test_costs import check_state
from tests.test_words import PATTERNS
from tests.walks import allowed, schema_of

LIST = """
%import .parallel (map, process, reduce)
start: map{{list}} process{{item, branch}} reduce{{join}}
list: {list}
item: {item}
branch: "<b>" N "</b>"
join: "<j>"
N: /{pattern}/
"""
MODES = pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
WIDE = (
    "[0-9]{5}",
    "[a-z]{4,12}",
    "[0-9]{4}-(0[1-9]|1[0-2])-([0-2][0-9]|3[01])",
    "[0-9a-f]{8}",
    "[A-Z][a-z]{3,20}",
    "[一-龥]{2,4}",
    "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "(a|b)*c",
    "[0-9]|[0-9]{5}",
)


def listing(
    pattern: str, items: str = '"<l>" item~1..12 "</l>"', item: str = '"<i>" N "</i>"'
) -> Schema:
    return schema_of(LIST.format(pattern=pattern, list=items, item=item))


def bind(schema: Schema, special: bool = True) -> BoundSchema:
    return schema.bind(byte_vocabulary(special=schema.tags if special else ()))


def write(bound: BoundSchema, budget: int, random: Random) -> str:
    """A random trace that likes further items, within a budget."""
    machine, tags = Machine(bound, limits=Limits(max_tokens=budget)), bound.vocabulary.special
    machine.start()
    while machine.ended is None:
        branch = random.choice(machine.live)
        tokens = allowed(machine.mask(branch), bound.vocabulary.size)
        assert tokens, (
            f"no token may follow {bound.vocabulary.text([w.token for w in machine.written])!r}"
        )
        liked = [t for t in tokens if t in {tags.get("<i>"), *b"<i"}]
        machine.advance(branch, random.choice(liked or tokens))
    trace = machine.trace()
    assert len(trace.ids) <= budget
    assert bound.check(trace.ids) == []
    return trace.text


@MODES
@pytest.mark.parametrize("pattern", WIDE)
def test_a_further_label_is_found_in_wide_languages(pattern: str, special: bool) -> None:
    bound = bind(listing(pattern), special)
    for budget in (bound.minimum, bound.minimum + 1, 2000):
        text = write(bound, budget, Random(budget))
    assert text.count("<i>") == 12, "there was room for all items"


# what stands in the list, what an item is, and how many items fit
RUNNING_OUT = (
    ("[1-9]", '"<l>" item+ "</l>"', '"<i>" N "</i>"', 9),
    ("[1-3]|a", '"<l>" item~2..7 "</l>"', '"<i>" N "</i>"', 4),
    ("[1-3]", '"<l>" ("<x>" item~4 | "<y>" item~1..3) "</l>"', '"<i>" N "</i>"', 3),
    ("[1-3]", '"<l>" list2 "</l>"\nlist2: item [list2]', '"<i>" N "</i>"', 3),
    ("[1-3]", '"<l>" item+ "</l>"', '"<i>" "<k>" ["<x>"] "</k>" "<n>" N "</n>" "</i>"', 3),
    ("a{1,3}b?", '"<l>" item+ "</l>"', '"<i>" N "</i>"', 6),
    ("[1-2]|<b>|x<j>y", '"<l>" item+ "</l>"', '"<i>" N "</i>"', 2),  # no label holds a tag
)


@MODES
@pytest.mark.parametrize(("pattern", "items", "item", "most"), RUNNING_OUT)
def test_no_item_is_offered_where_labels_have_run_out(
    pattern: str, items: str, item: str, most: int, special: bool
) -> None:
    bound = bind(listing(pattern, items, item), special)
    for budget in (bound.minimum, bound.minimum + 9, 400):
        counts = {write(bound, budget, Random(seed)).count("<i>") for seed in range(6)}
        assert max(counts) <= most
    assert most in counts


@pytest.mark.parametrize(
    ("pattern", "items", "labels"),
    [
        ("[0-9]|[0-9]{5}", "item~10", 10),
        ("[0-9]|[0-9]{5}", "item~12", 20),
        ("[0-9]|[0-9]{5}", "item~11..20", 15),
        ("a+", "item~40", 820),
        ("[0-9]{3}|[a-c]", "item~2..6", 2),
        ("a{1,4}", '(item item item | "<x>" item)', 1),
        ("a{1,9}", f'("<x>" item~3 | "<{"y" * 30}>" item)', 1),
        ("a{1,9}", f'("<x>" item~3 | "<{"y" * 50}>" item)', 6),
    ],
)
def test_the_minimum_counts_every_label(pattern: str, items: str, labels: int) -> None:
    """A label is written twice, in its item and in its branch."""
    made = listing(pattern, f'"<l>" {items} "</l>"')
    bound = made.bind(byte_vocabulary())
    text = write(bound, bound.minimum, Random(0))
    assert len(text) == bound.minimum
    assert sum(map(len, re.findall("<i>(.*?)</i>", text))) == labels


def test_a_list_that_asks_for_more_items_than_labels_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"10 items.*`N` has 9 values.*dead-end"):
        listing("[1-9]", '"<l>" item~10 "</l>"')
    with pytest.raises(SchemaError, match=r"6 items.*dead-end"):
        listing("[1-3]", '"<l>" ("<x>" item~7 | "<y>" two~3) "</l>"\ntwo: item item')
    listing("[1-9]", '"<l>" item~9 "</l>"').bind(byte_vocabulary())
    with pytest.raises(SchemaError, match=r"3 items.*2 values without a tag.*dead-end"):
        listing("[1-2]|<b>", '"<l>" item~3 "</l>"')
    with pytest.raises(SchemaError, match=r"1 items.*0 values without a tag.*dead-end"):
        listing("<b>+", '"<l>" item+ "</l>"')


def test_a_list_that_no_vocabulary_can_finish_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"no trace can be finished.*dead-end"):
        listing("[0-9]{9,99}", '"<l>" item~90000000 "</l>"').bind(byte_vocabulary())
    digits = Vocabulary(dict(enumerate("12<>/libj")))
    with pytest.raises(SchemaError, match=r"no trace can be finished.*dead-end"):
        listing("[1-9]", '"<l>" item~3 "</l>"').bind(digits)


@pytest.mark.parametrize(
    ("bound_terminals", "declared"), [("KIND N", ""), ("GOAL <x> N", "%declare GOAL\n")]
)
def test_the_first_regular_value_is_the_label(bound_terminals: str, declared: str) -> None:
    """It is, though a typed value or a text that a branch repeats stands in front of it."""
    parts = bound_terminals.replace("<x>", '"<x>"').replace("KIND", 'KIND ":"')
    source = LIST.format(
        list='"<l>" item~2..5 "</l>"', item=f'"<i>" {parts} "</i>"', pattern="[1-3]"
    ).replace('"<b>" N "</b>"', f'"<b>" {parts} "</b>"')
    source += declared or "%declare KIND\n"
    types = {} if declared else {"KIND": typed("KIND", Literal["aaaa", "aaaaaaaaaa"])}
    grammar = read_grammar(source, file="labels.lark", name="labels", types=types)
    bound = Schema(grammar).bind(byte_vocabulary())
    for budget in (bound.minimum, bound.minimum + 5, 600):
        for seed in range(4):
            assert write(bound, budget, Random(seed)).count("<i>") <= 3


# -- labels that spell a tag together with what stands beside them

# tags beside those of the list, what an item writes around its label, its pattern
BESIDE = (
    ("aa", '"<i>" N "a"', "[ab]{1,2}"),
    ("aa bb bab", '"<i>" N "a"', "[ab]{1,2}"),
    ("ab ba", '"<i>" "a" N "b"', "[abc]{1,2}"),
    ("a.b .c", '"<i>" N ".b"', "[abc]{1,2}"),
    ("cab", '"<i>" "ca" N', "[ab]{1,3}"),
    ("x\\ny", '"<i>" "x" _NL N', "[xy]|z{2}|yx"),
    ("a</", '"<i>" N', "[ab]{1,2}"),
    ("ac by", '"<i>" N M', "[ab]{1,2}"),
    ("aa", '"<i>" M "a" N', "b?a?b{1,2}|a{1,2}b"),
)
DIFFERENT = (
    ("ab bb", '"<i>" N ("</x>" | TAG_1)', "[ab]{1,2}c?"),
    ("bb", '("<i>" N | "<i2>" N "b")', "[ab]{1,2}"),
)


def pressed(tags: str, item: str, pattern: str, items: str) -> Schema:
    """Further tags may stand behind the list; `M` is a value that touches the label."""
    source = LIST.format(
        list=f'"<l>" {items} "</l>"', item=f'{item} "</i>"', pattern=pattern
    ).replace('"<j>"\n', '"<j>" ' + " ".join(f'["<o{n}>" TAG_{n}]' for n in range(3)) + "\n")
    names = [*tags.split(), "=1=", "=2="][:3]
    source += "".join(f'TAG_{n}: "{name}"\n' for n, name in enumerate(names))
    source += "".join(f"{name}: {text}\n" for name, text in OTHERS if name in item)
    return schema_of(source)


OTHERS = (("_NL", '"\\n"'), ("M", "/cx|y/"))


@MODES
@pytest.mark.parametrize(("tags", "item", "pattern"), BESIDE)
def test_items_are_offered_as_long_as_a_label_may_be_written(
    tags: str, item: str, pattern: str, special: bool
) -> None:
    """What is left of the pattern is counted among what spells no tag there."""
    made, counts = pressed(tags, item, pattern, "item+"), set()
    bound = bind(made, special)
    for seed in range(8):
        budget = bound.minimum + (0, 3, 11, 300)[seed % 4]
        text = write(bound, budget, Random(seed))
        assert made.check(text) == []
        counts.add(text.count("</i>"))
    most = max(counts)
    assert min(counts) == 1
    exact = bind(pressed(tags, item, pattern, f"item~{most}"), special)
    for slack in (0, 1, 2, 200):
        assert write(exact, exact.minimum + slack, Random(slack)).count("</i>") == most
    with pytest.raises(SchemaError, match=rf"{most + 1} items.* {most} value.*dead-end"):
        pressed(tags, item, pattern, f"item~{most + 1}")


@MODES
@pytest.mark.parametrize(("tags", "item", "pattern"), DIFFERENT)
def test_only_labels_that_may_be_written_everywhere_are_counted_on(
    tags: str, item: str, pattern: str, special: bool
) -> None:
    """So a list ends in time, though it might have found room for another item."""
    for items in ("item+", "item~1..9"):
        made = pressed(tags, item, pattern, items)
        for seed in range(8):
            bound = bind(made, special)
            budget = bound.minimum + (0, 7, 20, 300)[seed % 4]
            assert made.check(write(bound, budget, Random(seed))) == []
    with pytest.raises(SchemaError, match=r"1 items.*only 0 values.*dead-end"):
        pressed("aa bb", '("<i>" N "a" | "<i2>" N "b")', "[ab]", "item+")


@pytest.mark.parametrize("item", ['N ["a"]', 'N [":"]'])
@pytest.mark.parametrize("special", [True, False])
def test_a_label_beside_what_may_be_left_out_is_read_in_the_way_that_was_written(
    item: str, special: bool
) -> None:
    made = schema_of(
        "%import .parallel (map, process, reduce)\n"
        "start: map{list} process{item, step} reduce{join}\n"
        f'list: "<l>" item~2..3 "</l>"\nitem: "<i>" {item} "</i>"\n'
        'step: "<s>" N "</s>"\njoin: "<j>"\nN: /(ab|ba|c){1,2}/\n'
    )
    bound = made.bind(byte_vocabulary(made.tags if special else ()))
    for seed in range(8):
        budget = bound.minimum + (0, 1, 7, 60)[seed % 4]
        assert made.check(write(bound, budget, Random(seed))) == []


@pytest.mark.filterwarnings("ignore::nprdsl.masks.bound_schema.SpelledTagsWarning")
def test_labels_in_nested_blocks_whose_tags_are_their_letters() -> None:
    source = r"""
%import .parallel (map, process, reduce)
start: map{list} process{item, step} reduce{join} TAG_END
join: "<j>"
step: _NL TAG_AA _NL N (_NL map{inner} process{part, work} reduce{done}) "</s>"
done: "</d>"
work: "<w>" TAG_X GOAL "</w>"
inner: TAG_IN KIND TAG_GT part "</in>"
part: TAG_PART GOAL TAG_BAB
list: (_NL item)~2
item: TAG_BB N "a" VALUE "</i>"
_NL: "\n\n"
TAG_BB: "bb"
N: /[ab]{1,2}/
VALUE: /x{20}|y/
TAG_AA: "aa"
TAG_PART: "<part k=1>"
TAG_BAB: "bab"
TAG_IN: "<in n: "
TAG_GT: "\">"
TAG_X: "<x k=1>"
TAG_END: "</e k=1>"
KIND: /[k-m]/
%declare GOAL
"""
    made = schema_of(source)
    for special in (made.tags, made.tags[::2], made.tags[1::2], ()):
        bound = made.bind(byte_vocabulary(special=special))
        for slack in range(8):
            trace = write(bound, bound.minimum + slack * slack, Random(slack))
            assert made.check(trace) == []


# -- against brute force

HORIZON = 8
STRINGS = [bytes(s) for n in range(1, HORIZON + 1) for s in itertools.product(b"ab-", repeat=n)]
TAGS = ("<l>", "</l>", "<i>", "</i>", "<b>", "</b>", "<j>")
MERGES = ("ab", "b-", "a-b", "-")


def labels_of(pattern: str) -> list[bytes]:
    """All labels of a pattern; where there is no end of them, all that can matter in short
    walks."""
    labels = [s for s in STRINGS if re.fullmatch(pattern, s.decode())]
    dfa = compile_regex(pattern)
    size, far = words_of(dfa).size, int(dfa.distance[1:].max())
    assume(len(labels) == size or (size == ENDLESS and far <= 3 and len(labels) > 12))
    return labels


def cheapest(left: list[bytes], prefix: bytes, more: int) -> int:
    """The fewest bytes that finish a label, repeat it, and write `more` others twice."""
    first, ways = sorted(map(len, left))[: more + 1], []
    for label in {label for label in left if label.startswith(prefix)}:
        others = list(first)
        others.remove(len(label) if len(label) in first else first[-1])
        ways.append(2 * len(label) - len(prefix) + 2 * sum(others[:more]))
    return min(ways)


def beginnings(endings: list[bytes]) -> set[bytes]:
    """As far as tokens reach."""
    return {ending[:n] for ending in endings for n in range(1, min(len(ending), 3) + 1)}


def check_label(bound: BoundSchema, matcher: Matcher, endings: list[bytes]) -> None:
    """The tokens that may come next are those that begin an ending, or end the label."""
    size = bound.vocabulary.size
    spelled = [(token, bound.vocabulary.bytes_of(token)) for token in range(size)]
    begun = beginnings(endings)
    wanted = {token for token, data in spelled if data in begun}
    closing = {bound.vocabulary.special["</i>"]} if b"" in endings else set()
    assert set(allowed(matcher.mask(), size)) == wanted | closing
    check_state(bound, matcher)


@settings(max_examples=25, deadline=None, suppress_health_check=tuple(HealthCheck))
@given(
    PATTERNS.filter(lambda p: not re.fullmatch(p, "")),
    st.integers(1, 4),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 99),
)
def test_masks_and_costs_are_those_of_brute_force(
    pattern: str, least: int, optional: int, merges: bool, seed: int
) -> None:
    labels, taken, most = labels_of(pattern), list[bytes](), least + optional
    random = Random(seed)
    items = f'"<l>" item~{least}..{most} "</l>"'
    if len(labels) < least:
        with pytest.raises(SchemaError, match="dead-end"):
            listing(pattern, items)
        return
    made = listing(pattern, items)
    bound = made.bind(byte_vocabulary(special=TAGS, merges=MERGES if merges else ()))
    matcher, tags = bound.matcher(), bound.vocabulary.special
    matcher.advance(tags["<l>"])
    for number in range(1, most + 1):
        left, more = [label for label in labels if label not in taken], max(least - number, 0)
        assert matcher.accepts(tags["</l>"]) == (number > least)
        assert matcher.accepts(tags["<i>"]) == bool(left)
        if not left:
            return
        matcher.advance(tags["<i>"])
        behind = sum(2 + len(label) for label in taken) + 4 * more + 5
        prefix = b""
        while True:
            if len(prefix) > 3 and words_of(compile_regex(pattern)).size == ENDLESS:
                return  # longer labels might matter than those that were tried
            endings = [label[len(prefix) :] for label in left if label.startswith(prefix)]
            check_label(bound, matcher, endings)
            if not merges:
                assert matcher.cost == cheapest(left, prefix, more) + behind
            whole = b"" in endings
            if whole and (len(endings) == 1 or len(prefix) > 1 or random.random() < 0.5):
                break
            begun = beginnings(endings)
            ways = range(bound.vocabulary.size)
            token = random.choice([t for t in ways if bound.vocabulary.bytes_of(t) in begun])
            matcher.advance(token)
            prefix += bound.vocabulary.bytes_of(token)
        matcher.advance(tags["</i>"])
        taken.append(prefix)


@pytest.mark.parametrize(("pattern", "items", "item", "most"), RUNNING_OUT)
def test_examples_have_labels_for_all_of_their_items(
    pattern: str, items: str, item: str, most: int
) -> None:
    made = listing(pattern, items, item)
    assert made.check(made.skeleton()) == []
    assert made.skeleton().count("<i>") <= most


def test_random_traces_find_the_last_label() -> None:
    made = listing("a{1,30}|[b-z]{7}", '"<l>" item~40 "</l>"')

    @settings(max_examples=5, deadline=None, database=None)
    @given(traces(made))
    def check(text: str) -> None:
        assert made.check(text) == []

    check()


@pytest.mark.parametrize("pattern", [r"\S{1,5}", "[a-z:]{1,4}", "[a-z:][a-z:]", "a|a::?"])
def test_a_token_may_leave_a_value_before_what_it_could_still_hold(pattern: str) -> None:
    """`a: b` is the value `a`, the literal and text, though the value could go on with `:`."""
    item = '"<i>" N ": " M "</i>"\nM: /[a-z: ]+/'
    made = listing(pattern, item=item)
    merges = (b"a: ", b"a: b", b": b", b"a:", b"ab: ", b"a:: b", b": ", b"aa: x")
    bound = made.bind(byte_vocabulary(special=made.tags, merges=merges))
    matcher, size = bound.matcher(), bound.vocabulary.size
    for tag in ("<l>", "<i>"):
        matcher.advance(bound.vocabulary.special[tag])
    for byte in b"a:":
        found = allowed(matcher.mask(), size)
        assert found == [token for token in range(size) if matcher.accepts(token)]
        matcher.advance(byte)


def written(bound: BoundSchema, text: str) -> list[int]:
    """Ids of the beginning of a trace: tags are special tokens, the rest bytes."""
    special = bound.vocabulary.special
    parts = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
    return [i for part in parts for i in ([special[part]] if part in special else part.encode())]


def test_a_list_of_texts_and_a_list_of_labels_may_hold_the_same() -> None:
    """What a list has used is its own: `1`, a text of the first list, is no label of the second."""
    made = schema_of(
        """
        %import .parallel (map, process, reduce)
        start: map{goals} process{goal, work} reduce{join} labelled
        labelled: map{list} process{item, branch} reduce{end}
        goals: "<g>" goal+ "</g>"
        goal: "<w>" GOAL "</w>"
        work: "<x>" GOAL "</x>"
        join: "<j>"
        list: "<l>" item+ "</l>"
        item: "<i>" LABEL ":" TEXT "</i>"
        branch: "<b>" LABEL ":" TEXT "</b>"
        end: "<e>"
        LABEL: /[1-9]/
        %declare GOAL TEXT
        """
    )
    first = "<g><w>1</w></g><x>1</x><j><l><i>1:a</i><i>"
    bound = made.bind(byte_vocabulary(special=made.tags))
    matcher = bound.matcher()
    for token in written(bound, first):
        matcher.advance(token)
    assert not matcher.accepts(ord("1")) and matcher.accepts(ord("2"))
    assert [v.code for v in made.check(first + "1:b</i></l><b>1:a</b><b>1:b</b><e>")] == [
        "duplicate-label"
    ]
