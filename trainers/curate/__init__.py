"""Turns sequential chains of thought into parallel traces of any schema (arXiv 2506.09991).

Five steps, each a question to a model behind an OpenAI-compatible endpoint: parse, group, arrange,
refill, write (`steps`). Needs no torch; `pip install 'nprdsl[curate]'`.
"""

import warnings
from typing import TYPE_CHECKING, Final

from nprdsl.trainers.curate.asking import Asker
from nprdsl.trainers.curate.endpoint import (
    Cache,
    CostAccount,
    Endpoint,
    Secret,
    Service,
    Structured,
    UnusableEndpointError,
)
from nprdsl.trainers.curate.outcomes import (
    Chain,
    Curated,
    Outcome,
    RejectedChain,
    RejectReason,
    Summary,
)
from nprdsl.trainers.curate.pipeline import Curator, curate_all
from nprdsl.trainers.curate.placement import Room, room_of

__all__ = [
    "Asker",
    "Cache",
    "Chain",
    "CostAccount",
    "Curated",
    "Curator",
    "Endpoint",
    "Outcome",
    "RejectReason",
    "RejectedChain",
    "Room",
    "Secret",
    "Service",
    "Structured",
    "Summary",
    "UnusableEndpointError",
    "curate_all",
    "room_of",
]
_RENAMED: Final = {"Account": "CostAccount", "Rejected": "RejectedChain"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """The names of before still work in this version, with a DeprecationWarning."""
        if name not in _RENAMED:
            raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
        message = f"`{__name__}.{name}` is `{_RENAMED[name]}` now"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return globals()[_RENAMED[name]]
