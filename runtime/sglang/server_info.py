"""What a server says of itself: its bounds, its model's name, its tokenizer.

A server with the plugin adds a `ServerInfo` to SGLang's own `/server_info`, and gives out its
tokenizer's files.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from nprdsl.runtime.errors import EngineUnavailableError
from nprdsl.runtime.sglang.client.transport import Transport
from nprdsl.runtime.sglang.protocol import KEY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER_PATH: Final = "/nprdsl/tokenizer"


class ServerInfo(BaseModel):
    """`model`: the name that it was started with. `positions`: the most tokens of a sequence,
    prompt included. `capacity`: of all that is kept together. `outputs`: tokens that the model can
    choose. `sampling`: the model's own settings. `refusal`: why it can run no schema, "" if it
    can."""

    nprdsl: str
    model: str
    positions: int
    capacity: int
    outputs: int
    sampling: dict[str, Any] = {}
    refusal: str = ""


class ServerSelf:
    """What one server tells. Raises EngineUnavailableError, ServerError, also later."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        told = transport.get("/server_info")
        if not isinstance(told, dict) or "max_req_input_len" not in told:
            raise EngineUnavailableError(f"what answers at {transport.url} is no SGLang server")
        self._stock = told
        self.plugin = ServerInfo.model_validate(told[KEY]) if KEY in told else None

    @property
    def longest(self) -> int:
        """The most tokens of a prompt that SGLang takes."""
        return int(self._stock["max_req_input_len"]) - 1

    def check(self) -> None:
        """Raises EngineUnavailableError for a plugin that cannot be used from here."""
        here = version("nprdsl")
        if self.plugin is not None and self.plugin.nprdsl != here:
            raise EngineUnavailableError(
                f"the server at {self._transport.url} has nprdsl {self.plugin.nprdsl}, here is "
                f"{here}: install the same version on both"
            )
        if self.plugin is not None and self.plugin.refusal:
            raise EngineUnavailableError(
                f"the server at {self._transport.url} cannot run schemas: {self.plugin.refusal}"
            )

    def info(self, outputs: int) -> ServerInfo:
        """Its bounds. A stock server does not say how many tokens its model can choose: `outputs`
        is taken, and the model's own settings are taken for greedy ones."""
        if self.plugin is not None:
            return self.plugin
        return ServerInfo(
            nprdsl="",
            model=str(self._transport.get("/model_info")["served_model_name"]),
            positions=self._stock["max_req_input_len"],
            capacity=self._stock["max_total_num_tokens"],
            outputs=outputs,
            sampling={"temperature": 0.0},
        )

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Its own files; those of its `tokenizer_path` where it has no plugin."""
        if self.plugin is None:
            return _read(str(self._transport.get("/model_info")["tokenizer_path"]))
        with TemporaryDirectory() as folder:
            for name, text in self._transport.get(TOKENIZER_PATH).items():
                Path(folder, Path(name).name).write_text(text, encoding="utf-8")
            return _read(folder)


def _read(path: str) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise EngineUnavailableError(
            f"the server's tokenizer `{path}` cannot be read here; give SGLangEngine a tokenizer"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise EngineUnavailableError(
            f"the server's tokenizer is a {type(tokenizer).__name__}; a fast one is needed (a "
            "tokenizer.json), because only its tokens' bytes are known"
        )
    return tokenizer
