"""Filling a project: images made or taken in, with their traces, each once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.base.prompt_syntax import plain_prompt
from napari_ovam.diffusion.architectures import pipeline_architecture
from napari_ovam.diffusion.generation import generate, generate_video
from napari_ovam.diffusion.image_traces import trace_image
from napari_ovam.images.files import page_count, read
from napari_ovam.images.metadata import ImageMetadata, read_metadata
from napari_ovam.workflows.adding import add_picture, find_picture

if TYPE_CHECKING:
    from pathlib import Path

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
    new = len(known) < count
    if new:
        made = generate_video(pipe, settings, frames=count, progress=progress)
        first: dict[int, str] = {}  # the frame that has each trace
        for number, each in enumerate(made):
            if number not in known:  # of a run that was stopped
                about, ending = {**video, "frame": number}, f"-{number:03}"
                same = first.get(id(each.trace))
                known[number] = _add_made(project, each, about, ending, same)
            first.setdefault(id(each.trace), known[number])
    return [known[number] for number in range(count)], new


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
    left where it is: see `adding.add_file`.

    It raises `ImageFileError` if it is broken, or holds several pages and none was
    chosen.

    It returns the name of its sample, and whether it is new.
    """
    image = read(file.path, page=file.page)
    source = file.told.as_source(file.path.name) if file.told.raw else file.path.name
    about = {"model": model, "prompt": file.prompt, "seed": seed}
    name = find_picture(project, file.path.name, image)
    if name is not None:
        known = project.sample(name).provenance
        same = all(known.get(key) == value for key, value in about.items())
        if same and project.trace_path(name).is_file():
            return name, False
    found = trace_image(pipe, image, prompt=file.prompt, seed=seed, progress=progress)
    about = {**about, "source": source, "text_encoder": found.trace.model}
    if new := name is None:
        name = add_picture(project, file.path, image, file.page, left_in, about)
    else:
        project.change_sample(name, provenance=about)
    project.save_trace(name, found.trace)
    return name, new
