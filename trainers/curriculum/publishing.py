"""The model of the last stage, as it ships with the package: bf16, in half the space."""

from __future__ import annotations

import shutil
from pathlib import Path

from nprdsl.runtime.local.loading import load_model, quiet

_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
          "tokenizer_config.json", "chat_template.jinja")  # fmt: skip


def publish(model: Path, folder: Path) -> None:
    """Writes the model over the one in `folder`; files that are not the model's stay. Raises
    ModelNotFoundError, OSError."""
    made = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    loaded, tokenizer = load_model(str(model), "cpu", "bf16")
    with quiet():
        loaded.save_pretrained(made)
        tokenizer.save_pretrained(made)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        (made / name).chmod(0o644)
        (made / name).replace(folder / name)
    shutil.rmtree(made)
