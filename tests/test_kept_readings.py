"""What one reading of a schema leaves for the next never changes what the next one says.

Texts change as they do under an author's hands, and each is read twice: with what the readings
before it left, and alone.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import lark
import pytest

from nprdsl.grammar import reader
from nprdsl.grammar.analysis import SchemaAnalysis, analyse
from nprdsl.grammar.ir import Grammar
from nprdsl.grammar.resolve import Kept
from nprdsl.grammar.terminal_types import TerminalType, typed
from nprdsl.grammar.walk import KeptValues, Uses
from nprdsl.schema import shipped, source_of
from nprdsl.testing.schemas import random_schema

_WORDS = re.compile(r'\s+|"(?:[^"\\\n]|\\.)*"|\w+|.')
_LETTERS = "".join(map(chr, range(ord("a"), ord("z"))))
PARALLEL = "%import .parallel (map, process, spawn, reduce)\n%declare TEXT\n"
SECTIONS = PARALLEL + "".join(
    f'{rule}\n'
    for rule in (
        "LABEL: /[1-9]/",
        "start: first second",
        "first: map{list} process{plan, step} reduce{end}",
        'list: "<list>" plan~1..4 "</list>"',
        'plan: "<plan>" LABEL ":" TEXT "</plan>"',
        'step: "<step>" LABEL ":" TEXT "</step>"',
        'end: "<end>" TEXT "</end>"',
        'second: "<two>" spawn{branch}~2 reduce{close}',
        'branch: "<b>" TEXT "</b>"',
        'close: "</two>"',
    )
)  # fmt: skip


def read(text: str, kept: Kept | None = None, **given: dict[str, object]) -> SchemaAnalysis:
    return analyse(text, "typed.lark", given.get("types"), given.get("imports"), kept)  # type: ignore[arg-type]


def said(analysis: SchemaAnalysis) -> object:
    """All that a reading says: the faults, or every part of the grammar."""
    grammar = analysis.grammar
    return analysis.faults, () if grammar is None else _parts(grammar)


def _parts(grammar: Grammar) -> object:
    nodes = {name: [repr(node) for node in rule.nodes] for name, rule in grammar.rules.items()}
    return grammar.digest, grammar.tags, grammar.blocks and repr(grammar.blocks), nodes


def changed(text: str, rng: random.Random) -> str:
    """`text` with a few words of it gone, doubled, cut or exchanged."""
    words = _WORDS.findall(text) or ["x"]
    for _ in range(rng.randint(1, 2)):
        at, other = rng.randrange(len(words)), rng.randrange(len(words))
        match rng.randrange(5):
            case 0 if len(words) > 1:
                del words[at]
            case 1:
                words.insert(at, words[other])
            case 2:
                words[at] = words[other]
            case 3:
                words[at] = words[at][:-1] or "x"
            case _:
                words[at], words[other] = words[other], words[at]
    return "".join(words)


def edits(text: str, rng: random.Random, count: int) -> list[str]:
    """Texts that follow one another: mostly of the last one, now and then of one before."""
    texts = [text]
    for _ in range(count):
        before = rng.choices([texts[-1], texts[0], rng.choice(texts[-3:])], [5, 2, 3])[0]
        texts.append(changed(before, rng) if rng.random() < 0.9 else before)
    return texts


@pytest.mark.parametrize("seed", range(60))
def test_edits_of_a_random_schema_are_read_as_if_alone(seed: int) -> None:
    drawn, rng, kept = random_schema(seed), random.Random(seed), Kept()
    types: dict[str, TerminalType] = {name: typed(name, one) for name, one in drawn.types.items()}
    for text in edits(drawn.source, rng, 8):
        given = types if rng.random() < 0.9 else {}
        assert said(read(text, kept, types=given)) == said(read(text, types=given)), text  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*shipped(), "sections"])
def test_edits_of_a_schema_are_read_as_if_alone(name: str) -> None:
    source = SECTIONS if name == "sections" else source_of(name)
    rng, kept = random.Random(name), Kept()
    for text in edits(source, rng, 25):
        assert said(read(text, kept)) == said(read(text)), text


GRAMMARS = Path(lark.__file__).parent.joinpath("grammars")  # written for Lark, with all it has


@pytest.mark.parametrize("file", sorted(GRAMMARS.glob("*.lark")), ids=lambda file: file.stem)
def test_edits_of_grammars_of_others_are_read_as_if_alone(file: Path) -> None:
    text, rng, kept = file.read_text(encoding="utf-8"), random.Random(file.stem), Kept()
    for edited in [text, *edits(text, rng, 8), text]:
        assert said(read(edited, kept)) == said(read(edited)), edited


def test_a_priority_is_a_fault_at_every_key() -> None:
    kept = Kept()
    for text in (
        SECTIONS,
        *(SECTIONS.replace("LABEL:", "LABEL.2:") + "\n" * key for key in (0, 1, 2)),
    ):
        faults = read(text, kept).faults
        assert len(faults) == text.count("LABEL.2"), text
        assert all("priorities have no meaning" in fault.message for fault in faults)


def test_a_rule_is_read_as_if_alone_after_each_key() -> None:
    """Typed at its end, and its name where it is used: most of these texts have faults."""
    kept, rule = Kept(), 'extra: "<more>" LABEL TEXT "</more>"\n'
    texts = [SECTIONS + rule[:end] for end in range(len(rule) + 1)]
    used = [texts[-1].replace("first second", f"first second {'extra'[:end]}") for end in range(6)]
    faults = set()
    for text in texts + used + texts[::-1]:
        analysis = read(text, kept)
        assert said(analysis) == said(read(text)), text
        faults |= {fault.code.value for fault in analysis.faults} or {"none"}
    assert {"syntax", "undefined-rule", "unused-rule", "none"} <= faults


def test_the_rules_that_an_edit_leaves_alone_are_kept() -> None:
    kept = Kept()
    before = read(SECTIONS, kept).grammar
    after = read(SECTIONS.replace("</b>", "</bb>"), kept).grammar
    assert before is not None and after is not None
    same = {name for name, rule in after.rules.items() if rule is before.rules[name]}
    assert after.rules.keys() - same == {"branch"}


def test_a_fault_names_the_first_tag_of_this_text_not_of_one_before() -> None:
    kept = Kept()
    read('start: x\nx: "<b>" "<a>"\n', kept)
    text = 'start: x* x\nx: "<a>" | "<b>"\n'
    (fault,) = read(text, kept).faults
    assert fault.message.startswith("`<a>` may begin another turn here")
    assert said(read(text, kept)) == said(read(text))


def each_alone(*texts: str) -> None:
    """Asserts that all these texts, one after another, are read as if alone."""
    kept = Kept()
    for text in texts:
        assert said(read(text, kept)) == said(read(text)), text


def test_a_terminal_that_changes_its_kind_changes_what_a_branch_repeats() -> None:
    label, regex, blind = "LABEL: /[1-9]/", "LABEL: /(?i:<l>)/", 'LABEL: "<l>"i'
    lines = (label, 'LABEL: "<l>"', "%declare LABEL", 'LABEL: "1"i | "2"', regex, blind, label)
    each_alone(*(SECTIONS.replace(label, line) for line in lines))


def test_a_text_that_is_repeated_no_more_cuts_what_is_before_it() -> None:
    goals = SECTIONS.replace("%declare TEXT", "%declare TEXT GOAL")
    for name in ("plan", "step"):
        goals = goals.replace(f'"<{name}>" LABEL ":"', f'"<{name}>" GOAL "<{name}-of>" LABEL ":"')
    other = goals.replace("<two>", "<2>")
    each_alone(goals, other, goals.replace('"<step>" GOAL', '"<step>"'), goals, other)


def test_each_block_has_texts_of_its_own_that_cut() -> None:
    """The first repeats no goal, so that one cuts off the label behind it; the second does."""
    rules = (
        PARALLEL.replace("TEXT", "TEXT GOAL") + "LABEL: /[1-9]/",
        "start: one two",
        "one: map{list} process{plan, step} reduce{end}",
        'list: "<list>" plan~1..4 "</list>"',
        'plan: "<plan>" goal LABEL ":" TEXT "</plan>"',
        'step: "<step>" LABEL ":" TEXT "</step>"',
        "two: map{list_2} process{plan_2, step_2} reduce{end}",
        'list_2: "<list>" plan_2~1..4 "</list>"',
        'plan_2: "<plan>" goal LABEL ":" TEXT "</plan>"',
        'step_2: "<step>" goal LABEL ":" TEXT "</step>"',
        'goal: GOAL "<goal>"',
        'end: "<end>" TEXT "</end>"\n',
    )
    text = "\n".join(rules)
    assert read(text).grammar is not None
    each_alone(text, text.replace('plan_2: "<plan>"', 'plan_2: "<plan-2>"'))


def test_a_template_that_changes_changes_what_applies_it() -> None:
    text = 'pair{x}: "<p>" x "</p>"\nstart: pair{item}\nitem: "<i>"\n'
    each_alone(text, text.replace('"</p>"', '"</q>"'), text.replace('"</p>"', "other"))


def test_blocks_are_numbered_as_they_stand() -> None:
    without = SECTIONS.replace("first:", "// here\nfirst:")
    zero = 'zero: "<0>" spawn{branch}~2 reduce{close}'
    with_zero = without.replace("first second", "zero first second").replace("// here", zero)
    each_alone(without, with_zero, without)


def test_a_fault_of_a_terminal_is_told_as_long_as_any_rule_uses_it() -> None:
    bad = SECTIONS.replace('"</b>"', "TAG_B").replace('"<two>"', "TAG_B") + "TAG_B: /b/\n"
    each_alone(bad, bad.replace("<plan>", "<p>"), bad.replace('"</two>"', "TAG_B"))


def test_what_a_rule_begins_with_follows_from_rules_below_it() -> None:
    text = 'start: x | z\nx: y\ny: "<a>"\nz: "<b>"\n'
    each_alone(text, text.replace('"<a>"', '"<b>"'), text)


def test_an_imported_file_may_change_too() -> None:
    kept = Kept()
    text = '%import .other (item)\nstart: "<a>" item "</a>"\n'
    for other in ('item: "<i>"\n', 'item: "</a>"?\n', "item: other\n", 'item: "<i>"\n'):
        imports = {"other.lark": other}
        assert said(read(text, kept, imports=imports)) == said(read(text, imports=imports)), other  # type: ignore[arg-type]
    # and be the one that is edited next, as definitions in it are the same ones
    kept, imports = Kept(), {"typed.lark": SECTIONS, "other.lark": 'item: "<i>"\n'}
    user = '%import .typed (step)\nstart: "<a>" step "</a>"\n'
    for file, edited in (("typed.lark", SECTIONS), ("user.lark", user), ("typed.lark", SECTIONS)):
        warm = analyse(edited, file, imports=imports, kept=kept)
        assert said(warm) == said(analyse(edited, file, imports=imports)), file


def test_symbols_of_former_texts_are_given_up() -> None:
    kept = Kept()
    for number in range(300):
        tag = "".join(_LETTERS[int(digit)] for digit in str(number))
        assert not read(SECTIONS.replace('"<two>"', f'"<two{tag}>"'), kept).faults
    assert len(kept.sets.by_tag.symbols) < 150
    assert len(kept.sets.by_leaf.symbols) < 150
    assert len(kept.rules.by_id) == len(kept.sets.by_tag.rules) == 9


def test_a_value_is_kept_as_long_as_all_that_its_name_uses_is_the_same() -> None:
    """`a` uses `b`, which uses itself and `c`; `d` stands alone."""
    uses: dict[str, list[str]] = {"a": ["b"], "b": ["b", "c"], "c": [], "d": []}
    kept = KeptValues()

    def asked(bodies: dict[str, object]) -> set[str]:
        found, asked = Uses(dict(uses), bodies, kept), set[str]()
        for name in uses:
            found.once("letter", name, name, lambda name=name: asked.add(name))
        found.at_rest("", lambda name, _: asked.add(name.upper()) or name, "itself")
        return asked

    bodies: dict[str, object] = {name: object() for name in uses}
    assert asked(bodies) == set("abcdABCD")
    assert asked(bodies) == set()
    assert asked(bodies | {"c": object()}) == set("abcABC")
    assert asked(bodies | {"d": object()}) == set("abcdABCD")  # c is back, and d is another
    Uses(uses, bodies, kept)  # a reading that asks for nothing leaves nothing
    assert asked(bodies) == set("abcdABCD")
    uses["d"] = ["c"]
    assert asked(bodies) == set("dD")


def test_a_declaration_is_not_parsed_again_where_it_has_moved() -> None:
    text = (
        'start: a [b "x"] pair{a, "y"} ("z"~2..3 /r/i)\n'
        'a: "1".."2" |\n%declare TEXT\npair{x, y}: x y\nb.2: [] () "b" []\n'
    )
    reader.read(f"// m\n{text}", "moved.lark")
    parsed = reader._read_short.cache_info().misses
    moved = reader.read(f"// m\n\n\n// m\n{text}", "moved.lark")
    assert moved.declarations == reader._read_whole(moved.text, "moved.lark").declarations
    assert reader._read_short.cache_info().misses <= parsed + 1  # what stands before the first
