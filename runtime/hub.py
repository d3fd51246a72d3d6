"""Whether the hub has a model or a dataset, asked once: the libraries behind it repeat a question
that fails for a minute, each in turn.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of its client
    GatedRepoError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

SECONDS: Final = 10  # for the answer


class Kind(StrEnum):
    """What is asked for."""

    MODEL = "model"
    DATASET = "dataset"


_A_FILE: Final = {Kind.MODEL: "config.json", Kind.DATASET: "README.md"}  # that a copy on disk has


def why_not(name: str, kind: Kind = Kind.MODEL) -> str | None:
    """Why nothing of that name can be had; None where a copy is on disk or the hub has it."""
    try:
        if isinstance(try_to_load_from_cache(name, _A_FILE[kind], repo_type=kind), str):
            return None
        HfApi().repo_info(name, repo_type=kind, timeout=SECONDS)
    except OfflineModeIsEnabled:
        return "it is not on disk, and HF_HUB_OFFLINE forbids to ask the hub"
    except GatedRepoError:
        return "the hub asks for its terms to be accepted and a token: run `hf auth login`"
    except RepositoryNotFoundError:
        return f"there is no such folder, and no such {kind} on the hub (or it is private)"
    except HFValidationError:
        return "there is no such folder, and the hub has no names of this form"
    except HTTPError as error:
        return f"it is not on disk, and the hub cannot be reached: {error}"
    return None
