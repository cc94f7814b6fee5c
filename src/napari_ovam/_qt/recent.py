"""The models that were used last, remembered between sessions."""

from __future__ import annotations

import json

from napari_ovam.atomic import replacing
from napari_ovam.scratch import scratch_folder

_FILE = "recent-models.json"
_KEPT = 8


def recent_models() -> list[str]:
    """Return names and folders of models, the last used first."""
    try:
        found = json.loads((scratch_folder() / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, str)][:_KEPT]


def remember_model(model: str) -> None:
    """Put a model first; what cannot be written is not remembered."""
    names = [model, *(each for each in recent_models() if each != model)][:_KEPT]
    path = scratch_folder() / _FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(names), encoding="utf-8")
    except OSError:
        return
