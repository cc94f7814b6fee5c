"""Filling a project: images made or taken in, with their traces, each once.

Pictures are copied, or left where they are and pointed at.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.base.prompt_syntax import plain_prompt
from napari_ovam.diffusion.architectures import pipeline_architecture
from napari_ovam.diffusion.generation import generate, generate_video
from napari_ovam.diffusion.image_traces import trace_image
from napari_ovam.images.files import PICTURE_SUFFIXES, page_count, read
from napari_ovam.images.metadata import ImageMetadata, read_metadata
from napari_ovam.project.references import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ovam.base.generation_settings import GenerationSettings
    from napari_ovam.diffusion.generation import Generation
    from napari_ovam.project import Project


def generate_sample(
    project: Project,
    pipe: Any,
    model: str,
    settings: GenerationSettings,
    *,
    progress: Progress = no_progress,
) -> tuple[str, bool]:
    """Generate an image with its trace, unless the project holds it already.

    It returns the name of its sample, and whether it is new.

    Parameters
    ----------
    project
        Where it goes.
    pipe, model
        The pipeline, and the name that it was loaded by.
    settings
        With all of the model's defaults: see `resolve_settings`.
    progress
        As in `generate`; may raise `Cancelled`.
    """
    made_of = {"model": model, **asdict(settings)}
    if known := _made_of(project, settings.prompt, made_of):
        return known[0], False
    made = generate(pipe, settings, progress=progress)
    return _add_made(project, made, made_of), True


def generate_frames(
    project: Project,
    pipe: Any,
    model: str,
    settings: GenerationSettings,
    *,
    frames: int | None = None,
    progress: Progress = no_progress,
) -> tuple[list[str], bool]:
    """Generate a video with its traces, a sample a frame: see `generate_sample`.

    It returns the names of its samples in the order of the frames, and whether they
    are new.

    Parameters
    ----------
    project, pipe, model, settings, progress
        As in `generate_sample`.
    frames
        How many; None is the model's own default.
    """
    count = frames or pipeline_architecture(pipe).length
    video = {"model": model, **asdict(settings), "frames": count}
    known = {
        (project.settings(name) or {}).get("frame"): name
        for name in _made_of(project, settings.prompt, video)
    }
    if len(known) < count:
        made = generate_video(pipe, settings, frames=count, progress=progress)
        first: dict[int, str] = {}  # the frame that has each trace
        for number, each in enumerate(made):
            if number not in known:  # of a run that was stopped
                about, ending = {**video, "frame": number}, f"-{number:03}"
                same = first.get(id(each.trace))
                known[number] = _add_made(project, each, about, ending, same)
            first.setdefault(id(each.trace), known[number])
        return [known[number] for number in range(count)], True
    return [known[number] for number in range(count)], False


def _made_of(project: Project, prompt: str, made_of: dict[str, Any]) -> list[str]:
    """Return the samples that were made from settings."""
    return [
        sample.name
        for sample in project.samples
        if sample.provenance.get("title") == prompt
        and made_of.items() <= (project.settings(sample.name) or {}).items()
    ]


def _add_made(
    project: Project,
    made: Generation,
    made_of: dict[str, Any],
    ending: str = "",
    as_of: str | None = None,
) -> str:
    settings = made.settings
    name = f"{settings.prompt.lower()}-{settings.seed}{ending}"
    about = {
        "title": settings.prompt,
        "model": made_of["model"],
        "text_encoder": made.trace.model,
    }
    sample = project.add_sample(
        made.image, made_of, project.reserve(name), provenance=about
    )
    project.save_trace(sample.name, made.trace, as_of=as_of)
    return sample.name


@dataclass(frozen=True)
class ImageFile:
    """An image file: which of its pages, what it tells, and what it shows."""

    path: Path
    page: int | None
    told: ImageMetadata
    prompt: str

    @classmethod
    def look(
        cls, path: Path, page: int | None, prompt: str | None, *, plain: bool
    ) -> Self:
        """Look at a file, without its pixels.

        It raises `ImageFileError` if it is no image.

        Parameters
        ----------
        path, page
            The file, and which of several pages.
        prompt
            What it shows; None for what it says of that itself.
        plain
            Whether weights and tags of other programs are taken out of the prompt.
        """
        page_count(path)
        told = read_metadata(path)
        words = told.prompt if prompt is None else prompt
        return cls(path, page, told, plain_prompt(words)[0] if plain else words)


def trace_file(
    project: Project,
    pipe: Any,
    model: str,
    file: ImageFile,
    *,
    seed: int = 0,
    left_in: Path | None = None,
    progress: Progress = no_progress,
) -> tuple[str, bool]:
    """Record what a model sees in an image, and add it unless it is there already.

    One that is there gets the new trace and keeps its labels. A new one is copied, or
    left where it is: see `add_file`.

    It raises `ImageFileError` if it is broken, or holds several pages and none was
    chosen.

    It returns the name of its sample, and whether it is new.
    """
    image = read(file.path, page=file.page)
    source = file.told.as_source(file.path.name) if file.told.raw else file.path.name
    about = {"model": model, "prompt": file.prompt, "seed": seed}
    name = _find(project, file.path.name, image)
    if name is not None:
        known = project.sample(name).provenance
        same = all(known.get(key) == value for key, value in about.items())
        if same and project.trace_path(name).is_file():
            return name, False
    found = trace_image(pipe, image, prompt=file.prompt, seed=seed, progress=progress)
    about = {**about, "source": source, "text_encoder": found.trace.model}
    if name is None:
        name = _add_file(project, file.path, image, file.page, left_in, about)
        new = True
    else:
        project.change_sample(name, provenance=about)
        new = False
    project.save_trace(name, found.trace)
    return name, new


def add_file(
    project: Project,
    path: Path,
    *,
    page: int | None = None,
    left_in: Path | None = None,
) -> tuple[str, bool]:
    """Add a picture without a look at it, unless it is there already.

    It raises `ImageFileError` if it is broken, or holds several pages and none was
    chosen.

    It returns the name of its sample, and whether it is new.

    Parameters
    ----------
    project, path
        Where it goes, and its file.
    page
        Which of several pages.
    left_in
        The folder that it is in and stays in: the project points at it. None copies it.
    """
    image = read(path, page=page)
    name = _find(project, path.name, image)
    if name is not None:
        return name, False
    about = {"source": path.name}
    return _add_file(project, path, image, page, left_in, about), True


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder and those below it, in order."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _add_file(
    project: Project,
    path: Path,
    image: NDArray[np.uint8],
    page: int | None,
    left_in: Path | None,
    about: Mapping[str, Any],
) -> str:
    made = {"title": path.stem, **about}
    if left_in is not None:
        shape = image.shape[0], image.shape[1]
        there = Reference.to(project.path, path, folder=left_in, page=page, shape=shape)
        made |= there.about()
    name = project.reserve(path.stem)
    return project.add_sample(image, name=name, provenance=made).name


def _find(project: Project, file: str, image: NDArray[np.uint8]) -> str | None:
    """Return the sample that came from a file of that name and has these pixels."""
    for sample in project.samples:
        source = sample.provenance.get("source")
        if file != (source.get("file") if isinstance(source, dict) else source):
            continue
        try:
            if np.array_equal(project.load_image(sample.name), image):
                return sample.name
        except (ValueError, OSError):
            continue  # it is missing or broken there
    return None
