"""Models that were used last and folders with models, remembered between sessions."""

from __future__ import annotations

import json
from pathlib import Path

from napari_ovam.base.atomic import replacing
from napari_ovam.base.user_folders import scratch_folder

_MODELS = "recent-models.json"
_FOLDERS = "model-folders.json"
_KEPT = 8


def recent_models() -> list[str]:
    """Return names and folders of models, the last used first."""
    return _read(_MODELS)[:_KEPT]


def remember_model(model: str) -> None:
    """Put a model first; what cannot be written is not remembered."""
    names = [model, *(each for each in recent_models() if each != model)][:_KEPT]
    _write(_MODELS, names)


def model_folders() -> list[Path]:
    """Return the folders in which a person keeps models, in the order of naming."""
    return [Path(each) for each in _read(_FOLDERS)]


def remember_folder(folder: Path) -> None:
    """Look for models in a folder from now on."""
    known = [str(each) for each in model_folders()]
    new = str(folder.expanduser().absolute())
    if new not in known:
        _write(_FOLDERS, [*known, new])


def forget_folder(folder: Path) -> None:
    """Look for models in a folder no more; its files stay."""
    gone = str(folder.expanduser().absolute())
    _write(_FOLDERS, [str(each) for each in model_folders() if str(each) != gone])


def _read(file: str) -> list[str]:
    try:
        found = json.loads((scratch_folder() / file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(found, list):
        return []
    return [each for each in found if isinstance(each, str)]


def _write(file: str, names: list[str]) -> None:
    path = scratch_folder() / file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(names), encoding="utf-8")
    except OSError:
        return
