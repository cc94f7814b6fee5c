"""The commands `propose` and `improve` on a project, and `tokens` on the library."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import napari_ovam
from napari_ovam.cli.common import (
    Device,
    Dtype,
    Folder,
    Images,
    Model,
    find_class,
    reported,
    say,
    say_failed,
    show_progress,
    working_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ovam.project import Project

# Nothing heavy is imported here: --help and mistakes are answered at once; what is
# public comes from the package, which loads it then.
tokens = typer.Typer(
    name="tokens",
    help="The token library: list, import, export and remove tokens.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Classes = Annotated[
    list[str] | None,
    typer.Option("--class", help="Names or ids of classes; else all of them."),
]
TokenName = Annotated[str, typer.Argument(help="Its name, or the name of its file.")]
Library = Annotated[
    Path | None, typer.Option(help="Another library than your own: a folder.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program's."""
    app.command()(propose)
    app.command()(improve)
    app.add_typer(tokens)


def propose(
    project: Folder,
    image: Images = None,
    classes: Classes = None,
    redo: Annotated[
        bool, typer.Option(help="Do those again that are proposed already.")
    ] = False,
    like: Annotated[
        str | None,
        typer.Option(
            help="An image: look for more of what the --class is in it, in all others."
        ),
    ] = None,
    carry: Annotated[
        str | None,
        typer.Option(
            help="An image: look for its objects in those that follow it, each near "
            "where it was, as in a stack or film."
        ),
    ] = None,
    keep_traces: Annotated[
        bool, typer.Option(help="Save the traces that are made: some MB each.")
    ] = False,
    all_classes: Annotated[
        bool,
        typer.Option(
            "--all-classes",
            help="Look for all classes also where the prompt of an image names some.",
        ),
    ] = False,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Propose labels for the images of a project.

    What was edited, accepted or rejected is never touched. A run that was stopped is
    gone on with by the next. Exits with 2 where single images could not be done.
    """
    with (
        reported(),
        show_progress("propose") as progress,
        working_in(project) as opened,
    ):
        progress(0, 1)  # before torch is imported, which takes a while
        from napari_ovam.workflows.sample_trace import load_for_traces

        settings = napari_ovam.ProposalSettings(
            redo=redo, keep_traces=keep_traces, by_prompt=not all_classes
        )
        chosen = [find_class(opened, text).id for text in classes or ()]
        call = _propose_call(like, carry, chosen)
        pipe = load_for_traces(
            opened, image or _all(opened), model, device=device, dtype=dtype
        )
        report = call(opened, pipe, names=image, settings=settings, progress=progress)
    for note in report.notes():
        say(f"{note} --all-classes looks for it there, too.")
    say(
        f"{len(report.proposed)} proposed, {len(report.kept)} left as they were, "
        f"{len(report.failed)} failed"
    )
    say_failed(report.failed)


def _all(project: Project) -> list[str]:
    return [sample.name for sample in project.samples]


def _propose_call(
    like: str | None, carry: str | None, chosen: list[int]
) -> Callable[..., Any]:
    """Return what proposes: all classes, some, or what is in an image.

    It raises `ValueError` where that is not one class, or options contradict.
    """
    if carry is not None:
        if like is not None or chosen:
            raise ValueError("--carry takes all objects: leave --like and --class out")
        from napari_ovam.workflows.carrying_on import carry_on

        return lambda project, _, **how: carry_on(project, carry, **how)
    if like is None:
        return partial(napari_ovam.propose, classes=chosen or None)
    if len(chosen) != 1:
        raise ValueError("--like needs one --class: what to look for more of")
    from napari_ovam.workflows.finding_more import find_more

    return partial(find_more, name=like, number=chosen[0])


def improve(
    project: Folder,
    classes: Classes = None,
    leave_out: Annotated[
        float, typer.Option(help="Share of the images that tokens are scored on.")
    ] = 0.25,
    most: Annotated[int, typer.Option(help="Images of a class that are used.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the choice of images.")] = 0,
    store: Annotated[
        str, typer.Option(help="Which tokens to use: better, always or never.")
    ] = "better",
    iterations: Annotated[int | None, typer.Option(help="Steps.")] = None,
    library: Library = None,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Optimize the tokens of classes on the accepted images of a project.

    Shows the IoU on images that were left out, before and after. A token that is
    replaced is kept in the library.
    """
    with (
        reported(),
        show_progress("improve") as progress,
        working_in(project) as opened,
    ):
        progress(0, 1)
        from napari_ovam.workflows.improving import ImproveSettings
        from napari_ovam.workflows.sample_trace import load_for_traces

        settings = ImproveSettings(
            leave_out=leave_out,
            most=most,
            seed=seed,
            store=store,  # type: ignore[arg-type]  # checked there
            optimization=napari_ovam.OptimizationSettings(iterations=iterations),
        )
        chosen = [find_class(opened, text).id for text in classes or ()]
        report = napari_ovam.improve_tokens(
            opened,
            load_for_traces(opened, _all(opened), model, device=device, dtype=dtype),
            chosen or None,
            settings=settings,
            library=napari_ovam.TokenLibrary(library),
            progress=progress,
        )
    say(f"{'class':20} {'before':>7} {'after':>7}  on")
    for found in report.results:
        where = f"{len(found.left_out)} left out"
        if not found.left_out:
            where = "the image it was optimized on"
        elif found.known:
            where += f", {len(found.known)} of them known to the old token"
        used = "used now" if found.stored else "not used"
        say(
            f"{found.name[:20]:20} {found.before:7.2f} {found.after:7.2f}  {where}; "
            f"{used}"
        )
    for name, reason in (*report.skipped.items(), *report.failed.items()):
        say(f"{name}: {reason}", err=True)


@tokens.command("list")
def list_tokens(
    text: Annotated[str, typer.Argument(help="In the name or phrase.")] = "",
    sort: Annotated[
        str, typer.Option(help="name, model, phrase, images, iou or date.")
    ] = "name",
    descending: Annotated[bool, typer.Option(help="The largest first.")] = False,
    library: Library = None,
) -> None:
    """List the tokens; damaged files come last."""
    with reported():
        for entry in napari_ovam.TokenLibrary(library).entries(
            text,
            sort=sort,  # type: ignore[arg-type]  # checked there
            descending=descending,
        ):
            if entry.damaged:
                say(f"{entry.path.name}: damaged ({entry.damaged})", err=True)
                continue
            score = "-" if entry.iou is None else f"{entry.iou:.2f}"
            say(
                f"{entry.path.stem:24} {entry.name!r} of {entry.phrase!r}, "
                f"model {entry.model[:8] or 'unknown'}, {entry.images} images, "
                f"IoU {score}, {entry.date[:10]}"
            )


@tokens.command("import")
def import_tokens(
    file: Annotated[Path, typer.Argument(help="A .safetensors token, or OVAM's .npy.")],
    model: Annotated[
        str | None,
        typer.Option(help="Of a .npy of single rows: the model that they belong to."),
    ] = None,
    library: Library = None,
) -> None:
    """Add all tokens of a file; none that is there is replaced."""
    with reported():
        import warnings

        from napari_ovam.diffusion.phrases import text_space
        from napari_ovam.diffusion.pipelines import load_text_encoder

        target = None
        if model is not None:
            target = text_space(load_text_encoder(model, device="cpu"))
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            entries = napari_ovam.TokenLibrary(library).import_file(file, target=target)
        for note in notes:
            if issubclass(note.category, UserWarning):
                say(note.message, err=True)
        for entry in entries:
            say(entry.path)


@tokens.command("export")
def export_token(
    token: TokenName,
    file: Annotated[Path, typer.Argument(help="A new .safetensors or .npy file.")],
    library: Library = None,
) -> None:
    """Write a token to a file of its own."""
    with reported():
        say(napari_ovam.TokenLibrary(library).export(token, file))


@tokens.command("remove")
def remove_token(token: TokenName, library: Library = None) -> None:
    """Move a token to the library's folder `removed`."""
    with reported():
        say(napari_ovam.TokenLibrary(library).remove(token))


@tokens.command("restore")
def restore_token(token: TokenName, library: Library = None) -> None:
    """Put back a token that was removed, by the name of its file."""
    with reported():
        name = token if token.endswith(".safetensors") else f"{token}.safetensors"
        say(napari_ovam.TokenLibrary(library).restore(name).path)
