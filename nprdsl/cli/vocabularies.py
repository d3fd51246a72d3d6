"""The vocabulary that `nprdsl show` counts tokens with: bytes, a tokenizer's, or a model's.

In goes what the user named: nothing, a `tokenizer.json`, a folder, or a model. What cannot be used
becomes a `Failure` that says why.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from nprdsl.cli.failures import Failure, as_failure, requiring
from nprdsl.cli.files import read_text
from nprdsl.tokens.vocabulary import Vocabulary

_EOS: Final = "<|end|>"  # of a byte-level vocabulary


def byte_vocabulary(tags: tuple[str, ...]) -> Vocabulary:
    """256 bytes, the tags as special tokens, and an end of sequence."""
    special = {name: 256 + index for index, name in enumerate(dict.fromkeys((*tags, _EOS)))}
    return Vocabulary({byte: bytes([byte]) for byte in range(256)}, special, _EOS)


def model_vocabulary(name: str) -> Vocabulary:
    """The vocabulary of a model: of the package, in a folder, or on the hub."""
    from nprdsl.runtime.bundled import model_folder

    folder = Path(model_folder(name))
    if folder.is_dir():
        return tokenizer_vocabulary(str(folder))
    with requiring("local", user="--model"):
        from transformers import AutoTokenizer

        from nprdsl.runtime.hub import why_not
    if (why := why_not(name)) is not None:
        raise Failure(f"cannot load the tokenizer of `{name}`: {why}")
    with as_failure(OSError, ValueError, about=f"cannot use the tokenizer of `{name}`"):
        return Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(name))


def tokenizer_vocabulary(path: str) -> Vocabulary:
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
    with as_failure(ValueError, about=f"`{file}` is not JSON"):
        json.loads(text)
    # `tokenizers` raises bare Exception for a JSON that is no tokenizer, with the reason
    with as_failure(Exception, about=f"`{file}` is no tokenizer"):
        tokenizer = Tokenizer.from_str(text)
    with as_failure(ValueError, about=f"cannot use the tokenizer `{file}`"):
        return Vocabulary.from_tokenizer(tokenizer, eos=_configured_eos(file.parent))


def _configured_eos(folder: Path) -> str | None:
    """The end of sequence that stands in the configuration beside a tokenizer."""
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    with as_failure(ValueError, about=f"`{config}` is not JSON"):
        values = json.loads(read_text(str(config)))
    eos = values.get("eos_token") if isinstance(values, dict) else None
    name = eos.get("content") if isinstance(eos, dict) else eos
    return name if isinstance(name, str) else None
