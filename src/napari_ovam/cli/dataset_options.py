"""The options of `dataset plan`, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_ovam.cli.common import listed

# Nothing heavy is imported here: --help and mistakes are answered at once.
if TYPE_CHECKING:
    from napari_ovam.workflows.dataset import plan

Out = Annotated[Path, typer.Option(help="A new folder: the dataset's project.")]
Prompts = Annotated[
    Path | None, typer.Option(help="Prompts: lines of text, .csv or .jsonl.")
]
Templates = Annotated[
    list[str] | None,
    typer.Option(help='Such as "a {class} {place}"; may be given again.'),
]
WordLists = Annotated[
    list[str] | None,
    typer.Option(
        "--list",
        help="Words of a template: 'place=on the grass,in the snow', or 'place=@FILE', "
        "some a line. {class} is the project's classes by default.",
    ),
]
Pictures = Annotated[
    Path | None,
    typer.Option("--images", help="A folder of pictures, in place of prompts."),
]
Seeds = Annotated[int, typer.Option(min=1, help="Images of each prompt.")]
FirstSeed = Annotated[int, typer.Option(min=0, help="The first of the seeds.")]
Quotas = Annotated[
    list[str] | None,
    typer.Option(
        help="Images to keep: 500 of each class, or cat=800; may be given again."
    ),
]
Densities = Annotated[
    list[str] | None,
    typer.Option(help="Images to keep with so many classes: 2=1000."),
]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help="blank=0.98, area=5:95, presence=0.95, agreement=0.75, unsure=0.4, "
        "clip=0.2; =off leaves one out.",
    ),
]
Agreement = Annotated[
    str, typer.Option(help="Of two 'calls', two 'thresholds', or 'none'.")
]
Clip = Annotated[
    Path | None, typer.Option(help="A folder with a CLIP model, for its score.")
]
Shard = Annotated[int, typer.Option(min=1, help="Images committed at once.")]
Batch = Annotated[int, typer.Option(min=1, help="Images made at once.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how many, how long, how large.")
]


def read_counts(option: str, given: list[str] | None) -> dict[str, int]:
    """Return counts such as cat=800, by name; "" for one without a name.

    It raises `ValueError` if one is no number.
    """
    counts = {}
    for text in given or ():
        name, _, number = text.rpartition("=")
        if not number.strip().isdecimal():
            raise ValueError(f"{option} is {text!r}: give a number, as in 500 or A=500")
        counts[name.strip()] = int(number)
    return counts


def read_densities(given: list[str] | None) -> dict[int, int]:
    """Return how many images, by how many classes; ValueError if it is none."""
    counts = read_counts("--density", given)
    if wrong := [name for name in counts if not name.isdecimal()]:
        raise ValueError(f"--density is {wrong[0]!r}: give classes=images, as in 2=500")
    return {int(name): count for name, count in counts.items()}


def read_filters(given: list[str] | None) -> plan.Filters:
    """Return filters such as presence=0.9; ValueError names one that is none."""
    from dataclasses import fields, replace

    from napari_ovam.workflows.dataset.plan import Filters as Planned

    found, known = Planned(), [field.name for field in fields(Planned)]
    for text in listed(given):
        name, _, value = text.partition("=")
        if name not in known:
            raise ValueError(f"--filter is {text!r}: give one of {', '.join(known)}")
        limits: Any = None
        if value != "off":
            try:
                limits = tuple(float(each) for each in value.split(":"))
            except ValueError:
                limits = ()
            if len(limits) != 1 + (name == "area"):
                raise ValueError(
                    f"--filter is {text!r}: give {name}=off, or a number "
                    "(two percentiles of the area: area=5:95)"
                )
            limits = limits if name == "area" else limits[0]
        found = replace(found, **{name: limits})
    return found


def same_place(model: str) -> str:
    """Return a model's name so that a run in another folder finds it."""
    path = Path(model).expanduser()
    return str(path.resolve()) if model != "tiny" and path.exists() else model
