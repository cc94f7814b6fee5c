"""The command line: `napari-ovam`, the annotator, and its commands for scripts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

# Nothing heavy is imported here: --help and mistakes are answered at once.
if TYPE_CHECKING:
    from napari_ovam.progress import Progress

app = typer.Typer(
    name="napari-ovam",
    help="Masks from the attention of text-to-image diffusion models (OVAM). "
    "Without a command, the annotator opens in napari.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[
    str,
    typer.Option(
        help="'tiny' (embedded), a hub id, a diffusers folder or a .safetensors file."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
Folder = Annotated[
    Path, typer.Argument(help="The folder that 'generate' or 'trace' wrote.")
]


Out = Annotated[Path, typer.Option(help="The folder to add to; made if missing.")]


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.")
    ] = False,
) -> None:
    """Answer --version, and open the annotator where no command is given."""
    if version:
        from napari_ovam import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        from napari_ovam._qt.app import launch  # noqa: TID251

        raise typer.Exit(launch())


@app.command()
def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="A new folder; by default ovam-demo, or ovam-demo-2 ..."),
    ] = None,
) -> None:
    """Run the whole job on the embedded model, without a display.

    Images, maps, labels, optimized tokens and exported masks are written, and
    overview.png shows it all, with IoUs before and after.
    """
    with _reported():
        folder = out or _new_folder(Path("ovam-demo"))
        with _progress("demo") as progress:
            progress(0, 1)  # before torch is imported, which takes a while
            from napari_ovam.demo import run_demo

            scores = run_demo(folder, progress=progress)
        typer.echo(f"{'class':8} {'image':22} {'word':>6} {'token':>6}  IoU")
        for score in scores:
            typer.echo(
                f"{score.name:8} {score.image:22} "
                f"{score.phrase:6.2f} {score.token:6.2f}"
            )
        words = sum(s.phrase for s in scores) / len(scores)
        tokens = sum(s.token for s in scores) / len(scores)
        typer.echo(f"{'mean':31} {words:6.2f} {tokens:6.2f}")
        typer.echo(f"Look at {folder / 'overview.png'}")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    out: Out,
    count: Annotated[int, typer.Option(min=1, help="How many, seed by seed.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first image.")] = 0,
    negative_prompt: Annotated[str, typer.Option(help="What to keep away from.")] = "",
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="How strongly the prompt pulls.")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    model: Model = "tiny",
    device: Device = "auto",
) -> None:
    """Generate images and record their traces.

    Adds images/NAME.png and traces/NAME.safetensors to the folder. What is left out
    is the model's own default.
    """
    with _reported(), _progress("generate") as progress:
        from dataclasses import asdict

        import napari_ovam as ovam
        from napari_ovam.workfolder import WorkFolder

        pipe = ovam.load_pipeline(model, device=device)
        folder = WorkFolder(out, create=True)
        stem = "-".join(re.findall(r"\w+", prompt.lower()))[:60] or "image"
        for number in range(count):
            made = ovam.generate(
                pipe,
                ovam.GenerationSettings(
                    prompt,
                    negative_prompt,
                    seed + number,
                    steps,
                    guidance_scale,
                    height,
                    width,
                ),
                progress=_part(progress, number, count),
            )
            name = folder.new_name(f"{stem}-{seed + number}")
            ovam.save_trace(made.trace, folder.trace(name))
            folder.write_image(name, made.image, model=model, **asdict(made.settings))
            typer.echo(folder.path / "images" / f"{name}.png")


@app.command()
def trace(
    images: Annotated[list[Path], typer.Argument(help="Image files of any size.")],
    out: Out,
    prompt: Annotated[str, typer.Option(help="What they show, if known.")] = "",
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    model: Model = "tiny",
    device: Device = "auto",
) -> None:
    """Take images that exist, and record what the model sees in them.

    Adds images/NAME.png and traces/NAME.safetensors to the folder.
    """
    with _reported(), _progress("trace") as progress:
        import napari_ovam as ovam
        from napari_ovam.png import read_rgb
        from napari_ovam.workfolder import WorkFolder

        pixels = [read_rgb(path) for path in images]
        pipe = ovam.load_pipeline(model, device=device)
        folder = WorkFolder(out, create=True)
        for number, (path, image) in enumerate(zip(images, pixels, strict=True)):
            found = ovam.trace_image(
                pipe,
                image,
                prompt=prompt,
                seed=seed,
                progress=_part(progress, number, len(images)),
            )
            name = folder.new_name(path.stem)
            ovam.save_trace(found.trace, folder.trace(name))
            folder.write_image(name, image, model=model, source=path.name)
            typer.echo(folder.path / "images" / f"{name}.png")


@app.command()
def maps(
    folder: Folder,
    phrase: Annotated[
        list[str],
        typer.Option(help="A class and the words to look for; once for each class."),
    ],
    image: Annotated[
        list[str] | None, typer.Option(help="Names of images; all by default.")
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(
            help="From 0 to 1, or 'otsu'. A token with a threshold of its own uses it."
        ),
    ] = "otsu",
    tokens: Annotated[
        bool, typer.Option(help="Use the tokens that 'optimize' has made.")
    ] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace labels that exist.")] = False,
    model: Model = "tiny",
) -> None:
    """Map phrases on images and make labels of the maps.

    Adds maps/NAME.CLASS.png (16-bit), labels/NAME.png and classes.json. Labels that
    are there, and may have been corrected, are kept.
    """
    with _reported(), _progress("maps") as progress:
        import numpy as np
        from skimage.filters import threshold_otsu

        import napari_ovam as ovam
        from napari_ovam.workfolder import WorkFolder

        common = _threshold(threshold)
        work = WorkFolder(folder)
        names = work.names(image or [])
        pipe = ovam.load_pipeline(model, device="cpu")
        sources = [
            ovam.load_token(work.token(p))
            if tokens and work.token(p).is_file()
            else ovam.encode_phrase(pipe, p)
            for p in phrase
        ]
        limits = [
            s.info.get("scores", {}).get("threshold_after", common) for s in sources
        ]
        ids = work.class_ids(phrase)
        for number, name in enumerate(names):
            recorded = ovam.load_trace(work.trace(name))
            found = np.stack([ovam.phrase_map(recorded, s) for s in sources])
            for text, values in zip(phrase, found, strict=True):
                work.write_map(name, text, values)
            if work.has_labels(name) and not overwrite:
                typer.echo(f"{name}: its labels are kept (--overwrite replaces them)")
            else:
                thresholds = tuple(
                    float(threshold_otsu(v) if t == "otsu" else t)
                    for v, t in zip(found, limits, strict=True)
                )
                settings = ovam.LabelSettings(threshold=thresholds)
                work.write_labels(name, ovam.maps_to_labels(found, settings, ids=ids))
                typer.echo(work.path / "labels" / f"{name}.png")
            progress(number + 1, len(names))


@app.command()
def optimize(
    folder: Folder,
    phrase: Annotated[str, typer.Option(help="The class: its token is optimized.")],
    image: Annotated[
        list[str] | None,
        typer.Option(help="Names of annotated images; all with the class by default."),
    ] = None,
    recipe: Annotated[str, typer.Option(help="'default', or 'ovam'.")] = "default",
    iterations: Annotated[int | None, typer.Option(help="Steps.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the token.")] = False,
    model: Model = "tiny",
) -> None:
    """Optimize the token of a class from labels that a person has corrected.

    Writes tokens/CLASS.safetensors, which 'maps' uses from then on.
    """
    with _reported(), _progress("optimize") as progress:
        import napari_ovam as ovam
        from napari_ovam.workfolder import WorkFolder

        work = WorkFolder(folder)
        path = work.token(phrase)
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists: --overwrite replaces it")
        label = {c.name: c.id for c in work.classes()}.get(phrase)
        if label is None:
            known = [c.name for c in work.classes()]
            raise ValueError(f"there is no class {phrase!r} in {folder}: {known}")
        names = [
            name
            for name in work.names(image or [])
            if work.has_labels(name)
            and (image or (work.read_labels(name) == label).any())
        ]
        if not names:
            raise ValueError(f"no labels in {folder} hold the class {phrase!r}")
        pipe = ovam.load_pipeline(model, device="cpu")
        token = ovam.optimize_token(
            [ovam.load_trace(work.trace(name)) for name in names],
            ovam.encode_phrase(pipe, phrase),
            [ovam.labels_to_target(work.read_labels(name), label) for name in names],
            ovam.OptimizationSettings(recipe=recipe, iterations=iterations),  # type: ignore[arg-type]
            progress=progress,
        )
        ovam.save_token(token, path)
        scores = token.info["scores"]
        typer.echo(
            f"IoU on {', '.join(names)}: {scores['before']:.2f} with the word, "
            f"{scores['after']:.2f} with the token\n{path}"
        )


@app.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="A new folder for the dataset.")],
    format: Annotated[
        list[str] | None,
        typer.Option(
            help="indexed, coco, coco-parts, coco-panoptic, voc, yolo-seg, "
            "yolo-semantic, nnunet or hf; several by commas, or given again."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace these formats.")] = False,
) -> None:
    """Export images and labels as a dataset, read back and compared."""
    with _reported(), _progress("export") as progress:
        from napari_ovam import export_dataset
        from napari_ovam.workfolder import WorkFolder

        work = WorkFolder(folder)
        formats = [name.strip() for each in format or [] for name in each.split(",")]
        export_dataset(
            work.items(),
            work.classes(),
            out,
            formats or ["indexed"],
            overwrite=overwrite,
            progress=lambda done, total: progress(done, total or len(work.names())),
        )
        typer.echo(out)


def main() -> None:
    """Run the command line."""
    app()


@contextmanager
def _reported() -> Iterator[None]:
    """Show what a user can mend as one line and exit with 1; 130 after Ctrl-C."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        typer.echo(f"napari-ovam: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo("napari-ovam: stopped", err=True)
        raise typer.Exit(130) from error


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """Show a bar on a terminal, and nothing where the output is a file."""
    with typer.progressbar(
        length=1, label=what, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield progress


def _part(progress: Progress, number: int, count: int) -> Progress:
    """Return the progress of the one of several images that runs now."""
    return lambda done, total: progress(number * total + done, count * total)


def _threshold(text: str) -> float | Literal["otsu"]:
    if text == "otsu":
        return "otsu"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--threshold is {text!r}: give a number or 'otsu'") from None


def _new_folder(path: Path) -> Path:
    """Return the path, or with a number behind it the first that is free."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found
