"""What all commands share: options, progress, mistakes in one line, open projects."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

# Nothing heavy is imported here: --help and mistakes are answered at once.
if TYPE_CHECKING:
    from napari_ovam.base.progress import Progress
    from napari_ovam.project import Project

Model = Annotated[
    str,
    typer.Option(
        help="'tiny' (embedded), a hub id, a diffusers folder or a .safetensors file."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
Folder = Annotated[
    Path,
    typer.Argument(help="A project: the folder that 'generate' or the panel made."),
]
Images = Annotated[
    list[str] | None, typer.Option("--image", help="Names of images; all by default.")
]


@contextmanager
def reported() -> Iterator[None]:
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
def show_progress(what: str) -> Iterator[Progress]:
    """Show a bar on a terminal, and nothing where the output is a file."""
    with typer.progressbar(
        length=1, label=what, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield progress


@contextmanager
def working_in(path: Path, *, create: bool = False) -> Iterator[Project]:
    """Open a project that nobody else writes to meanwhile.

    Parameters
    ----------
    path
        Its folder.
    create
        Make it where there is none.

    Raises
    ------
    ProjectError
        If it is no project, or open elsewhere.
    OSError
        If it cannot be written.
    """
    from napari_ovam.base.folder_lock import lock_folder
    from napari_ovam.project import Project, ProjectError
    from napari_ovam.project.index import BACKUP, INDEX

    if not any((path / name).is_file() for name in (INDEX, BACKUP)):
        if not create:
            raise ProjectError(
                f"there is no project in {path}: 'napari-ovam generate' makes one, and "
                "so does saving in the panel"
            )
        Project.create(path)
    lock = lock_folder(path)
    if lock is None:
        raise ProjectError(
            f"{path} is open in a window or another command: close it there first"
        )
    with lock:
        project = Project.open(path)
        for note in project.notes:
            typer.echo(note, err=True)
        yield project


def part_of(progress: Progress, number: int, count: int) -> Progress:
    """Return the progress of the one of several images that runs now."""
    return lambda done, total: progress(number * total + done, count * total)
