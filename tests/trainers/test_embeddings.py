"""New tags begin as the mean of their words, in both embeddings; known ones stay as they are."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from nprdsl.trainers.run.add_tags import add_tags

TAGS = ("<plan>", "</plan>", "<step>")


def tokenizer() -> PreTrainedTokenizerFast:
    letters = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    made = Tokenizer(BPE(vocab=letters, merges=[]))
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def model(*, tied: bool) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=256, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, tie_word_embeddings=tied,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tag_begins_as_the_mean_of_its_word(tied: bool) -> None:
    words, made = tokenizer(), model(tied=tied)
    added = add_tags(made, words, TAGS, multiple=8)
    assert list(added) == list(TAGS)
    assert made.get_input_embeddings().weight.shape[0] == 264
    matrices = {made.get_input_embeddings().weight, made.get_output_embeddings().weight}
    assert len(matrices) == (1 if tied else 2)
    for tag, token in added.items():
        assert words.encode(tag, add_special_tokens=False) == [token]
        ids = tokenizer().encode(tag.strip("<>"))
        assert len(ids) == len(tag) - 2
        for matrix in matrices:
            assert torch.allclose(matrix[token], matrix[ids].mean(0), atol=1e-6)


def test_known_tags_keep_their_embedding() -> None:
    words, made = tokenizer(), model(tied=True)
    first = add_tags(made, words, TAGS[:1])
    with torch.no_grad():
        made.get_input_embeddings().weight[first["<plan>"]] = 7.0
    again = add_tags(made, words, TAGS)
    assert list(again) == ["</plan>", "<step>"]
    assert words.convert_tokens_to_ids("<plan>") == first["<plan>"]
    assert (made.get_input_embeddings().weight[first["<plan>"]] == 7.0).all()


def test_other_special_tokens_stay_special() -> None:
    words, made = tokenizer(), model(tied=True)
    add_tags(made, words, ("<a>",))
    add_tags(made, words, ("<b>",))
    assert words.encode("<a><b>") == [words.convert_tokens_to_ids(t) for t in ("<a>", "<b>")]
    assert {"<a>", "<b>"} <= set(words.all_special_tokens)
