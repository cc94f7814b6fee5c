"""Measure `napari-ovam dataset`: its filters, its overhead, its workers.

    python benchmarks/dataset.py filters FOLDER     what filters keep and throw out
    python benchmarks/dataset.py trained FOLDER     a network on those kept, and on all
    python benchmarks/dataset.py overhead FOLDER    beside making the same items
    python benchmarks/dataset.py workers FOLDER     1 and 2 workers
    python benchmarks/dataset.py simulate           up to 1,000 workers that only wait
    python benchmarks/dataset.py memory FOLDER --count 100000

Figures are in docs/dataset.md. `filters` draws pictures whose masks are known by their
colours (`benchmarks/quality/make_generated.py`) and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import resource
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from PIL import Image

from napari_ovam import GenerationSettings, iou, labels_to_target, load_pipeline
from napari_ovam.base.progress import no_progress
from napari_ovam.project import Project
from napari_ovam.workflows.dataset import planning
from napari_ovam.workflows.dataset.cluster import Workers
from napari_ovam.workflows.dataset.making import Made, ModelMaker
from napari_ovam.workflows.dataset.plan import (
    Filters,
    Plan,
    PlannedClass,
    PlannedPrompt,
)
from napari_ovam.workflows.dataset.prompts import Prompt
from napari_ovam.workflows.dataset.running import Inline, run
from napari_ovam.workflows.dataset.shards import Shard, read_records
from napari_ovam.workflows.dataset.verdicts import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ovam.workflows.dataset.plan import Item

QUALITY = Path(__file__).parent / "quality"


class TwoLooks(ModelMaker):
    """Scores items by both ways to look twice, and keeps labels without a band."""

    def _label(self, item: Item, made: Any) -> Made:
        by_calls = super()._label(item, made)
        plan = self._plan
        self._plan = replace(plan, agreement="thresholds")
        other = super()._label(item, made).scores
        self._plan = replace(plan, agreement="none")
        plain = super()._label(item, made)
        self._plan = plan
        for number, scores in by_calls.scores["classes"].items():
            scores["thresholds"] = other["classes"][number]["agreement"]
        band = float((by_calls.labels == 255).mean())
        return replace(plain, scores={**by_calls.scores, "band": band})


def filters(folder: Path, seeds: int, workers: int) -> None:
    """Draw objects alone and in pairs; compare masks with those known by colour."""
    sys.path.insert(0, str(QUALITY))
    from make_generated import PAIRS, WHERE, labels_of, mean_colours, prompt_of

    names = sorted(WHERE)
    wanted = [((name,), place) for name in names for place in WHERE[name]]
    wanted += [(pair, place) for pair in PAIRS for place in ("grass", "snow")]
    texts = {prompt_of(each, place): each for each, place in wanted}
    prompts = [Prompt(t, classes=c) for t, c in texts.items()]
    plan = start(folder, names, prompts, seeds=range(seeds))
    makers = partial(Workers, workers=workers) if workers > 1 else Inline
    with makers(folder, plan, load=lambda *of: TwoLooks(*of, None)) as engine:
        run(Project.open(folder), engine, progress=lambda *of: print(*of, flush=True))
    project, colours = Project.open(folder), mean_colours()
    ids = {entry.name: entry.id for entry in project.classes}
    ledger = Ledger(plan, read_records(folder, plan))
    rows = []
    for record in read_records(folder, plan):
        for row in record["rows"]:
            shown = texts[plan.prompt(row["item"]).text]
            image = project.load_image(row["name"])
            known = labels_of(image, shown, colours)
            found = project.load_labels(row["name"])
            scores = row["scores"]["classes"]
            rows.append(
                {
                    "item": row["item"],
                    "known": known is not None,
                    "unsure": row["scores"]["unsure"],
                    "iou": {
                        name: iou(
                            (found == ids[name]).astype(np.uint8),
                            labels_to_target(known, place + 1),
                        )
                        for place, name in enumerate(shown)
                        if known is not None
                    },
                    **{
                        score: min(scores[str(ids[name])][score] for name in shown)
                        for score in ("presence", "agreement", "thresholds", "area")
                    },
                }
            )
    rejected = ledger.rejected()
    for row in rows:
        row["reasons"] = rejected.get(row["item"], [])
    (folder / "filters.json").write_text(json.dumps(rows))
    report(rows)


def trained(folder: Path, seeds: Sequence[int], parts: Sequence[str]) -> None:
    """Train the network of `benchmarks/quality` on what `filters` made.

    On what was kept, on all, and on as many by chance as were kept; scored on generated
    test pictures and on composed test scenes, whose masks are known.
    """
    sys.path.insert(0, str(QUALITY))
    from data import GENERATED, read_scenes
    from downstream import STEPS, score, train

    project = Project.open(folder)
    names = [entry.name for entry in project.classes]
    numbers = np.zeros(256, np.int64)
    numbers[[entry.id for entry in project.classes]] = np.arange(len(names)) + 1
    rows = json.loads((folder / "filters.json").read_text())
    sample = {
        row["item"]: row["name"]
        for record in read_records(folder, Plan.load(folder))
        for row in record["rows"]
    }
    images = {n: halved(project.load_image(name)) for n, name in sample.items()}
    targets = {
        n: numbers[project.load_labels(name)[::2, ::2]] for n, name in sample.items()
    }
    every = [row["item"] for row in rows]
    kept = [row["item"] for row in rows if not row["reasons"]]
    tests = {
        "composed": chosen_of(read_scenes(), names),
        "generated": [
            replace(scene, image=halved(scene.image), labels=scene.labels[::2, ::2])
            for scene in chosen_of(read_scenes(GENERATED), names)
        ],
    }
    found: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        chance = np.random.default_rng(seed).choice(every, len(kept), replace=False)
        choices = {"kept": kept, "all": every, "chance": chance}
        for what, chosen in ((part, choices[part]) for part in parts):
            net = train(
                [images[n] for n in chosen],
                [targets[n] for n in chosen],
                len(names) + 1,
                STEPS,
                seed,
            )
            for world, scenes in tests.items():
                runs = found.setdefault((what, world), [])
                runs.append(score(net, scenes, names))
                print(
                    f"{what:8} {len(chosen):4} images, {world}: mIoU "
                    + ", ".join(f"{each:.3f}" for each in runs),
                    flush=True,
                )


def chosen_of(scenes: Sequence[Any], names: list[str]) -> list[Any]:
    """Return the test scenes that hold nothing but classes of these names."""
    return [s for s in scenes if s.split == "test" and set(s.classes) <= set(names)]


def halved(image: Any) -> Any:
    """Return an image of 256 pixels a side as one of 128, as composed scenes are."""
    return np.array(Image.fromarray(image).reduce(2))


def start(folder: Path, names: list[str], prompts: list[Prompt], **how: Any) -> Plan:
    """Plan prompts for the embedded model, unless that was done."""
    source = folder.with_name(folder.name + "-classes")
    if not source.exists():
        project = Project.create(source)
        for name in names:
            project.classes.add(name)
        project.save()
    project = Project.open(source)
    plan = planning.plan_prompts(
        project,
        load_pipeline("tiny", device="cpu"),
        prompts,
        GenerationSettings(""),
        model="tiny",
        dtype="auto",
        **{"filters": Filters(), "shard": 8, **how},
    )
    planning.start_folder(plan, project, folder)
    return plan


def report(rows: list[dict[str, Any]]) -> None:
    """Print what is kept and thrown out by each filter and by all."""

    def line(what: str, some: list[dict[str, Any]]) -> str:
        known = [v for row in some for v in row["iou"].values()]
        asked = np.mean([row["known"] for row in some]) if some else np.nan
        mean = np.mean(known) if known else np.nan
        poor = np.mean(np.array(known) < 0.7) if known else np.nan
        return f"{what:24} {len(some):5} {asked:8.2f} {mean:8.3f} {poor:8.2f}"

    print(f"{'':24} {'images':>5} {'as asked':>8} {'mIoU':>8} {'< 0.7':>8}")
    print(line("all", rows))
    print(line("kept", [r for r in rows if not r["reasons"]]))
    print(line("thrown out", [r for r in rows if r["reasons"]]))
    for name in sorted({reason for row in rows for reason in row["reasons"]}):
        print(line(f"by {name}", [r for r in rows if name in r["reasons"]]))
    for score in ("presence", "agreement", "thresholds", "unsure"):
        ordered = sorted(
            rows, key=lambda r: -r[score] if score == "unsure" else r[score]
        )
        for share in (0.05, 0.1, 0.2):
            count = round(share * len(rows))
            print(line(f"worst {share:.0%} by {score}", ordered[:count]))


class Timed:
    """Adds up the seconds that another maker takes."""

    def __init__(self, maker: Any) -> None:
        self.maker, self.device, self.seconds = maker, maker.device, 0.0

    def make(self, items: Sequence[Item]) -> list[Made]:
        begin = time.perf_counter()
        try:
            made: list[Made] = self.maker.make(items)
            return made
        finally:
            self.seconds += time.perf_counter() - begin


def overhead(folder: Path, count: int) -> None:
    """Compare a run with the making alone, of the same items in the same run."""
    plan = start(folder, ["cat", "dog"], cats_and_dogs(count), seeds=(0,))
    timed = Timed(ModelMaker(plan, folder))
    timed.make([plan.item(0)])  # once, to be warm
    timed.seconds = 0.0
    begin = time.perf_counter()
    with Inline(folder, plan, load=lambda *_: timed) as engine:
        run(Project.open(folder), engine)
    wall = time.perf_counter() - begin
    print(
        f"{count} images: {wall / count:.2f} s each, of which making "
        f"{timed.seconds / count:.2f} s: overhead {wall / timed.seconds - 1:.2%}"
    )


def workers(folder: Path, count: int) -> None:
    """Make as many items a worker with one and with two, in turn."""
    paces: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(4):
        number = (1, 2, 2, 1)[turn]
        place = folder / f"{turn}-{number}"
        prompts = cats_and_dogs(2 * number + count * number)
        plan = start(place, ["cat", "dog"], prompts, seeds=(0,), shard=1)
        (place / "shards").mkdir()
        shards = [Shard(i, (i,)) for i in range(len(plan))]
        with Workers(place, plan, workers=number) as engine:
            list(engine.make(shards[: 2 * number], no_progress))  # the model is loaded
            begin = time.perf_counter()
            list(engine.make(shards[2 * number :], no_progress))
            paces[number].append(count * number / (time.perf_counter() - begin))
        print(f"{number} workers: {paces[number][-1]:.3f} a second", flush=True)
    one, two = (sum(paces[n]) / 2 for n in (1, 2))
    print(f"2 workers are {two / one:.2f} times as fast: {two / one / 2:.2f} each")


def cats_and_dogs(count: int) -> list[Prompt]:
    return [Prompt(f"a {('cat', 'dog')[i % 2]} number {i}") for i in range(count)]


class Waiting:
    """Items that take no time but a wait, and little room."""

    device = "none"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def make(self, items: Sequence[Item]) -> list[Made]:
        time.sleep(self.seconds)
        scores = {"area": 0.2, "presence": 1.0, "agreement": 0.9}
        return [
            Made(
                np.zeros((8, 8, 3), np.uint8),
                np.ones((8, 8), np.uint8),
                {"blank": 0.5, "unsure": 0.1, "classes": {"1": scores}},
                {"prompt": item.prompt.text, "seed": item.seed, "model": "wait"},
            )
            for item in items
        ]


def waiting_plan(folder: Path, count: int, shard: int) -> Plan:
    folder.mkdir(parents=True)
    project = Project.create(folder / "project")
    project.classes.add("cat")
    project.save()
    plan = Plan(
        "wait",
        "",
        "auto",
        {},
        (PlannedClass(1, "cat", "cat", "phrase", None),),
        tuple(PlannedPrompt(f"a cat number {i}", "", (1,)) for i in range(count)),
        shard=shard,
    )
    plan.save(project.path)
    return plan


HOSTS = max(4, (os.cpu_count() or 1) // 2)  # processes that simulated workers share
BEGIN = 25  # of them begin at a time


def simulate(counts: Sequence[int], seconds: float) -> None:
    """Let workers wait, and count what a scheduler in a process of its own hands out.

    A worker speaks to it as a real one does; many live in one process, which costs them
    more than it costs one that is alone.
    """
    from distributed import Client, as_completed

    for count in counts:
        with Processes(count) as address, Client(address) as client:
            client.wait_for_workers(count, timeout=600)
            for wait, rounds in ((seconds, 5), (0.0, max(5, 2000 // count))):
                tasks, begin = rounds * count, time.perf_counter()
                futures = client.map(time.sleep, [wait] * tasks, pure=False)
                for future in as_completed(futures):
                    future.release()
                wall = time.perf_counter() - begin
                use = f", {rounds * wait / wall:.2f} of what they could" if wait else ""
                print(
                    f"{count:5} workers, {tasks:5} shards of {wait:.0f} s: {wall:.1f} s"
                    f", {tasks / wall:.0f} a second{use}",
                    flush=True,
                )


class Processes:
    """A scheduler, and processes with so many workers."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._all: list[Any] = []

    def __enter__(self) -> str:
        start = multiprocessing.get_context("spawn")
        addresses = start.Queue()
        self._all = [start.Process(target=host_scheduler, args=(addresses,))]
        self._all[0].start()
        address: str = addresses.get(timeout=120)
        for number in range(HOSTS):
            share = len(range(number, self._count, HOSTS))
            host = start.Process(target=host_workers, args=(address, share))
            self._all.append(host)
            host.start()
        return address

    def __exit__(self, *of: object) -> None:
        for process in self._all:
            process.kill()


def host_scheduler(addresses: Any) -> None:
    """Run a scheduler for ever, and say where it is."""
    from distributed import Scheduler

    async def run() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            addresses.put(scheduler.address)
            await asyncio.Event().wait()

    prepare()
    asyncio.run(run())


def host_workers(address: str, count: int) -> None:
    """Run so many workers for ever."""
    from distributed import Worker

    async def run() -> None:
        async with AsyncExitStack() as stack:
            for first in range(0, count, BEGIN):
                workers = [
                    Worker(address, nthreads=1, memory_limit=0, dashboard=False)
                    for _ in range(first, min(first + BEGIN, count))
                ]
                await asyncio.gather(*map(stack.enter_async_context, workers))
            await asyncio.Event().wait()

    prepare()
    asyncio.run(run())


def prepare() -> None:
    """Say little, have no profiler in each worker, and allow enough open files."""
    import dask

    dask.config.set({"distributed.worker.profile.enabled": False})
    logging.getLogger("distributed").setLevel(logging.WARNING)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def memory(folder: Path, count: int) -> None:
    """Watch the memory of a driver over many items, and while they are taken in."""
    plan = waiting_plan(folder, count, 32)
    process, steps = psutil.Process(), max(1, count // 10)
    begin = time.perf_counter()

    def watch(done: int, total: int) -> None:
        if done % steps == 0 or done == total:
            used = process.memory_info().rss / 1e6
            pace = done / (time.perf_counter() - begin)
            print(f"{done:7} items: {used:.0f} MB, {pace:.0f} a second", flush=True)

    with Inline(folder / "project", plan, load=lambda *_: Waiting(0)) as engine:
        run(Project.open(folder / "project"), engine, progress=watch)
    print(f"taken in: {process.memory_info().rss / 1e6:.0f} MB", flush=True)
    begin = time.perf_counter()
    Project.open(folder / "project")
    print(f"opened in {time.perf_counter() - begin:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "what",
        choices=[
            "filters",
            "report",
            "trained",
            "overhead",
            "workers",
            "simulate",
            "memory",
        ],
    )
    parser.add_argument("folder", type=Path, nargs="?", help="A new one.")
    parser.add_argument("--count", type=int, default=12, help="Items.")
    parser.add_argument("--seeds", type=int, default=3, help="Images a prompt.")
    parser.add_argument("--workers", type=int, default=1, help="That make them.")
    parser.add_argument("--since", type=int, default=0, help="Report from this item.")
    parser.add_argument(
        "--runs", type=int, default=2, help="Networks, each from a seed."
    )
    parser.add_argument("--first", type=int, default=0, help="The first one's seed.")
    parser.add_argument("--on", nargs="+", default=["kept", "all", "chance"])
    parser.add_argument("--seconds", type=float, default=10.0, help="Of a wait.")
    counts = [10, 100, 300, 1000]
    parser.add_argument("--simulated", type=int, nargs="+", default=counts)
    given = parser.parse_args()
    if given.what == "filters":
        filters(given.folder, given.seeds, given.workers)
    elif given.what == "report":
        rows = json.loads((given.folder / "filters.json").read_text())
        report([row for row in rows if row["item"] >= given.since])
    elif given.what == "trained":
        trained(given.folder, range(given.first, given.first + given.runs), given.on)
    elif given.what == "overhead":
        overhead(given.folder, given.count)
    elif given.what == "workers":
        workers(given.folder, given.count)
    elif given.what == "memory":
        memory(given.folder, given.count)
    else:
        simulate(given.simulated, given.seconds)


if __name__ == "__main__":
    main()
