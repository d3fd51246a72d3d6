"""Turns sequential chains of thought into parallel traces of any schema (arXiv 2506.09991).

Five steps, each a question to a model behind an OpenAI-compatible endpoint: parse, group, arrange,
refill, write (`steps`). Needs no torch; `pip install 'nprdsl[curate]'`.
"""

from nprdsl.trainers.curate.asking import Asker
from nprdsl.trainers.curate.endpoint import (
    Account,
    Cache,
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
    Rejected,
    RejectReason,
    Summary,
)
from nprdsl.trainers.curate.pipeline import Curator, curate_all
from nprdsl.trainers.curate.placement import Room, room_of

__all__ = [
    "Account",
    "Asker",
    "Cache",
    "Chain",
    "Curated",
    "Curator",
    "Endpoint",
    "Outcome",
    "RejectReason",
    "Rejected",
    "Room",
    "Secret",
    "Service",
    "Structured",
    "Summary",
    "UnusableEndpointError",
    "curate_all",
    "room_of",
]
