"""Vocabularies without a model: one token a byte, or a tokenizer's files."""

from __future__ import annotations

import json
from pathlib import Path

from nprdsl.cli.failures import Failure, told
from nprdsl.cli.files import read_text
from nprdsl.tokens.vocabulary import Vocabulary

_END = "<|end|>"


def byte_level(tags: tuple[str, ...]) -> Vocabulary:
    """256 bytes, the tags as special tokens, and an end of sequence."""
    names = [*tags, _END]
    special = {name: 256 + index for index, name in enumerate(names)}
    return Vocabulary({byte: bytes([byte]) for byte in range(256)}, special, _END)


def from_files(path: str) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`, or of the folder that it lies in."""
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise Failure(f"no tokenizer at `{path}`; give a tokenizer.json or its folder")
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise Failure(
            "--tokenizer needs the tokenizers package; install it with: pip install 'nprdsl[local]'"
        ) from error
    text = read_text(str(file))
    with told(ValueError, about=f"`{file}` is not JSON"):
        json.loads(text)
    # `tokenizers` raises bare Exception for a JSON that is no tokenizer, with the reason
    with told(Exception, about=f"`{file}` is no tokenizer"):
        tokenizer = Tokenizer.from_str(text)
    with told(ValueError, about=f"cannot use the tokenizer `{file}`"):
        return Vocabulary.from_tokenizer(tokenizer, eos=_end(file.parent))


def _end(folder: Path) -> str | None:
    """The end of sequence that stands in the configuration beside a tokenizer."""
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    with told(ValueError, about=f"`{config}` is not JSON"):
        values = json.loads(read_text(str(config)))
    end = values.get("eos_token") if isinstance(values, dict) else None
    name = end.get("content") if isinstance(end, dict) else end
    return name if isinstance(name, str) else None
