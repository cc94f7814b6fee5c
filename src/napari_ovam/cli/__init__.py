"""The command line: `napari-ovam`, the annotator, and its commands for scripts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

# Nothing heavy is imported here: --help and mistakes are answered at once.
from napari_ovam.cli import (
    clicks,
    dataset,
    exchange,
    history,
    models,
    pictures,
    project,
    proposals,
    stores,
)
from napari_ovam.cli.common import protect_streams, reported, say, show_progress

app = typer.Typer(
    name="napari-ovam",
    help="Masks from the attention of text-to-image diffusion models (OVAM). "
    "Without a command, the annotator opens in napari.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.")
    ] = False,
) -> None:
    """Answer --version, and open the annotator where no command is given."""
    protect_streams()
    if version:
        from napari_ovam import __version__

        say(__version__)
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
    with reported():
        from napari_ovam.base.names import numbered

        free = (path for path in numbered(Path("ovam-demo")) if not path.exists())
        folder = out or next(free)
        with show_progress("demo") as progress:
            progress(0, 1)  # before torch is imported, which takes a while
            from napari_ovam.workflows.demo import run_demo

            scores = run_demo(folder, progress=progress)
        say(f"{'class':8} {'image':22} {'word':>6} {'token':>6}  IoU")
        for score in scores:
            say(
                f"{score.name:8} {score.image:22} "
                f"{score.phrase:6.2f} {score.token:6.2f}"
            )
        words = sum(s.phrase for s in scores) / len(scores)
        tokens = sum(s.token for s in scores) / len(scores)
        say(f"{'mean':31} {words:6.2f} {tokens:6.2f}")
        say(f"Look at {folder / 'overview.png'}")


project.register(app)
exchange.register(app)
proposals.register(app)
app.command()(clicks.click)
app.command()(history.history)
app.command()(stores.store_labels)
app.command()(pictures.add)
app.command()(pictures.pictures)
app.add_typer(models.app)
app.add_typer(dataset.app)


def main() -> None:
    """Run the command line."""
    # What torchvision would be good for is not news to a person at a shell.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    app()
