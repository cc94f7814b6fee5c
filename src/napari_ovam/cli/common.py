"""What all commands share: options, progress, mistakes in one line, open projects."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

# Nothing heavy is imported here: --help and mistakes are answered at once.
if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ovam.base.progress import Progress
    from napari_ovam.datasets.project_class import ProjectClass
    from napari_ovam.project import Project
    from napari_ovam.project.index import Status

Model = Annotated[
    str,
    typer.Option(
        help="'tiny' (embedded), a hub id, a diffusers folder or a .safetensors file."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
Dtype = Annotated[
    str,
    typer.Option(help="Precision: auto, float32, float16 or bfloat16."),
]
Folder = Annotated[
    Path,
    typer.Argument(help="A project: the folder that 'generate' or the panel made."),
]
Images = Annotated[
    list[str] | None, typer.Option("--image", help="Names of images; all by default.")
]

Negative = Annotated[str, typer.Option(help="What to keep away from.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps.")]
Guidance = Annotated[float | None, typer.Option(help="How strongly the prompt pulls.")]
Pixels = Annotated[int | None, typer.Option(help="Pixels.")]
Page = Annotated[int | None, typer.Option(help="Of several pages or frames, from 0.")]
Statuses = Annotated[
    list[str] | None,
    typer.Option(
        help="proposed, edited, accepted, rejected; several by commas. By default "
        "all but the rejected ones."
    ),
]
ByReference = Annotated[
    bool,
    typer.Option(
        "--by-reference",
        help="Leave the pictures where they are, and point at them: no copies.",
    ),
]


@contextmanager
def reported(kept: str = "") -> Iterator[None]:
    """Show what a user can mend as one line and exit with 1; 130 after Ctrl-C.

    `kept` is said after Ctrl-C.
    """
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        say(f"napari-ovam: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        say(f"napari-ovam: stopped{kept}", err=True)
        raise typer.Exit(130) from error


def protect_streams() -> None:
    r"""Let no command end because of what it is written to.

    Signs that a terminal does not have are written as `\u732b`, and a stream that a
    service or a window has closed takes everything.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            # for as long as the process lives
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        else:
            with suppress(AttributeError, ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")


def say(text: object, *, err: bool = False) -> None:
    """Write a line; the work goes on where nobody reads it, such as after `| head`."""
    try:
        typer.echo(text, err=err)
    except OSError:
        stream = sys.stderr if err else sys.stdout
        with suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


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
    """Open a project that nobody else works in meanwhile.

    What is to be said of it is said at the end as well.

    It raises `ProjectError` if it is no project, or open elsewhere.

    Parameters
    ----------
    path
        Its folder.
    create
        Make it where there is none.
    """
    from napari_ovam.base.folder_lock import describe_holder, lock_folder
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
            f"{path} is open in a window or another command{describe_holder(path)}: "
            "close it there first"
        )
    with lock:
        if lock.note:
            say(lock.note, err=True)
        project = Project.open(path)
        said = say_notes(project)
        try:
            yield project
        finally:
            say_notes(project, said)


def say_notes(project: Project, said: int = 0) -> int:
    """Say what is to be said of a project after so many notes; return how many are."""
    for note in project.notes[said:]:
        say(note, err=True)
    return len(project.notes)


def find_class(project: Project, text: str) -> ProjectClass:
    """Return the class of a name, phrase or id; ValueError names those that are."""
    classes = project.classes
    entry = classes.by_name(text) or classes.find(text)
    if entry is None and text.isdecimal():
        entry = classes.get(int(text))
    if entry is None:
        known = ", ".join(repr(each.name) for each in classes) or "none"
        raise ValueError(
            f"there is no class {text!r} in {project.path}: there are {known}"
        )
    return entry


def say_failed(failed: Mapping[str, str]) -> None:
    """Name what could not be done, and exit with 2 where there is anything."""
    for name, reason in failed.items():
        say(f"{name}: {reason}", err=True)
    if failed:
        raise typer.Exit(2)


def check_choice(option: str, given: str, known: Iterable[str]) -> str:
    """Return what an option was given; ValueError if it is none of the known."""
    if given not in known:
        raise ValueError(f"{option} is {given!r}: give one of {', '.join(known)}")
    return given


def part_of(progress: Progress, number: int, count: int) -> Progress:
    """Return the progress of the one of several images that runs now."""
    return lambda done, total: progress(number * total + done, count * total)


def read_numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    """Read numbers that commas part.

    Raises
    ------
    ValueError
        If they are not so many.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count:
        raise ValueError(f"{option} is {text!r}: give {count} numbers, with commas")
    return found


def statuses(values: list[str] | None) -> list[Status]:
    """Return the statuses that `--status` names; ValueError names one that is none."""
    from typing import get_args

    from napari_ovam.project.index import Status

    known = {str(each): each for each in get_args(Status)}
    return [known[check_choice("--status", each, known)] for each in listed(values)]


def listed(values: list[str] | None) -> list[str]:
    """Return values that were given one by one or separated by commas."""
    parts = [part.strip() for each in values or [] for part in each.split(",")]
    return [part for part in parts if part]
