"""What a client has to know of a server before it sends requests: bounds, settings, tokenizer.

Works for a server with the plugin, which says all of that (`ServerInfo`), and for a stock one, of
which some of it is inferred.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from nprdsl.runtime.errors import EngineUnavailableError
from nprdsl.runtime.sglang.client.transport import Transport
from nprdsl.runtime.sglang.protocol import KEY, TOKENIZER_PATH, ServerInfo

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# SGLang's names that are not torch's.
_DTYPES: Final = {"auto": "bfloat16", "half": "float16", "float": "float32"}


class RemoteServer:
    """One server. All methods raise EngineUnavailableError or ServerError if it does not answer.

    `plugin` is the plugin's `ServerInfo`, None for a stock server.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        answer = transport.get("/server_info")
        if not isinstance(answer, dict) or "max_req_input_len" not in answer:
            raise EngineUnavailableError(f"what answers at {transport.url} is no SGLang server")
        self._stock = answer
        self.plugin = ServerInfo.model_validate(answer[KEY]) if KEY in answer else None

    @property
    def longest_prompt(self) -> int:
        """The most tokens of a prompt that SGLang accepts."""
        return int(self._stock["max_req_input_len"]) - 1

    def check(self) -> None:
        """Raises EngineUnavailableError if its plugin has another version, or runs no schemas."""
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
        """Its bounds. A stock server tells neither the size of the output layer, which is taken to
        be `outputs`, nor the model's sampling settings, which are taken to be greedy; nor what
        "auto" chose for its weights, which is taken to be bfloat16."""
        if self.plugin is not None:
            return self.plugin
        dtype = str(self._stock["dtype"])
        return ServerInfo(
            nprdsl="",
            model=str(self._transport.get("/model_info")["served_model_name"]),
            positions=self._stock["max_req_input_len"],
            capacity=self._stock["max_total_num_tokens"],
            outputs=outputs,
            dtype=_DTYPES.get(dtype, dtype),
            sampling={"temperature": 0.0},
        )

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Its tokenizer: files that the plugin sends; of a stock server, what its `tokenizer_path`
        names, if that can be read on this machine."""
        if self.plugin is None:
            return _load_tokenizer(str(self._transport.get("/model_info")["tokenizer_path"]))
        with TemporaryDirectory() as folder:
            for name, text in self._transport.get(TOKENIZER_PATH).items():
                Path(folder, Path(name).name).write_text(text, encoding="utf-8")
            return _load_tokenizer(folder)


def _load_tokenizer(path: str) -> PreTrainedTokenizerFast:
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
