"""Vocabularies read from fast tokenizers of the usual kinds, against their own decoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.grammar.tag_shapes import is_tag
from nprdsl.tokens.vocabulary import Vocabulary

tokenizers = pytest.importorskip("tokenizers")

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402


def byte_level() -> Tokenizer:
    """All bytes, and three merges; `<eos>` special, `<plan>` a tag, two blanks an ordinary one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), ("Ġa", "b"), ("Ã", "©")]
    pieces = [*alphabet, *("".join(m) for m in merges), "日"]
    model = models.BPE({piece: i for i, piece in enumerate(pieces)}, merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.add_tokens([AddedToken("<plan>", special=False), AddedToken("  ", special=False)])
    return tokenizer


def sentence_piece() -> Tokenizer:
    """Llama's layout: byte pieces first, `▁` for the blank, one blank prepended by the encoder."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁ab"]
    merges = [("▁", "a"), ("▁a", "b")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>"])
    return tokenizer


def characters() -> Tokenizer:
    pieces = ["<eos>", "<step>", *"0123456789+ \n▁é"]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<eos>", "<step>"])
    return tokenizer


BYTE_LEVEL = byte_level(), Vocabulary.from_tokenizer(byte_level(), eos="<eos>")
SENTENCE_PIECE = sentence_piece(), Vocabulary.from_tokenizer(sentence_piece())
TEXTS = st.text(st.sampled_from("ab é日\n\t▁<>") | st.characters(codec="utf-8"), max_size=12)


@given(TEXTS)
def test_byte_level_ids_spell_what_was_encoded(text):
    tokenizer, vocabulary = BYTE_LEVEL
    ids = tokenizer.encode(text).ids
    assert b"".join(map(vocabulary.bytes_of, ids)) == text.encode()
    assert vocabulary.encode(text) == tuple(ids)
    assert vocabulary.text(ids) == text == tokenizer.decode(ids)


def test_byte_level_added_tokens():
    tokenizer, vocabulary = BYTE_LEVEL
    eos, plan, blanks = (tokenizer.token_to_id(t) for t in ("<eos>", "<plan>", "  "))
    assert vocabulary.special == {"<eos>": eos, "<plan>": plan}
    assert vocabulary.added == {"  ": blanks}
    assert vocabulary.eos_id == eos
    assert vocabulary.bytes_of(blanks) == b"  "
    assert vocabulary.bytes_of(tokenizer.token_to_id("日")) == "日".encode()
    assert vocabulary.text([plan, *tokenizer.encode("é").ids]) == "<plan>é"
    spelled = vocabulary.encode("a<plan>")
    assert plan not in spelled
    assert vocabulary.text(spelled) == "a<plan>"


@pytest.mark.parametrize("text", ["<a b>", "<a\u3000b>", "<>", "⟨a\xa0⟩", "[é]"])
def test_an_added_token_has_the_shape_of_a_tag_if_a_schema_takes_it_for_one(text):
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken(text, special=False)])
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    assert (text in vocabulary.special, text in vocabulary.added) == (
        is_tag(text),
        not is_tag(text),
    )


@given(TEXTS)
def test_sentence_piece_ids_spell_what_was_encoded(text):
    tokenizer, vocabulary = SENTENCE_PIECE
    text = text.replace("▁", "_")
    ids = tokenizer.encode(text).ids
    assert b"".join(map(vocabulary.bytes_of, ids)).removeprefix(b" ") == text.encode().removeprefix(
        b" "
    )
    assert vocabulary.text(vocabulary.encode(text)) == text


def test_sentence_piece_pieces():
    tokenizer, vocabulary = SENTENCE_PIECE
    assert vocabulary.bytes_of(tokenizer.token_to_id("<0x0A>")) == b"\n"
    assert vocabulary.bytes_of(tokenizer.token_to_id("▁ab")) == b" ab"
    assert vocabulary.special == {"<unk>": 0}
    # the letter's own piece, not its byte; and no blank that the encoder would prepend
    assert vocabulary.encode("a") == (tokenizer.token_to_id("a"),)
    assert vocabulary.encode("\n") == (tokenizer.token_to_id("<0x0A>"),)


def test_characters_are_themselves():
    vocabulary = Vocabulary.from_tokenizer(characters(), size=64)
    assert vocabulary.size == 64
    assert vocabulary.text(vocabulary.encode("12+ 3▁é\n")) == "12+ 3▁é\n"
    assert vocabulary.special == {"<eos>": 0, "<step>": 1}


def test_transformers_wrapper():
    transformers = pytest.importorskip("transformers")
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(), eos_token="<eos>", pad_token="<pad>"
    )
    vocabulary = Vocabulary.from_tokenizer(wrapped)
    assert vocabulary.eos_id == vocabulary.special["<eos>"]
    assert set(vocabulary.special) == {"<eos>", "<plan>", "<pad>"}
    assert vocabulary.encode(" ab") == tuple(wrapped(" ab")["input_ids"])


def test_other_tokenizers_are_refused():
    tokenizer = Tokenizer(models.WordPiece({"a": 0, "##b": 1}, unk_token="a"))
    with pytest.raises(ValueError, match=r"no decoder.*Fuse"):
        Vocabulary.from_tokenizer(tokenizer)
    tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match=r"decoder 'WordPiece' does not join.*tokens=\{id: bytes"):
        Vocabulary.from_tokenizer(tokenizer)
    with pytest.raises(ValueError, match="str is not a fast tokenizer"):
        Vocabulary.from_tokenizer("gpt2")
