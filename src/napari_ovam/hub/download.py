"""Getting models from the Hugging Face hub: the one downloader.

They are kept in the hub's own cache, where other programs find them.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download, hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    tqdm,
)

from napari_ovam.base.atomic import replacing
from napari_ovam.base.progress import no_progress
from napari_ovam.hub.errors import explain
from napari_ovam.hub.files import INDEX, LEFT_OUT, read_index
from napari_ovam.hub.hub import HubModel, cache_folder, describe
from napari_ovam.hub.store import LocalModel, find_model
from napari_ovam.hub.transfer import fetch, patiently

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ovam.base.progress import Progress
    from napari_ovam.hub.hub_files import HubFile


def get_model(model: str, *, weights: bool = True) -> Path:
    """Return the folder of a hub model: as it is here, or else downloaded now.

    A bar on the screen shows how far it is. Without `weights`, configurations and
    tokenizers are enough.

    It raises `ModelError` or `OSError` as `download_model`.
    """
    found = find_model(model)
    if found is not None and (found.complete or (not weights and _has_parts(found))):
        return found.path
    new_bar: Any = tqdm
    with new_bar(unit="B", unit_scale=True, desc=model, delay=1, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return download_model(model, weights=weights, progress=show)


def download_model(
    model: str | HubModel,
    *,
    variant: str | None = None,
    pickles: bool = False,
    weights: bool = True,
    progress: Progress = no_progress,
) -> Path:
    """Download a model from the hub; what is here already is not fetched again.

    It raises `ModelError` as `describe`; or if a file arrived damaged, or the
    connection broke off; `OSError` if the disk is too small or cannot be written;
    `Cancelled` if `progress` raised it.

    It returns a diffusers folder for `load_pipeline`.

    Parameters
    ----------
    model
        A hub id, or what `describe` said of it.
    variant, pickles, weights
        As in `describe`.
    progress
        Called about ten times a second with (bytes here, all bytes). It may raise
        `Cancelled`: what has arrived stays, and the next call goes on from there.
    """
    if isinstance(model, str):
        look_up = partial(
            describe, model, variant=variant, pickles=pickles, weights=weights
        )
        model = patiently(look_up, lambda: progress(0, 1))
    folder = cache_folder(model.id)
    _check_disk(model, folder)
    before, place = 0, Path()
    # The index first: an unfinished download is recognised by it.
    for file in sorted(model.files, key=lambda f: (f.name != INDEX, f.size)):
        report = partial(_report, progress, before, model.size)
        try:
            path = _fetch(model, file, folder, report)
        except Exception as error:
            raise explain(model.id, error) from error
        if file.name == INDEX:
            place = path.parent
        before += file.size
        progress(before, model.size)
    # Last: until then, an older version that is here stays the one that is loaded.
    ref = folder / "refs" / "main"
    if weights or not ref.exists():
        ref.parent.mkdir(parents=True, exist_ok=True)
        with replacing(ref) as temporary:
            temporary.write_text(model.commit, encoding="utf-8")
    return place


def _fetch(
    model: HubModel, file: HubFile, folder: Path, report: Callable[[int], None]
) -> Path:
    """Fetch a file under its hash, and put it in its place in the cache."""
    target = folder / "blobs" / file.hash
    if not target.exists():
        fetch(
            hf_hub_url(model.id, file.name, revision=model.commit),
            target,
            lock=folder.parent / ".locks" / folder.name / f"{file.hash}.lock",
            size=file.size,
            headers=build_hf_headers(),
            report=report,
        )
    link = partial(hf_hub_download, model.id, file.name, revision=model.commit)
    return Path(patiently(link, partial(report, file.size)))


def _has_parts(model: LocalModel) -> bool:
    """Tell whether all parts of a model are here, if without their weights."""
    return all(
        (model.path / name).is_dir()
        for name, part in read_index(model.path).items()
        if isinstance(part, list) and part[0] and name not in LEFT_OUT
    )


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _check_disk(model: HubModel, folder: Path) -> None:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if (free := shutil.disk_usage(there).free) < model.missing:
        raise OSError(
            f"{model.id} needs {model.missing / 1e9:.1f} GB more and {there} has "
            f"{free / 1e9:.1f} GB: make room, or set HF_HOME to a larger disk"
        )
