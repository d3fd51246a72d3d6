"""Exported grammars in the libraries they are written for, and these libraries as oracles of ours.

Wherever a mask differs from ours, the difference is one of those that `Export.lost` announces, or
llguidance's rule that text without a choice has one spelling; both are checked token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest

import nprdsl
from benchmarks import vocabularies
from nprdsl.export import ExportLimits, export
from nprdsl.export.linear import linearise
from nprdsl.schema import Schema
from nprdsl.testing import byte_vocabulary, straddling_merges
from tests.linear_samples import sample, spell

xgrammar = pytest.importorskip("xgrammar", reason="pip install xgrammar")
llguidance = pytest.importorskip("llguidance", reason="pip install llguidance")

from tests.rivals import Allowed, LLGuidance, Outlines, Rival, XGrammar, unpack  # noqa: E402
from tests.walks import SUMS, schema_of  # noqa: E402

SCHEMAS = ("arith", "multiverse", "npr", "parallel_r1", "threadweaver")
MODES = ("special", "some", "text")
PANICS = ("arith", "some")  # what llguidance 1.9 does where a special tag follows a spelled one
pytestmark = pytest.mark.filterwarnings("ignore::nprdsl.masks.bound_schema.SpelledTagsWarning")
ITEM = {"arith": "<plan>", "npr": "<plan>", "multiverse": "<Outline>", "threadweaver": "<Outline>"}
WORDS = (
    " Let", "Let", " if", " a", "3$", " and", ": ", ":1", ": L", "12", "\n\n", "<s", "pla", "/p",
    "é", "世".encode()[1:], "é".encode() + b"\xe4", "🙂".encode()[:2],
)  # fmt: skip
EXACT = ExportLimits(items=6, exact_text=True)
FEW = ExportLimits(items=3)


BYTES_OF_STAND_INS = (b"\xee", b"\x80", *(bytes([128 + n]) for n in range(8)))


@dataclass(frozen=True)
class Setting:
    schema: Schema
    vocabulary: nprdsl.Vocabulary
    special: dict[str, int] | None

    @property
    def ours(self) -> nprdsl.BoundSchema:
        return self.schema.bind(self.vocabulary)

    def xgrammar(self, limits: ExportLimits = EXACT) -> XGrammar:
        found = export(self.schema.grammar, "xgrammar", special=self.special, limits=limits)
        return XGrammar(found, self.vocabulary)

    def llguidance(self, limits: ExportLimits = EXACT, tokenizer: object = None) -> LLGuidance:
        found = export(self.schema.grammar, "llguidance", special=self.special, limits=limits)
        tokenizer = tokenizer or LLGuidance.tokenizer_of(self.vocabulary)
        return LLGuidance(found, tokenizer, self.vocabulary.size)

    def texts(self, count: int) -> list[str]:
        linear = linearise(self.schema.grammar, FEW)
        return [sample(linear, Random(seed), depth=7) for seed in range(count)]


def setting(name: str, mode: str) -> Setting:
    schema = schema_of(SUMS) if name == "sums" else nprdsl.load(name)
    special = {"special": schema.tags, "some": schema.tags[::2], "text": ()}[mode]
    merges = dict.fromkeys(m for m in (*straddling_merges(schema.tags), *WORDS))
    vocabulary = byte_vocabulary(special, merges)
    return Setting(schema, vocabulary, vocabulary.special if special else None)


def real_setting(name: str, real: str, mode: str) -> tuple[Setting, object]:
    schema = nprdsl.load(name)
    try:
        loaded = vocabularies.load(real, schema.tags if mode == "special" else ())
    except vocabularies.MissingVocabulary as missing:
        pytest.skip(str(missing))
    vocabulary = nprdsl.Vocabulary(loaded.tokens, loaded.special, loaded.eos, size=loaded.size)
    tokenizer = llguidance.LLTokenizer(
        vocabularies.fast_tokenizer(loaded).to_str(),
        n_vocab=loaded.size,
        eos_token=loaded.special[loaded.eos],
    )
    special = dict(loaded.special) if mode == "special" else None
    return Setting(schema, vocabulary, special), tokenizer


TRIAGE = """
%import .parallel (map, process, reduce)
start:    block answer
block:    map{questions} process{question, check} reduce{decision}
questions: "<ask>" question+ "</ask>"
question: "<q>" LABEL ")" TEXT "</q>"
check:    "<check>" LABEL ")" VERDICT "</check>"
decision: "<so>" TEXT "</so>"
answer:   /(yes|no)[.!]?/
LABEL: /[a-z]/
%declare TEXT VERDICT
"""
VERDICT = r'\{"ok": (true|false), "score": (0|[1-9]\d?)\}'


# -- acceptance ------------------------------------------------------------------------------------


def faults(text: str) -> Iterator[str]:
    """NPR texts with one fault each that every export must refuse."""
    yield text.replace("</guideline>", "<plan>9: one more</plan>\n</guideline>", 1)
    yield text.replace("</guideline>\n<step>\n1:", "</guideline>\n<step>\n2:", 1)
    yield text.replace("</plan>", "", 1)
    yield text.replace("</takeaway>", "<step></takeaway>", 1)
    yield text[text.index("<plan>") :]
    yield text.replace("\n<takeaway>", "\n<step>\n1: again</step>\n<takeaway>", 1)


@pytest.mark.parametrize("exact", [False, True])
def test_xgrammar_accepts_legal_texts_and_refuses_faults(exact: bool) -> None:
    found = setting("npr", "text")
    rival = found.xgrammar(ExportLimits(exact_text=exact))
    for text in found.texts(5):
        assert rival.accepts(text)
        for fault in faults(text):
            assert fault != text and not rival.accepts(fault)
    blank = "<guideline>\n<plan>1: a</plan>\n</guideline>\n<step>\n1: \t</step>"
    blank += "\n<takeaway>\n \n</takeaway>\nx"
    assert rival.accepts(blank) is not exact


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("mode", MODES)
def test_default_exports_allow_every_legal_token(name: str, mode: str) -> None:
    found = setting(name, mode)
    limits = ExportLimits(items=3)
    rivals: list[Rival] = [found.xgrammar(limits)]
    if (name, mode) != PANICS:
        rivals.append(found.llguidance(limits))
    for text in found.texts(2):
        for rival in rivals:
            rival.restart()
            follow(found, text, rival, lambda allowed, step: None)


def test_typed_terminals_and_letters_as_labels(tmp_path: Path) -> None:
    file = tmp_path / "triage.lark"
    file.write_text(TRIAGE, "utf-8")
    schema = nprdsl.load(file, {"VERDICT": VERDICT})
    vocabulary = byte_vocabulary((), straddling_merges(schema.tags))
    found = Setting(schema, vocabulary, None)
    good = (
        '<ask><q>a)is it < 3?</q><q>b)so?</q></ask><check>a){"ok": true, "score": 12}</check>'
        '<check>b){"ok": false, "score": 0}</check><so>fine</so>yes!'
    )
    assert not schema.check(good)
    bad = (
        good.replace("<check>b)", "<check>c)"),
        good.replace("12", "012"),
        good.replace("true", "maybe"),
        good.replace("yes!", "yes?"),
        good.replace("<q>b)so?</q>", ""),
    )
    for rival in (found.xgrammar(), found.llguidance()):
        follow(found, good, rival, lambda allowed, step: None)
        for fault in bad:
            rival.restart()
            with pytest.raises(AssertionError):
                follow(found, fault, rival, lambda allowed, step: None)


def test_a_literal_that_other_content_begins_with(tmp_path: Path) -> None:
    """A greedy lexer must not take `no` apart from the tag that tells which `no` it is."""
    file = tmp_path / "answers.lark"
    file.write_text('start: "<a>" (WORD "</w>" | "no" "</n>")\nWORD: /[a-z]+/\n', "utf-8")
    schema = nprdsl.load(file)
    found = Setting(schema, byte_vocabulary(), None)
    for text in ("<a>no</n>", "<a>no</w>", "<a>nor</w>", "<a>n</w>"):
        assert not schema.check(text)
        for rival in (found.xgrammar(), found.llguidance()):
            follow(found, text, rival, lambda allowed, step: None)


# -- masks -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A place in a trace: the bytes read, those of the label that is being read, if any."""

    read: bytes
    rest: bytes
    token: int


def follow(found: Setting, text: str, rival: Rival, look: Callable[[Allowed, Step], None]) -> None:
    """Steps through `text`, its forced parts as llguidance spells them."""
    vocabulary, tags = found.vocabulary, found.schema.tags
    read, rest = b"", text.encode()
    while True:
        forced = rival.forced() if isinstance(rival, LLGuidance) and rest else []
        remaining = rest.decode("utf-8", "surrogateescape")
        token = next(iter([*forced, *spell(vocabulary, remaining, tags)]), vocabulary.eos_id)
        assert token is not None
        allowed = rival.allowed()
        assert allowed[token], (read[-40:], vocabulary.text([token]))
        assert rest.startswith(bytes_of(vocabulary, token)) or not rest
        look(allowed, Step(read, rest, token))
        if token == vocabulary.eos_id:
            return
        rival.take(token)
        size = len(bytes_of(vocabulary, token))
        read, rest = read + rest[:size], rest[size:]


def bytes_of(vocabulary: nprdsl.Vocabulary, token: int) -> bytes:
    name = vocabulary.special_text.get(token)
    return vocabulary.bytes_of(token) if name is None else name.encode()


def other_label(found: Setting, step: Step, token: int) -> bool:
    """Whether the place is in an item's label, and the token spells another one."""
    tag = ITEM.get(found.schema.name, "\0").encode()
    at = step.read.rfind(tag)
    field = step.read[at + len(tag) :]
    if at < 0 or b":" in field or b"<" in field:
        return False
    label = (field + step.rest).partition(b":")[0] + b":"
    written = field + bytes_of(found.vocabulary, token)
    return not (label.startswith(written) or written.startswith(label))


def past_an_end(found: Setting, step: Step, token: int) -> bool:
    """Whether the token runs on behind a closing tag, where an engine forks or joins."""
    text = step.read + found.vocabulary.bytes_of(token)
    for tag in found.schema.tags:
        at = text.rfind(tag.encode()) if tag.startswith("</") else -1
        if at >= 0 and len(step.read) < at + len(tag) < len(text):
            return True
    return False


def cut_at_end(found: Setting, step: Step) -> tuple[int, ...]:
    """The token of a step, or the tokens for its parts before and behind a closing tag's end."""
    if not past_an_end(found, step, step.token):
        return (step.token,)
    piece = found.vocabulary.bytes_of(step.token)
    cut = piece.rindex(b">") + 1
    before, behind = (found.vocabulary.spell(part) for part in (piece[:cut], piece[cut:]))
    assert before is not None and behind is not None
    return before + behind


def unexplained(found: Setting, ours: Allowed, theirs: Allowed, step: Step) -> list[str]:
    """The tokens that one allows and the other refuses for no announced reason."""
    tokens = [
        int(token)
        for token in np.nonzero(ours != theirs)[0]
        if not (ours[token] and other_label(found, step, token))
        and not (theirs[token] and past_an_end(found, step, token))
    ]
    return [found.vocabulary.text([token]) for token in tokens]


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("mode", MODES)
def test_masks_equal_xgrammar(name: str, mode: str) -> None:
    found = setting(name, mode)
    rival, ours = found.xgrammar(), found.ours
    for text in found.texts(4):
        rival.restart()
        matcher = ours.matcher()

        def look(theirs: Allowed, step: Step, matcher: nprdsl.Matcher = matcher) -> None:
            allowed = unpack(matcher.mask(), found.vocabulary.size)
            assert not unexplained(found, allowed, theirs, step), step.read[-60:]
            if step.token != found.vocabulary.eos_id:
                matcher.advance(step.token)

        follow(found, text, rival, look)


def compare_with_llguidance(found: Setting, rival: LLGuidance, texts: list[str]) -> None:
    ours = found.ours
    for text in texts:
        rival.restart()
        matcher = ours.matcher()

        def look(theirs: Allowed, step: Step, matcher: nprdsl.Matcher = matcher) -> None:
            allowed = unpack(matcher.mask(), found.vocabulary.size)
            forced = rival.forced()
            if forced and step.rest:  # one spelling of text without a choice
                assert list(np.nonzero(theirs)[0]) == [forced[0]]
                assert allowed[forced[0]] != past_an_end(found, step, forced[0])
            else:
                assert not unexplained(found, allowed, theirs, step), step.read[-60:]
            if step.token != found.vocabulary.eos_id:
                for token in cut_at_end(found, step):
                    matcher.advance(token)

        follow(found, text, rival, look)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("mode", MODES)
def test_masks_equal_llguidance(name: str, mode: str) -> None:
    if (name, mode) == PANICS:
        pytest.skip("llguidance 1.9 panics at a special token right behind a spelled tag")
    found = setting(name, mode)
    compare_with_llguidance(found, found.llguidance(), found.texts(4))


@pytest.mark.parametrize("real", ["gpt2", "mistral", "deepseek"])
@pytest.mark.parametrize("mode", ["special", "text"])
def test_masks_over_real_vocabularies(real: str, mode: str) -> None:
    found, tokenizer = real_setting("npr", real, mode)
    compare_with_llguidance(found, found.llguidance(EXACT, tokenizer), found.texts(1))


@pytest.mark.parametrize("mode", MODES)
def test_what_loose_free_text_adds_is_announced(mode: str) -> None:
    found = setting("npr", mode)
    loose = ExportLimits(items=6)
    assert added(found, found.xgrammar(loose), found.xgrammar()) == {"not UTF-8", "blank"}
    spelled = set() if mode == "text" else {"a tag in letters"}
    assert added(found, found.llguidance(loose), found.llguidance()) == spelled


def added(found: Setting, loose: Rival, exact: Rival) -> set[str]:
    """Why `exact` refuses tokens that `loose` allows; it never is the other way round."""
    reasons: set[str] = set()

    def look(allowed: Allowed, step: Step) -> None:
        strict = exact.allowed()
        assert not (strict & ~allowed).any()
        more = np.nonzero(allowed & ~strict)[0]
        reasons.update(reason(found, step, int(token)) for token in more)
        if step.token != found.vocabulary.eos_id:
            exact.take(step.token)

    for text in found.texts(2):
        loose.restart()
        exact.restart()
        follow(found, text, loose, look)
    return reasons


def reason(found: Setting, step: Step, token: int) -> str:
    """Why free text may not hold the token."""
    piece = bytes_of(found.vocabulary, token)
    tag = max((step.read.rfind(t.encode()) + len(t) for t in found.schema.tags), default=0)
    field = step.read[tag:]
    special = token in found.vocabulary.special_text
    spelled = any(t.encode() in field + piece for t in found.special or ())
    if not special and spelled:
        return "a tag in letters"
    if not field.split(b":")[-1].strip() and (special or not piece.split(b"<")[0].strip()):
        return "blank"
    try:
        (field + piece).decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    return "unknown"


@pytest.mark.parametrize("mode", MODES)
def test_outlines_compiles_and_accepts(mode: str) -> None:
    """outlines-core refuses some legal tokens (see `nprdsl.export.outlines`), but allows no others
    than the expression does."""
    found = setting("sums", mode)
    vocabulary = found.vocabulary
    limits = ExportLimits(items=2, exact_text=True)
    exported = export(found.schema.grammar, "outlines", special=found.special, limits=limits)
    rival = Outlines(exported, found.vocabulary)
    ours = found.ours
    linear = linearise(found.schema.grammar, ExportLimits(items=2))
    refused = 0
    for seed in range(2):
        rival.restart()
        matcher = ours.matcher()
        text = sample(linear, Random(seed))
        for token in spell(vocabulary, text, found.schema.tags):
            theirs = rival.allowed()
            allowed = unpack(matcher.mask(), vocabulary.size)
            added = [vocabulary.bytes_of(int(t)) for t in np.nonzero(theirs & ~allowed)[0]]
            assert all(found.special and piece in BYTES_OF_STAND_INS for piece in added)
            assert theirs[token]
            refused += int((allowed & ~theirs).sum())
            matcher.advance(token)
            rival.take(token)
    assert refused
