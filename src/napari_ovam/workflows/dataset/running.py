"""Run a plan: what is not made yet, here or by workers, until nothing is wanted."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.workflows.dataset.collecting import collect
from napari_ovam.workflows.dataset.making import ModelMaker
from napari_ovam.workflows.dataset.plan import Plan
from napari_ovam.workflows.dataset.shards import (
    SHARDS,
    Shard,
    failures_of,
    make_shard,
    read_record,
    read_records,
)
from napari_ovam.workflows.dataset.verdicts import Ledger, missing, next_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_ovam.project import Project
    from napari_ovam.workflows.dataset.making import Maker

    LoadMaker = Callable[[Plan, Path, str], Maker]


@dataclass(frozen=True)
class RunReport:
    """What there is after a run.

    Attributes
    ----------
    made, rejected
        Images, and those of them that filters rejected.
    failed
        What is wrong with each item that could not be made, by its place.
    lost
        Shards that could not be made, and why; the next run tries them again.
    missing
        How many images each quota lacks, when nothing is left to be made.
    """

    made: int
    rejected: int
    failed: Mapping[int, str]
    lost: Mapping[int, str] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """What makes shards: this process, or workers."""

    def make(
        self, shards: Sequence[Shard], progress: Progress
    ) -> Iterator[tuple[Shard, str]]:
        """Make shards; yield each with "" when it is committed, or with an error.

        `progress` is called with (items done, all) in between.
        """


class Inline(AbstractContextManager["Inline"]):
    """Makes shards in this process, on one device."""

    def __init__(
        self,
        root: Path,
        plan: Plan,
        *,
        device: str = "auto",
        retries: int = 2,
        load: LoadMaker = ModelMaker,
    ) -> None:
        self._root, self._plan, self._retries = root, plan, retries
        self._maker = load(plan, root, device)

    def __exit__(self, *_: object) -> None:
        return None

    def make(
        self, shards: Sequence[Shard], progress: Progress
    ) -> Iterator[tuple[Shard, str]]:
        """Make shards one after the other."""
        before, total = 0, sum(len(shard.items) for shard in shards)
        for shard in shards:

            def report(done: int, _: int, before: int = before) -> None:
                progress(before + done, total)

            make_shard(
                self._root,
                self._plan,
                shard,
                self._maker,
                retries=self._retries,
                progress=report,
            )
            before += len(shard.items)
            yield shard, ""


def run(
    project: Project,
    engine: Engine,
    *,
    again: bool = False,
    progress: Progress = no_progress,
) -> RunReport:
    """Make what is left of the plan in a project's folder, and take it in.

    What is committed is not made again. Whatever ends a run, an error or a person, what
    is committed by then becomes samples of the project: rejected by the filters, or
    proposed, with how unsure they are.

    Parameters
    ----------
    project
        In the plan's folder; nobody else works in it meanwhile.
    engine
        `Inline`, or `cluster.Workers`.
    again
        Whether shards with items that failed are made again.
    progress
        Called with (items done, all that are wanted by now); may raise `Cancelled`.

    Raises
    ------
    PlanError
        If there is no plan, or it cannot be followed.
    OSError
        If files cannot be written.
    """
    root, plan = project.path, Plan.load(project.path)
    (root / SHARDS).mkdir(exist_ok=True)
    try:
        lost = _make_all(project, plan, engine, again, progress)
    finally:
        rejected = collect(project, plan)
    ledger = Ledger(plan, read_records(root, plan))
    failed: dict[int, str] = {}
    for record in read_records(root, plan):
        failed |= failures_of(record)
    lacking = {} if lost else missing(plan, ledger)
    return RunReport(len(ledger.made), rejected, failed, lost, lacking)


def _make_all(
    project: Project, plan: Plan, engine: Engine, again: bool, progress: Progress
) -> dict[int, str]:
    """Make shards in rounds, until nothing is wanted; return those that were lost.

    What a round makes depends on the rounds before it, and on nothing else: another run
    goes the same way, past what is done.
    """
    root, begun = project.path, list[Shard]()
    lost: dict[int, str] = {}
    while not lost:
        records = (read_record(root, plan, shard) for shard in begun)
        wanted = next_items(plan, Ledger(plan, filter(None, records)))
        if not wanted:
            break
        parts = (
            wanted[at : at + plan.shard] for at in range(0, len(wanted), plan.shard)
        )
        new = [Shard(n, tuple(part)) for n, part in enumerate(parts, start=len(begun))]
        begun += new
        todo = [s for s in new if not _is_done(project, plan, s, again=again)]
        done = sum(len(s.items) for s in begun) - sum(len(s.items) for s in todo)
        total = sum(len(s.items) for s in begun)

        def report(more: int, _: int, done: int = done, total: int = total) -> None:
            progress(done + more, total)

        report(0, 0)
        for shard, error in engine.make(todo, report) if todo else ():
            if error:
                lost[shard.number] = error
    return lost


def _is_done(project: Project, plan: Plan, shard: Shard, *, again: bool) -> bool:
    """Whether a shard is committed and its files are there."""
    record = read_record(project.path, plan, shard)
    if record is None or (again and record["failures"]):
        return False
    return all(
        project.has_sample(row["name"])
        or all(file.is_file() for file in shard.files(project.path, row["name"]))
        for row in record["rows"]
    )
