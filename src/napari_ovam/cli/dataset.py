"""The commands that make a dataset over night: `dataset plan`, `run`, `status`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import napari_ovam
from napari_ovam.cli import dataset_options as options
from napari_ovam.cli.common import (
    Device,
    Dtype,
    Folder,
    Guidance,
    Model,
    Negative,
    Pixels,
    Steps,
    check_choice,
    listed,
    reported,
    say,
    show_progress,
    working_in,
)
from napari_ovam.cli.exchange import export

# Nothing heavy is imported here: --help and mistakes are answered at once.
if TYPE_CHECKING:
    from napari_ovam.base.progress import Progress
    from napari_ovam.project import Project
    from napari_ovam.workflows.dataset.plan import Plan
    from napari_ovam.workflows.dataset.prompts import Prompt
    from napari_ovam.workflows.dataset.running import RunReport

app = typer.Typer(
    name="dataset",
    help="Datasets over night: planned, made on one device or many, filtered.",
    no_args_is_help=True,
)
app.command()(export)

Planned = Annotated[Path, typer.Argument(help="The folder that 'dataset plan' made.")]
_A_LINE = 60.0  # seconds between lines where the output is no terminal


@app.command()
def plan(
    project: Folder,
    out: options.Out,
    prompts: options.Prompts = None,
    template: options.Templates = None,
    word_list: options.WordLists = None,
    images: options.Pictures = None,
    seeds: options.Seeds = 1,
    first_seed: options.FirstSeed = 0,
    quota: options.Quotas = None,
    density: options.Densities = None,
    filters: options.Filters = None,
    agreement: options.Agreement = "calls",
    clip: options.Clip = None,
    negative_prompt: Negative = "",
    steps: Steps = None,
    guidance_scale: Guidance = None,
    height: Pixels = None,
    width: Pixels = None,
    shard: options.Shard = 32,
    batch: options.Batch = 1,
    dry_run: options.DryRun = False,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Plan a dataset with a project's classes, tokens and thresholds.

    Nothing is made yet, but with --dry-run one or two images, which are thrown away.
    """
    with reported(), show_progress("plan") as progress:
        if [prompts, template or None, images].count(None) != 2:
            raise ValueError("give one of --prompts, --template and --images")
        from napari_ovam.workflows.dataset import planning, scores

        opened = napari_ovam.Project.open(project)
        how: dict[str, Any] = {
            "model": options.same_place(model),
            "dtype": dtype,
            "filters": options.read_filters(filters),
            "agreement": check_choice("--agreement", agreement, scores.LOOKS),
            "clip_model": "" if clip is None else str(clip.resolve()),
            **{"shard": shard, "batch": batch},
            **{"progress": progress, "note": partial(say, err=True)},
        }
        texts = _prompts(opened, prompts, template, word_list)
        if images is None:
            how["settings"] = napari_ovam.GenerationSettings(
                "", negative_prompt, 0, steps, guidance_scale, height, width
            )
            how["quotas"] = options.read_counts("--quota", quota)
            how["densities"] = options.read_densities(density)
            how["seeds"] = range(first_seed, first_seed + seeds)
        pipe = napari_ovam.load_pipeline(model, device=device, dtype=dtype)
        if images is None:
            made = planning.plan_prompts(opened, pipe, texts, **how)
        else:
            made = planning.plan_pictures(opened, pipe, images, **how)
        if dry_run:
            _say_estimate(made, opened, out, pipe)
            return
        new = planning.start_folder(made, opened, out)
    already = "" if new else f", planned in {out} already"
    say(f"{len(made):,} items{already}\nnapari-ovam dataset run {out}")


@app.command()
def run(
    folder: Planned,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes on this machine, a GPU for each.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(help="A scheduler of Dask: its address, or its file."),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="Further tries of an item that fails.")
    ] = 2,
    failed_again: Annotated[
        bool, typer.Option("--failed-again", help="Try those that failed again.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Make what is left of a plan; what is made already is not made again.

    However it ends, what is done by then is in the project, to be reviewed. Exits with
    2 where single items could not be made.
    """
    with (
        reported(f"; what is done is kept: napari-ovam dataset run {folder}"),
        show_pace() as progress,
        working_in(folder) as project,
    ):
        from napari_ovam.workflows.dataset.plan import Plan
        from napari_ovam.workflows.dataset.running import Inline
        from napari_ovam.workflows.dataset.running import run as run_plan

        planned = Plan.load(folder)
        if workers > 1 and scheduler is not None:
            raise ValueError(
                "give --workers or --scheduler: a scheduler has workers of its own"
            )
        engine: Any
        if workers > 1 or scheduler is not None:
            from napari_ovam.workflows.dataset.cluster import Workers

            engine = Workers(
                folder,
                planned,
                workers=workers,
                scheduler=scheduler,
                device=device,
                retries=retries,
            )
            for line in filter(None, (engine.warning, engine.dashboard)):
                say(line, err=True)
        else:
            engine = Inline(folder, planned, device=device, retries=retries)
        with engine:
            report = run_plan(project, engine, again=failed_again, progress=progress)
    _say_report(folder, report)


@app.command()
def status(folder: Planned) -> None:
    """Say how far a dataset is, at any time and from any terminal."""
    with reported():
        from napari_ovam.workflows.dataset.status import read_status

        found = read_status(folder)
        state = "running" if found.running else "nobody runs it"
        say(
            f"{found.made:,} images made, {found.failed:,} failed, {found.left:,} "
            f"left; {state}"
        )
        if found.left and found.pace:
            say(f"{pace(found.left, found.pace)}")
        for name, count in found.kept.items():
            say(f"{name}: {count:,} kept")
        if found.rejected:
            reasons = (f"{name} {count:,}" for name, count in found.rejected.items())
            say(f"rejected: {', '.join(reasons)}")
        for where, count in found.devices.items():
            say(f"{where}: {count:,}")
        for number, error in list(found.errors.items())[:10]:
            say(f"item {number}, {error}", err=True)


def _say_report(folder: Path, report: RunReport) -> None:
    kept = report.made - report.rejected
    say(
        f"{report.made:,} images, of which {report.rejected:,} are rejected by the "
        f"filters; {len(report.failed):,} failed"
    )
    for name, count in report.missing.items():
        say(f"{name}: {count:,} less than wanted, and the plan has no more items")
    if kept:
        say(f"Review them: open {folder} in the panel, least sure first")
    for number, error in report.failed.items():
        say(f"item {number}, {error}", err=True)
    for number, error in report.lost.items():
        say(f"shard {number} is not made: {error}", err=True)
    if report.failed or report.lost:
        raise typer.Exit(2)


def _say_estimate(plan: Plan, project: Project, out: Path, pipe: Any) -> None:
    from napari_ovam.hub.store import human_size
    from napari_ovam.workflows.dataset.making import ModelMaker
    from napari_ovam.workflows.dataset.status import estimate

    found = estimate(plan, ModelMaker(plan, project.path, "auto", pipe), out)
    more = f", up to {found.most:,}" if found.most > found.items else ""
    say(f"{found.items:,} images{more}, in shards of {plan.shard}")
    whole = found.items * found.seconds
    say(
        f"about {found.seconds:.1f} s each on {found.device}: {duration(whole)} with "
        f"one worker, {duration(whole / 8)} with 8"
    )
    say(
        f"about {human_size(found.size)} each, {human_size(found.size * found.items)} "
        f"in all; {human_size(found.free)} are free"
    )


def _prompts(
    project: Project,
    file: Path | None,
    templates: list[str] | None,
    lists: list[str] | None,
) -> list[Prompt]:
    from napari_ovam.workflows.dataset.prompts import fill_templates, read_prompts

    if file is not None:
        found, notes = read_prompts(file)
        for note in notes:
            say(note, err=True)
        return found
    words = {"class": [entry.name for entry in project.classes if entry.active]}
    for text in lists or ():
        name, sign, values = text.partition("=")
        if not sign:
            raise ValueError(f"--list is {text!r}: give NAME=word,word or NAME=@FILE")
        if values.startswith("@"):
            read, _ = read_prompts(Path(values[1:]))
            words[name.strip()] = [prompt.text for prompt in read]
        else:
            words[name.strip()] = listed([values])
    return fill_templates(templates or (), words) if templates else []


@contextmanager
def show_pace() -> Iterator[Progress]:
    """Show a bar with the pace and the time left; a line a minute where no terminal."""
    begin = first = None
    said = time.monotonic()
    tty = sys.stderr.isatty()
    with typer.progressbar(
        length=1, label="dataset", file=sys.stderr, hidden=not tty, show_eta=False
    ) as bar:

        def progress(done: int, total: int) -> None:
            nonlocal begin, first, said
            if begin is None or first is None:
                begin, first = time.monotonic(), done
            seconds = time.monotonic() - begin
            text = f"{done:,} of {total:,}"
            if done > first:
                text += f", {pace(total - done, (done - first) / seconds)}"
            bar.label, bar.length = text, max(1, total)
            bar.update(done - bar.pos)
            if not tty and time.monotonic() - said > _A_LINE:
                said = time.monotonic()
                say(text, err=True)

        yield progress


def pace(left: int, rate: float) -> str:
    """Return how fast it goes and how long it takes, in words; `rate` is a second."""
    shown = f"{rate:.1f} a second" if rate >= 1 else f"{rate * 60:.1f} a minute"
    return f"{shown}, {duration(left / rate)} left"


def duration(seconds: float) -> str:
    """Return a duration in two units at most: "3 h 12 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    found = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(found[:2]) or "0 s"
