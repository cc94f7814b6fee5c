"""The folders of a user that this program writes to; none needs to exist.

An environment variable names another one for each.
"""

import os
from pathlib import Path


def scratch_folder() -> Path:
    """Return the folder of scratch projects, or what NAPARI_OVAM_SCRATCH names."""
    return _chosen("NAPARI_OVAM_SCRATCH") or _data() / "scratch"


def library_folder() -> Path:
    """Return the folder of the token library, or what NAPARI_OVAM_TOKENS names."""
    return _chosen("NAPARI_OVAM_TOKENS") or _data() / "tokens"


def cache_folder() -> Path:
    """Return the folder of cached traces, or what NAPARI_OVAM_CACHE names."""
    from platformdirs import user_cache_path

    chosen = _chosen("NAPARI_OVAM_CACHE")
    return chosen or Path(user_cache_path("napari-ovam", appauthor=False)) / "traces"


def _data() -> Path:
    from platformdirs import user_data_path

    return Path(user_data_path("napari-ovam", appauthor=False))


def _chosen(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None
