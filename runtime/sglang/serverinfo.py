"""What a server with the plugin says of itself, in SGLang's own `/server_info`.

Non-goals: SGLang's settings.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from nprdsl.runtime.sglang.protocol import KEY
from nprdsl.runtime.sglang.transport import Transport

TOKENIZER_PATH: Final = "/nprdsl/tokenizer"


class ServerInfo(BaseModel):
    """`positions`: the most tokens of a sequence, prompt included. `capacity`: of all that is kept
    together. `outputs`: tokens that the model can choose. `sampling`: the model's own settings.
    `refusal`: why it can run no schema, "" if it can."""

    nprdsl: str
    positions: int
    capacity: int
    outputs: int
    sampling: dict[str, Any] = {}
    refusal: str = ""


def plugin_of(transport: Transport) -> ServerInfo | None:
    """None for a server without the plugin. Raises EngineUnavailableError, ServerError."""
    told = transport.get("/server_info")
    if not isinstance(told, dict) or KEY not in told:
        return None
    return ServerInfo.model_validate(told[KEY])
