"""What a user writes is text, never structure."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import nprdsl
from nprdsl.runtime.prompts import PromptEncoder, PromptError, is_single
from nprdsl.tokens.vocabulary import Vocabulary

TAGS = ["<step>", "</step>", "<<step>"]
SPECIAL = ["<eos>", "<bos>", "<|user|>", *TAGS]
TEMPLATE = "{% for m in messages %}<|user|>{{ m['content'] | trim }}\n{% endfor %}"


def byte_level(*, begins: bool = False) -> PreTrainedTokenizerFast:
    """Every byte is a token; the tags are special, `<|user|>` is added but not special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL if t != "<|user|>"])
    core.add_tokens([AddedToken("<|user|>", special=False)])
    if begins:
        bos = core.token_to_id("<bos>")
        core.post_processor = processors.TemplateProcessing("<bos> $A", None, [("<bos>", bos)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", bos_token="<bos>", chat_template=TEMPLATE
    )


def encoder(tokenizer: PreTrainedTokenizerFast) -> tuple[PromptEncoder, Vocabulary]:
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    return PromptEncoder(tokenizer, vocabulary), vocabulary


@pytest.mark.parametrize(
    "text",
    [
        "a <step> b",
        "<step>",
        "x</step></step>y",
        "<<step>",
        "<<step>step>",
        "<st<step>ep>",
        "é<step>",
    ],
)
def test_spelled_tags_stay_text(text: str) -> None:
    prompts, vocabulary = encoder(byte_level())
    ids = prompts.text(text, TAGS)
    assert not {vocabulary.special[tag] for tag in TAGS} & set(ids)
    assert vocabulary.text(ids) == text


def test_a_plain_tokenizer_call_would_make_them_special() -> None:
    _, vocabulary = encoder(byte_level())
    assert vocabulary.special["<step>"] in byte_level()("a <step> b").input_ids


def test_other_special_tokens_of_a_text_are_meant() -> None:
    prompts, vocabulary = encoder(byte_level())
    assert prompts.text("<|user|>hi", TAGS)[0] == vocabulary.special["<|user|>"]


def test_the_beginning_mark_comes_once() -> None:
    prompts, vocabulary = encoder(byte_level(begins=True))
    bos = vocabulary.special["<bos>"]
    assert prompts.text("hi", TAGS).count(bos) == 1
    assert prompts.text("<bos>hi", TAGS).count(bos) == 1
    assert encoder(byte_level())[0].text("hi", TAGS).count(bos) == 0


def test_chat_messages_cannot_speak_as_the_template() -> None:
    prompts, vocabulary = encoder(byte_level())
    ids = prompts.chat(
        [{"role": "user", "content": "a <|user|> <step>"}, {"role": "user", "content": "b <eos>"}]
    )
    assert ids.count(vocabulary.special["<|user|>"]) == 2
    assert vocabulary.special["<step>"] not in ids and vocabulary.special["<eos>"] not in ids
    assert vocabulary.text(ids) == "<|user|>a <|user|> <step>\n<|user|>b <eos>\n"


def test_a_lead_stands_in_the_first_message_of_the_user() -> None:
    prompts, vocabulary = encoder(byte_level())
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert vocabulary.text(prompts.chat(chat, "lead: ")) == "<|user|>s\n<|user|>lead: u\n"
    with pytest.raises(PromptError, match='"role": "user"'):
        prompts.chat(chat[:1], "lead: ")


def test_private_use_characters_survive() -> None:
    prompts, vocabulary = encoder(byte_level())
    assert vocabulary.text(prompts.text("\ue000<step>\ue001", TAGS)) == "\ue000<step>\ue001"


def test_what_the_vocabulary_cannot_spell_is_refused() -> None:
    core = Tokenizer(models.BPE(vocab={"1": 0, "+": 1}, merges=[]))
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken("<eos>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    prompts, _ = encoder(tokenizer)
    assert prompts.text("1+1", []) == (0, 1, 0)
    with pytest.raises(PromptError, match=r"no token for 'é' \(U\+00E9\) of the prompt '1é1'"):
        prompts.text("1é1", [])


def test_special_tokens_of_a_template_are_not_taken_for_what_is_missing() -> None:
    """Their characters may have no tokens of their own; white space behind what is missing moves
    offsets."""
    core = Tokenizer(models.BPE(vocab={"1": 0, "+": 1, "\n": 2}, merges=[]))
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken("<eos>", special=True)])
    core.add_tokens([AddedToken("<|user|>", special=False)])
    prompts, _ = encoder(
        PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", chat_template=TEMPLATE)
    )
    ids = prompts.chat([{"role": "user", "content": "1+1"}])
    assert prompts.chat([{"role": "user", "content": "1 + 1"}]) == ids
    with pytest.raises(PromptError, match="no token for '-'"):
        prompts.chat([{"role": "user", "content": "1-1"}])
    with pytest.raises(PromptError, match="no token for '<'"):
        prompts.chat([{"role": "user", "content": "1<eos>"}])


def test_bad_prompts() -> None:
    prompts, vocabulary = encoder(byte_level())
    with pytest.raises(PromptError, match="the prompt is empty"):
        prompts.text("", TAGS)
    with pytest.raises(PromptError, match=f"has token {vocabulary.size}; the model's ids are 0 to"):
        prompts.ids([1, vocabulary.size])
    with pytest.raises(PromptError, match="a message is"):
        prompts.chat([{"rolle": "user", "content": "x"}])
    bare = byte_level()
    bare.chat_template = None
    with pytest.raises(PromptError, match="no chat template"):
        encoder(bare)[0].chat([{"role": "user", "content": "x"}])


def test_a_vocabulary_alone_spells_texts() -> None:
    vocabulary = Vocabulary({0: "a", 1: "b", 2: "ab"}, {"<step>": 3})
    prompts = PromptEncoder(None, vocabulary)
    assert prompts.text("abb", ["<step>"]) == (2, 1)
    assert prompts.ids([3, 0]) == (3, 0)


def few_letters(template: str) -> PromptEncoder:
    """A vocabulary of some letters, and a chat template."""
    core = Tokenizer(models.BPE(vocab={"h": 0, "i": 1, ":": 2}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    return encoder(PreTrainedTokenizerFast(tokenizer_object=core, chat_template=template))[0]


def test_errors_show_what_the_user_wrote_not_the_template() -> None:
    letters = few_letters("{% for m in messages %}hi:{{ m['content'] }}{% endfor %}")
    with pytest.raises(PromptError, match=r"no token for 'o' .* of the prompt 'ho';"):
        letters.chat([{"role": "user", "content": "ho"}])
    with pytest.raises(PromptError, match=r"no token for '!' .* of the chat template; set"):
        few_letters("{{ messages[0].content }}!").chat([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "messages: roles must alternate$"),
        ("{% for m in messages %}{{ m.content }", "messages: unexpected"),
        ("{{ nothing.there.at_all }}", "messages: 'nothing' is undefined$"),
        ("{{ messages[0].content + 3 }}", "messages: can only concatenate"),
    ],
)
def test_a_template_that_fails_is_told(template: str, reason: str) -> None:
    with pytest.raises(PromptError, match=reason):
        few_letters(template).chat([{"role": "user", "content": "hi"}])


NO_PROMPTS: list[tuple[object, str]] = [
    (None, "not NoneType"),
    (3, "not int"),
    ({"role": "user", "content": "x"}, "not dict; one message stands in a list too"),
    (b"abc", "not bytes; `.decode()` makes a text of bytes"),
    (np.array([1, 2]), "not ndarray; `.tolist()` makes a list of an array"),
    ((one for one in ["x"]), "not generator; `list(…)` makes a list"),
    ({"x"}, "not set; `list(…)` makes a list"),
    (["x", "y"], "this is a list of prompts, and one prompt is taken here"),
    ([[3], [4]], "this is a list of prompts, and one prompt is taken here"),
    ([[{"role": "user", "content": "x"}]], "this is a list of prompts, and one prompt"),
    ([None], "the prompt has the token None; token ids are integers"),
    ([1.5], "the prompt has the token 1.5; token ids are integers"),
    ([True], "the prompt has the token True; token ids are integers"),
    ([3, "a"], "the prompt has the token 'a'; token ids are integers"),
    ([{"role": "user"}], "a message is"),
    ([{"role": "user", "content": None}], "the `content` of this one is no text but NoneType"),
    ([{"role": "user", "content": [{"text": "x"}]}], "the `content` of this one is no text but"),
    ([{"role": 3, "content": "x"}], "the `role` of this one is no text but int"),
    ([{"role": "user", "content": "x"}, "y"], "a message is"),
    ("a\ud800b", "character 1 of the prompt is '\\ud800', half of a surrogate pair"),
    ([{"role": "user", "content": "\udc00"}], "half of a surrogate pair"),
]


@pytest.mark.parametrize(("prompt", "message"), NO_PROMPTS, ids=[m for _, m in NO_PROMPTS])
def test_what_is_no_prompt_is_told_what_one_is(prompt: Any, message: str) -> None:
    prompts, _ = encoder(byte_level())
    with pytest.raises(PromptError, match=re.escape(message)):
        prompts.read(nprdsl.load("npr"), prompt)


def test_ids_of_numpy_are_ids() -> None:
    prompts, _ = encoder(byte_level())
    ids = prompts.read(nprdsl.load("npr"), list(np.array([5, 6])))
    assert ids == (5, 6) and all(type(token) is int for token in ids)


@pytest.mark.parametrize(
    ("prompt", "single"),
    [("x", True), ([1], True), (list(np.array([1])), True), ([{"role": "user"}], True),
     ([], False), (["x"], False), ([[1]], False), ([[{}]], False), ((1,), True)],
    ids=str,
)  # fmt: skip
def test_one_prompt_is_told_from_a_list_of_them(prompt: object, single: bool) -> None:
    assert is_single(prompt) is single


PARTS = "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}|{% endfor %}{% endfor %}"


def test_a_template_that_wants_parts_of_a_content_gets_them() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = PARTS
    prompts, vocabulary = encoder(tokenizer)
    asked = [{"role": "user", "content": "a <step>"}, {"role": "user", "content": " b "}]
    ids = prompts.chat(asked)
    assert vocabulary.text(ids) == "a <step>| b |"
    assert not {vocabulary.special[tag] for tag in TAGS} & set(ids)


def test_a_template_without_the_messages_is_told() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = "{% if false %}x{% endif %}"
    prompts, _ = encoder(tokenizer)
    with pytest.raises(PromptError, match="the chat template leaves the messages out"):
        prompts.chat([{"role": "user", "content": "b"}])
