"""The commands that fill a project: `generate`, `trace`, `maps`, `optimize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import napari_ovam
from napari_ovam.base.words import plain_phrase, read_phrases
from napari_ovam.cli.common import (
    ByReference,
    Device,
    Dtype,
    Folder,
    Guidance,
    Images,
    Model,
    Negative,
    Page,
    Pixels,
    Steps,
    check_choice,
    find_class,
    part_of,
    reported,
    say,
    say_failed,
    show_progress,
    working_in,
)

# Nothing heavy is imported here: --help and mistakes are answered at once.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ovam.project import Project

Out = Annotated[
    Path, typer.Option(help="A project to add to; a new one if there is none.")
]

Threshold = Annotated[
    str | None,
    typer.Option(
        help="The probability from which a pixel is the class's, from 0 to 1, or "
        "'auto': 0.5. It stays with the class; by default each class keeps what it "
        "has, new ones 'auto'."
    ),
]
Tokens = Annotated[
    bool | None,
    typer.Option(
        help="Use the tokens that 'optimize' has made, or the words alone. By "
        "default what each class uses."
    ),
]
Layers = Annotated[str, typer.Option(help="What maps are made of: fine or all.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program's."""
    for command in (generate, trace, maps, optimize):
        app.command()(command)


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    out: Out,
    count: Annotated[int, typer.Option(min=1, help="How many, seed by seed.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first image.")] = 0,
    negative_prompt: Negative = "",
    steps: Steps = None,
    guidance_scale: Guidance = None,
    height: Pixels = None,
    width: Pixels = None,
    frames: Annotated[
        int | None, typer.Option(help="Of a video, where the model makes videos.")
    ] = None,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Generate images, or videos frame by frame, and record their traces.

    Adds images/NAME.png and traces/NAME.safetensors to a project. What is left out is
    the model's own default. What the project holds already is not made again.
    """
    with reported(), show_progress("generate") as progress:
        from dataclasses import replace

        from napari_ovam.base.prompt_syntax import plain_prompt
        from napari_ovam.diffusion.generation import resolve_settings
        from napari_ovam.diffusion.pipelines import pipeline_architecture
        from napari_ovam.workflows.filling import generate_frames, generate_sample

        if taken := plain_prompt(prompt)[1]:
            say(f"The model reads as words: {', '.join(taken)}", err=True)
        pipe = napari_ovam.load_pipeline(model, device=device, dtype=dtype)
        asked = napari_ovam.GenerationSettings(
            prompt, negative_prompt, seed, steps, guidance_scale, height, width
        )
        resolved = resolve_settings(pipe, asked)  # checked before a folder is made
        is_video = bool(pipeline_architecture(pipe).length)
        if frames is not None and not is_video:
            raise ValueError(f"--frames is {frames}, and {model} makes no videos")
        with working_in(out, create=True) as project:
            for number in range(count):
                each = replace(resolved, seed=seed + number)
                part = part_of(progress, number, count)
                if is_video:
                    names, new = generate_frames(
                        project, pipe, model, each, frames=frames, progress=part
                    )
                else:
                    name, new = generate_sample(
                        project, pipe, model, each, progress=part
                    )
                    names = [name]
                for name in names:
                    say_added(project, name, new=new)


def trace(
    images: Annotated[list[Path], typer.Argument(help="Image files of any size.")],
    out: Out,
    prompt: Annotated[
        str | None,
        typer.Option(help="What they show. By default what the file says, if it does."),
    ] = None,
    plain_prompts: Annotated[
        bool,
        typer.Option(
            "--plain-prompts",
            help="Take weights and tags of other programs out of the prompts.",
        ),
    ] = False,
    page: Page = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    by_reference: ByReference = False,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Take images that exist, and record what the model sees in them.

    Adds images/NAME.png and traces/NAME.safetensors to a project. What it holds already
    is not added again. Exits with 2 where single files could not be done.
    """
    with reported(), show_progress("trace") as progress:
        from napari_ovam.workflows.filling import ImageFile, trace_file

        files: list[ImageFile] = []
        failed: dict[str, str] = {}
        for path in images:  # mistakes are found before the model is loaded
            try:
                found = ImageFile.look(path, page, prompt, plain=plain_prompts)
            except (ValueError, OSError) as error:
                failed[str(path)] = str(error)
                continue
            files.append(found)
            if found.told.prompt:
                say(f"{path.name}: {found.told.describe()}", err=True)
        if not files:
            raise ValueError("; ".join(failed.values()))
        pipe = napari_ovam.load_pipeline(model, device=device, dtype=dtype)
        with working_in(out, create=True) as project:
            for number, file in enumerate(files):
                part = part_of(progress, number, len(files))
                try:
                    name, new = trace_file(
                        *(project, pipe, model, file),
                        seed=seed,
                        left_in=file.path.parent if by_reference else None,
                        progress=part,
                    )
                except (ValueError, RuntimeError) as error:
                    failed[str(file.path)] = str(error)
                    continue
                say_added(project, name, new=new)
    say_failed(failed)


def say_added(project: Project, name: str, *, new: bool) -> None:
    """Name the file of a picture, and say if it was there already."""
    say(project.image_file(name))
    if not new:
        say(f"{name} is there already", err=True)


def maps(
    folder: Folder,
    phrase: Annotated[
        list[str],
        typer.Option(
            help="A class and the words to look for; several by commas, or given again."
        ),
    ],
    image: Images = None,
    threshold: Threshold = None,
    layers: Layers = "fine",
    tokens: Tokens = None,
    save_maps: Annotated[bool, typer.Option(help="Write maps/*.png, too.")] = True,
    overwrite: Annotated[
        bool, typer.Option(help="Replace labels that were edited or accepted, too.")
    ] = False,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Map phrases on images and propose labels from the maps.

    Adds labels/NAME.png with the status "proposed", maps/NAME.ID-CLASS.png (16-bit)
    and the classes. Labels that a person edited, accepted or rejected, here or with
    another program, are kept.
    """
    with reported(), show_progress("maps") as progress:
        limit = _threshold(threshold)
        phrases, notes = read_phrases(", ".join(phrase))
        if not phrases:
            raise ValueError(f"--phrase is {', '.join(phrase)!r}: give at least a word")
        from napari_ovam.segmentation.class_maps import LAYERS

        check_choice("--layers", layers, LAYERS)
        for note in notes:
            say(note, err=True)
        with working_in(folder) as project:
            names = _names(project, image)
            from napari_ovam.cli.maps import choose_classes, propose_classes
            from napari_ovam.workflows.sample_trace import load_for_traces

            ids = choose_classes(project, phrases, tokens=tokens)
            for number in ids if threshold is not None else ():
                entry = project.classes[number]
                limits = {**entry.thresholds, entry.source: limit}
                project.classes.change(number, thresholds=limits)
            project.save()
            report = propose_classes(
                project,
                load_for_traces(project, names, model, device=device, dtype=dtype),
                names,
                ids,
                layers=layers,
                overwrite=overwrite,
                maps=save_maps,
                progress=progress,
            )
            for name, reason in report.kept.items():
                say(
                    f"{name}: its labels are kept ({reason}; --overwrite replaces them)"
                )
            for name in report.proposed:
                say(project.files.labels(name))
    say_failed(report.failed)


def optimize(
    folder: Folder,
    phrase: Annotated[str, typer.Option(help="The class: its token is optimized.")],
    image: Annotated[
        list[str] | None,
        typer.Option(
            help="Names of annotated images; by default all that hold the class and "
            "were edited or accepted, else all that hold it."
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help="'default', or 'ovam'.")] = "default",
    iterations: Annotated[int | None, typer.Option(help="Steps.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the token.")] = False,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Optimize the token of a class from labels that a person has corrected.

    Writes tokens/ID-CLASS.safetensors; maps are made with it and the phrase from then
    on, at a probability of 0.5.
    """
    with (
        reported(),
        show_progress("optimize") as progress,
        working_in(folder) as project,
    ):
        from napari_ovam.cli.maps import annotated, optimized
        from napari_ovam.workflows.sample_trace import load_for_traces

        entry = find_class(project, plain_phrase(phrase))
        if entry.token is not None and not overwrite:
            raise ValueError(
                f"{project.files.token(entry.token)} exists: --overwrite replaces it"
            )
        names = annotated(project, entry, image)
        result = optimized(
            project,
            entry,
            names,
            pipe=load_for_traces(project, names, model, device=device, dtype=dtype),
            recipe=recipe,
            iterations=iterations,
            progress=progress,
        )
        say(
            f"IoU on {', '.join(names)}: {result.before:.2f} with the word, "
            f"{result.after:.2f} with the token\n{result.path}"
        )


def _names(project: Project, chosen: Sequence[str] | None) -> list[str]:
    """Return the names of chosen samples, else of all."""
    if not project.samples:
        raise ValueError(f"{project.path} holds no images: generate or trace some")
    if not chosen:
        return [sample.name for sample in project.samples]
    return [project.sample(name).name for name in dict.fromkeys(chosen)]


def _threshold(text: str | None) -> float | None:
    """Return the threshold that an option gives, None for 0.5."""
    if text in (None, "auto"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"--threshold is {text!r}: give 0 to 1, or 'auto'")
    return value
