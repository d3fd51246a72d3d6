"""The key that a server asks for: where it comes from, and what is said where it is refused.

It is given by hand or stands in the environment, and is in no result, log or message.
"""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "NPRDSL_API_KEY"
REFUSED: Final = 401  # the HTTP status


def api_key(given: str | None) -> str:
    """The key, else that of the environment; "" without any. Raises ValueError for characters that
    no header takes."""
    key = (os.environ.get(VARIABLE, "") if given is None else given).strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(
            "the API key has characters that no header takes; give ASCII without line breaks"
        )
    return key


def refusal(url: str, key: str) -> str:
    """What is said of a server that refuses a call for its key."""
    if key:
        return f"the server at {url} does not take this API key (HTTP {REFUSED})"
    return (
        f"the server at {url} asks for an API key (HTTP {REFUSED}): set {VARIABLE}, or give "
        "--api-key or SGLangEngine(…, api_key=…)"
    )
