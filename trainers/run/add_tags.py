"""Makes the tags of a schema single tokens of a model.

Without that a tag such as `</guideline>` is spelled with several tokens. Each tag becomes a special
token of the tokenizer, and the model's embedding matrices get a row for it, which begins as the
mean of the rows of its word's tokens (`guideline`, or `/guideline` for the closing tag): the model
starts from what it knows of the word (arXiv:2512.07461, section 2.3; arXiv:2506.09991).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

MULTIPLE: Final = 64  # rows of an embedding, for the matrix units of GPUs
_BRACKETS: Final = "<>[]⟨⟩"


def add_tags(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tags: Sequence[str],
    *,
    multiple: int = MULTIPLE,
) -> dict[str, int]:
    """Makes every tag a special token and gives new ones an embedding; changes model and tokenizer
    in place. Gives tag -> id of the new ones, those that were no single token before.

    Raises ValueError for a tag whose word the tokenizer has no tokens for.
    """
    words = {tag: _word_ids(tokenizer, tag) for tag in tags}
    known = {tag for tag in tags if len(_own_ids(tokenizer, tag)) == 1}
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(tags)}, replace_extra_special_tokens=False
    )
    new = {tag: tokenizer.convert_tokens_to_ids(tag) for tag in tags if tag not in known}
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(
            len(tokenizer), pad_to_multiple_of=multiple, mean_resizing=False
        )
    for matrix in _matrices(model):
        with torch.no_grad():
            for tag, token in new.items():
                matrix[token] = matrix[words[tag]].float().mean(0).to(matrix.dtype)
    return new


def _matrices(model: PreTrainedModel) -> list[torch.Tensor]:
    """The input embedding and, where it is another matrix, the output embedding."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    matrices = [inputs.weight]
    if outputs is not None and outputs.weight is not inputs.weight:
        matrices.append(outputs.weight)
    return matrices


def _own_ids(tokenizer: PreTrainedTokenizerFast, tag: str) -> list[int]:
    return list(tokenizer.encode(tag, add_special_tokens=False))


def _word_ids(tokenizer: PreTrainedTokenizerFast, tag: str) -> list[int]:
    word = tag.strip(_BRACKETS)
    ids = _own_ids(tokenizer, word)
    if not ids or tokenizer.unk_token_id in ids:
        raise ValueError(
            f"the tokenizer has no tokens for {word!r}, the word of the tag {tag}: give the tag an "
            "embedding yourself, or choose another word"
        )
    return ids
