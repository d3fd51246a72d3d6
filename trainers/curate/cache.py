"""Replies on disk, keyed by the content of the request: a reply is paid for once.

One file for each reply, written whole or not at all, so that a kill at any moment leaves a cache
that can be used; several runs may share one. A file that cannot be read is no reply.
The key is a digest of model, messages, JSON schema of the reply and sampling; neither the address
nor the secret of the endpoint is in it, or in the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pydantic

from nprdsl.journal import write_whole

VERSION: Final = 1
ChatMessage = Mapping[str, str]


class Reply(pydantic.BaseModel):
    """What a model said. Token counts are -1 where the endpoint gave none."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    text: str
    refusal: str
    finish: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """All that a reply depends on. `json_schema` is that of the object in the reply."""

    model: str
    messages: Sequence[ChatMessage]
    json_schema: Mapping[str, object]
    sampling: Mapping[str, object]

    @property
    def key(self) -> str:
        messages = [dict(message) for message in self.messages]
        content = [VERSION, self.model, messages, self.json_schema, self.sampling]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Cache:
    """The replies in `folder`, which is made when the first is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, request: ReplyRequest) -> Reply | None:
        try:
            return Reply.model_validate_json(self._file(request.key).read_bytes())
        except (FileNotFoundError, pydantic.ValidationError):
            return None

    def keep(self, request: ReplyRequest, reply: Reply) -> None:
        """Raises OSError where the folder cannot be written."""
        file = self._file(request.key)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, reply.model_dump_json())

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
