"""Sequential chains of thought become parallel traces of any schema (arXiv 2506.09991).

Five steps, each a question to a model behind an OpenAI-compatible endpoint: parse, group, arrange,
refill, write (`steps`). Needs no torch; `pip install 'nprdsl[curate]'`.
"""

from nprdsl.trainers.curate.asking import Asker
from nprdsl.trainers.curate.cache import Cache
from nprdsl.trainers.curate.capacity import Room, room_of
from nprdsl.trainers.curate.cost import Account
from nprdsl.trainers.curate.endpoint import (
    Endpoint,
    Secret,
    Service,
    Structured,
    UnusableEndpointError,
)
from nprdsl.trainers.curate.pipeline import Curator
from nprdsl.trainers.curate.rows import Chain, Curated, Rejected, RejectReason
from nprdsl.trainers.curate.run import curate_all
from nprdsl.trainers.curate.summary import Summary

__all__ = [
    "Account",
    "Asker",
    "Cache",
    "Chain",
    "Curated",
    "Curator",
    "Endpoint",
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
