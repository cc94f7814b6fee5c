"""Images from disk, and what their files say of how they were made."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_ovam.base.prompt_syntax import plain_prompt

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.base.generation_settings import GenerationSettings
    from napari_ovam.images.metadata import ImageMetadata

LOOK = ("noise_level", "noise_seeds", "flip", "max_tiles")
"""How the model looks at a loaded image: what `trace_image` takes."""


class SeveralPages(ValueError):
    """A file of several pages or frames, of which one has to be chosen."""

    def __init__(self, path: Path, count: int) -> None:
        super().__init__(f"{path.name} holds {count} pages: choose one of them")
        self.path, self.count = path, count


def read_image(
    path: Path, page: int | None = None
) -> tuple[NDArray[np.uint8], ImageMetadata]:
    """Read an image file, and what it says of how it was made.

    Parameters
    ----------
    path
        Of any format that `napari_ovam.images.files.read` takes.
    page
        Which of several pages, from 0.

    Raises
    ------
    SeveralPages
        If there are several and `page` is None.
    ValueError
        If the file is no image, or broken.
    """
    from napari_ovam.images.files import page_count, read
    from napari_ovam.images.metadata import read_metadata

    if page is None and (count := page_count(path)) > 1:
        raise SeveralPages(path, count)
    return read(path, page=page), read_metadata(path)


def model_here(named: str, chosen: str) -> str | None:
    """Return what to load for the model that a file names, None where it is not here.

    Tools name the same weights by a hub id, a file or its stem: the last part counts.

    Parameters
    ----------
    named
        As the file has it, such as "v1-5-pruned.safetensors" or "v1-5 [6ce0161689]".
    chosen
        The model at hand, which goes first.
    """
    wanted = _stem(named)
    if not wanted:
        return None
    if wanted == _stem(chosen):
        return chosen
    from napari_ovam.hub.store import list_models

    here = (model.name for model in list_models() if model.complete)
    return next((name for name in here if _stem(name) == wanted), None)


def _stem(model: str) -> str:
    name = re.sub(r"\s*\[\w+\]$", "", model.strip())  # a short hash
    name = re.split(r"[\\/]", name)[-1].casefold()
    return re.sub(r"\.(safetensors|ckpt|pt|pth)$", "", name)


@dataclass
class Told:
    """What a file says, as far as it matters for loading it.

    Attributes
    ----------
    settings
        How it was made, None without a prompt.
    model
        What to load for the model that it names; "" where that is not here.
    again
        Whether it was generated again.
    """

    metadata: ImageMetadata | None
    settings: GenerationSettings | None
    model: str
    again: bool = False

    @classmethod
    def of(
        cls, metadata: ImageMetadata | None, chosen: str, *, plain: bool = False
    ) -> Told:
        """Return what metadata say; `plain` takes what is no word out of the prompt."""
        if metadata is None:
            return cls(None, None, "")
        settings = metadata.settings()
        if plain and settings is not None:
            settings = replace(settings, prompt=plain_prompt(settings.prompt)[0])
        return cls(metadata, settings, model_here(metadata.model, chosen) or "")

    @property
    def ours(self) -> bool:
        """Whether this program made it."""
        return self.metadata is not None and self.metadata.tool == "napari-ovam"

    @property
    def prompt(self) -> str:
        """Its prompt; empty where none is said."""
        return self.settings.prompt if self.settings is not None else ""

    @property
    def note(self) -> str:
        """What is to be said of it."""
        return self.metadata.describe() if self.metadata is not None else ""

    @property
    def can_be_offered(self) -> bool:
        """Whether the model that made it may make it again: it and the seed are known.

        What was generated again already needs no offer.
        """
        known = self.metadata is not None and self.metadata.seed is not None
        return known and bool(self.model) and not (self.again or self.settings is None)
