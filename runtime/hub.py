"""Asks the Hugging Face hub whether it has a model or a dataset, before anything is loaded from it.

The libraries that load them answer a name that does not exist, or a hub that cannot be reached, by
trying again for up to a minute each, and then with a message of their own. Here the question is
asked once, with a limit of ten seconds, and the answer is a sentence for the user.
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
    RevisionNotFoundError,
)

SECONDS: Final = 10  # for the answer


class RepoKind(StrEnum):
    """What kind of repository on the hub, by the hub's own names."""

    MODEL = "model"
    DATASET = "dataset"


# A file that every repository of the kind has: if the cache has it, there is a copy on disk.
_ALWAYS_THERE: Final = {RepoKind.MODEL: "config.json", RepoKind.DATASET: "README.md"}


def why_not(
    name: str,
    kind: RepoKind = RepoKind.MODEL,
    *,
    revision: str | None = None,
    file: str | None = None,
) -> str | None:
    """Why `name` cannot be loaded, as the end of a sentence; None where a copy is on disk or the
    hub has it. A copy is known by `file`, by default one that every repository of the kind has."""
    try:
        there = file or _ALWAYS_THERE[kind]
        if isinstance(try_to_load_from_cache(name, there, None, revision, kind), str):
            return None
        HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=SECONDS)
    except OfflineModeIsEnabled:
        return "it is not on disk, and HF_HUB_OFFLINE forbids to ask the hub"
    except GatedRepoError:
        return "the hub asks for its terms to be accepted and a token: run `hf auth login`"
    except RepositoryNotFoundError:
        return f"there is no such folder, and no such {kind} on the hub (or it is private)"
    except RevisionNotFoundError:
        return f"it has no revision `{revision}`"
    except HFValidationError:
        return "there is no such folder, and the hub has no names of this form"
    except HTTPError as error:
        return f"it is not on disk, and the hub cannot be reached: {error}"
    return None
