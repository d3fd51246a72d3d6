"""What the folder of an adapter says of itself: the base model that it was trained beside.

In goes a folder; out comes the base that it names, or None where the folder holds a whole model.
Read without torch or PEFT, so that a server can refuse an adapter before it starts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nprdsl.runtime.errors import ModelNotFoundError

SETTINGS: Final = "adapter_config.json"
_WHOLE: Final = ("model*.safetensors", "pytorch_model*.bin")  # of a model that needs no base


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The `base` model of an adapter, by its folder or name, and its `revision` on the hub."""

    base: str
    revision: str | None


def adapter_settings(folder: Path) -> AdapterSettings | None:
    """Of the adapter in a folder; None where it holds none, or a whole model beside one.

    Raises ModelNotFoundError where the file does not name a base model.
    """
    file = folder / SETTINGS
    if not file.is_file() or any(found for kind in _WHOLE for found in folder.glob(kind)):
        return None
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotFoundError(f"`{file}` is no JSON: {error}") from None
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if not isinstance(base, str) or not base:
        raise ModelNotFoundError(
            f"`{folder}` is a PEFT adapter whose {SETTINGS} has no `base_model_name_or_path`"
        )
    return AdapterSettings(base, settings.get("revision"))
