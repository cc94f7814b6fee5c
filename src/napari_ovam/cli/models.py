"""`napari-ovam models`: what is here, what the hub has, getting it, cached traces."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_ovam.cli.common import reported, say

# Nothing heavy is imported here: --help and mistakes are answered at once.
if TYPE_CHECKING:
    from napari_ovam.hub.hub import HubModel

app = typer.Typer(
    name="models",
    help="List models, look one up, download it, and see the cache of traces.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_KEPT = "; what has arrived is kept"
_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_LICENCES = "https://huggingface.co"

Variant = Annotated[
    str | None,
    typer.Option(help="'fp16' for half-precision weights, where there are any."),
]


@app.command("list")
def list_(
    folder: Annotated[
        list[Path] | None,
        typer.Option(help="Also look in this folder; remembered from then on."),
    ] = None,
    forget: Annotated[
        list[Path] | None, typer.Option(help="Look in this folder no more.")
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Say the memory that each takes, too.")
    ] = False,
    device: Annotated[str, typer.Option(help="For --memory: auto, cpu ...")] = "auto",
) -> None:
    """List the models on this machine: embedded, downloaded, in your folders."""
    with reported(_KEPT):
        from napari_ovam.hub.recent import forget_folder, remember_folder
        from napari_ovam.hub.store import human_size, list_models

        for path in folder or ():
            if not path.is_dir():
                raise ValueError(f"there is no folder {path}: give one with models")
            remember_folder(path)
        for path in forget or ():
            forget_folder(path)
        for model in list_models():
            what = model.architecture or "unknown"
            say(f"{model.name}  {human_size(model.size)}  {what}")
            if model.problem:
                say(f"    cannot be loaded: {model.problem}")
            elif memory:
                from napari_ovam.diffusion.memory import estimate_memory

                say(f"    {estimate_memory(str(model.path), device=device)}")


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A hub id, a folder, a file or 'tiny'.")],
    variant: Variant = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    width: Annotated[int | None, typer.Option(help="Of images, in pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Of images, in pixels.")] = None,
) -> None:
    """Say what a model is, its licence and download size, and the memory it takes."""
    with reported(_KEPT):
        from napari_ovam.hub.store import find_model, human_size

        local = find_model(model)
        if local is not None:
            say(f"{local.path}: {human_size(local.size)}")
        if local is not None and local.complete:
            from napari_ovam.diffusion.memory import estimate_memory, memory_options

            say(local.architecture)
            size: dict[str, Any] = {"height": height, "width": width}
            needed = estimate_memory(model, device=device, **size)
            say(f"Memory: {needed}")
            if not needed.fits:
                say("That does not fit. What would take less:")
                for option in memory_options(model, needed, **size):
                    say(
                        f"    {option.name}: {human_size(option.estimate.needed)}"
                        f" ({option.price})"
                    )
        elif local is not None and local.source != "hub":
            raise ValueError(local.problem)
        if local is None or local.source == "hub":
            from napari_ovam.hub.families import ModelError
            from napari_ovam.hub.hub import describe

            try:
                found = describe(model, variant=variant)
            except ModelError as error:
                if local is None or not local.complete:
                    raise
                say(f"Not looked up on the hub: {error}")
            else:
                _show(found)


@app.command()
def get(
    model: Annotated[str, typer.Argument(help="A hub id, 'owner/name'.")],
    variant: Variant = None,
    pickles: Annotated[
        bool,
        typer.Option(
            help="Take pickled weights where there are no others, and convert them "
            "without running their code."
        ),
    ] = False,
) -> None:
    """Download a model from the hub; Ctrl-C stops it, and 'get' again goes on."""
    with reported(_KEPT):
        from napari_ovam.hub.download import download_model
        from napari_ovam.hub.hub import describe
        from napari_ovam.hub.pickles import convert_pickles
        from napari_ovam.hub.store import human_size

        found = describe(model, variant=variant, pickles=pickles)
        _show(found)
        with typer.progressbar(
            length=max(1, found.size), label=model, file=sys.stderr
        ) as bar:
            path = download_model(
                found, progress=lambda done, _: bar.update(done - bar.pos)
            )
        if found.pickles:
            for made in convert_pickles(path):
                say(f"converted to {made}")
        say(f"{path}: {human_size(found.size)}")


@app.command()
def convert(
    path: Annotated[
        Path, typer.Argument(help="A .ckpt, .pt or .bin file, or a diffusers folder.")
    ],
) -> None:
    """Write pickled weights as .safetensors, without running any code in them."""
    with reported(_KEPT):
        from napari_ovam.hub.pickles import convert_pickles

        made = convert_pickles(path)
        for each in made:
            say(each)
        if not made:
            say(f"{path} holds no pickles that lack a .safetensors")


@app.command()
def cache(
    clear: Annotated[bool, typer.Option(help="Delete all cached traces.")] = False,
    limit: Annotated[
        str | None,
        typer.Option(help="The most that it may take, such as 2GB; 0 keeps nothing."),
    ] = None,
) -> None:
    """Show the cache of traces, which are made again when they are needed."""
    with reported(_KEPT):
        from napari_ovam.attention.trace_cache import TraceCache
        from napari_ovam.hub.store import human_size

        traces = TraceCache()
        if limit is not None:
            traces.set_limit(_bytes(limit))
        if clear:
            say(f"{human_size(traces.clear())} deleted")
        usage = traces.usage()
        say(
            f"{traces.folder}: {usage.traces} trace{'s' * (usage.traces != 1)}, "
            f"{human_size(usage.size)} of at "
            f"most {human_size(usage.limit)}"
        )


def _show(model: HubModel) -> None:
    from napari_ovam.hub.store import human_size

    weights = model.variant or "full precision"
    others = ", ".join(v or "full" for v in model.variants if v != model.variant)
    say(f"{model.id}: {model.architecture}, {weights}")
    if others:
        say(f"Other weights (--variant): {others}")
    say(
        f"Licence: {model.licence or 'none is stated'} ({_LICENCES}/{model.id})"
        + (", its terms have to be accepted there first" * model.gated)
    )
    say(
        f"Size: {human_size(model.size)}, of which {human_size(model.missing)} are "
        "not here yet"
    )


def _bytes(text: str) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]B)?\s*", text)
    if found is None:
        raise ValueError(f"--limit is {text!r}: give a size such as 500MB or 2GB")
    return round(float(found[1]) * _UNITS[found[2] or ""])
