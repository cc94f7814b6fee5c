"""What went wrong with the hub, said so that a person knows what to do."""

from __future__ import annotations

import json

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from napari_ovam.base.progress import Cancelled
from napari_ovam.hub.families import ModelError

_HERE = "choose one of the models that are on this computer (`napari-ovam models list`)"


def explain(model: str, error: Exception) -> Exception:
    """Return the error that says what happened to a model, and what to do.

    Errors of this machine's disk, and `Cancelled`, are returned as they are.
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    match error:
        case ModelError() | Cancelled():
            return error
        case HFValidationError():
            what = f"{model!r} is no hub id ('owner/name'): {error}"
        case GatedRepoError():
            what = _GATED.format(model)
        case RepositoryNotFoundError():
            what = (
                f"the hub has no model {model!r} that you may read, and there is no "
                "such folder here: check the spelling, or log in with `hf auth login` "
                "if it is private"
            )
        case EntryNotFoundError():
            what = f"{model} lacks a file that it lists: {error}"
        case OfflineModeIsEnabled():
            what = (
                f"{model} is not on this computer and cannot be looked up: "
                f"HF_HUB_OFFLINE is set. Unset it, or {_HERE}"
            )
        case _ if status in (401, 403):
            what = _GATED.format(model)
        case _ if status is not None or isinstance(error, HfHubHTTPError):
            what = f"the hub refused {model}: {error}"
        case json.JSONDecodeError():
            what = f"the index of {model} is not valid JSON: {error}"
        case OSError() if not isinstance(error, ConnectionError):
            return error
        case _:  # each version of the hub's client has its own for a missing network
            what = (
                f"{model} is not on this computer and the hub cannot be reached "
                f"({type(error).__name__}: {error}): check the network and try again, "
                f"what has arrived is kept; or {_HERE}"
            )
    return ModelError(what)


_GATED = (
    "{0} is gated: accept its terms on https://huggingface.co/{0}, then log in with "
    "`hf auth login`"
)
