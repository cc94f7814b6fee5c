"""How far a dataset is, by what is committed: for a look from beside the run."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.base.folder_lock import lock_folder
from napari_ovam.workflows.dataset.plan import Plan, PlanError
from napari_ovam.workflows.dataset.shards import (
    Shard,
    failures_of,
    make_shard,
    read_records,
)
from napari_ovam.workflows.dataset.verdicts import Ledger, next_items

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ovam.workflows.dataset.making import Maker

_LATEST = 20  # shards, whose pace counts
_PATIENCE = 20.0  # seconds, after which an estimate has seen enough


@dataclass(frozen=True)
class DatasetStatus:
    """How far a dataset is.

    Attributes
    ----------
    made, failed, left
        Items; those that are wanted still, as far as is known by now.
    rejected
        How many images each filter rejects; an image may have several.
    kept
        Images that are kept, of each class by its name.
    devices
        How many items were made where: "host, device".
    errors
        What is wrong with items that failed, by their places.
    pace
        Items a second of late, or None if that is not known.
    running
        Whether somebody works in the folder.
    """

    made: int
    failed: int
    left: int
    rejected: Mapping[str, int]
    kept: Mapping[str, int]
    devices: Mapping[str, int]
    errors: Mapping[int, str]
    pace: float | None
    running: bool


def read_status(folder: Path) -> DatasetStatus:
    """Look how far the plan in a folder is; nothing is changed.

    It raises `PlanError` if there is no plan, or a damaged one.
    """
    plan = Plan.load(folder)
    ledger = Ledger(plan, read_records(folder, plan))
    devices: Counter[str] = Counter()
    ends: list[tuple[float, int]] = []
    errors: dict[int, str] = {}
    for record in read_records(folder, plan):
        count = len(record["items"])
        devices[f"{record['host']}, {record['device']}"] += count
        ends.append((datetime.fromisoformat(record["at"]).timestamp(), count))
        errors |= failures_of(record)
    wrong = {name: int(found.sum()) for name, found in ledger.verdicts().items()}
    kept, _ = ledger.kept()
    lock = lock_folder(folder)
    if lock is not None:
        lock.close()
    return DatasetStatus(
        made=len(ledger.made),
        failed=len(ledger.failed),
        left=len(next_items(plan, ledger)),
        rejected={name: count for name, count in wrong.items() if count},
        kept={plan.by_id[i].name: count for i, count in kept.items()},
        devices=devices,
        errors=errors,
        pace=_pace(sorted(ends)[-_LATEST:]),
        running=lock is None,
    )


def _pace(ends: list[tuple[float, int]]) -> float | None:
    """Return the items a second of shards that ended at some times."""
    if len(ends) < 2 or ends[-1][0] <= ends[0][0]:
        return None
    return sum(count for _, count in ends[1:]) / (ends[-1][0] - ends[0][0])


@dataclass(frozen=True)
class Estimate:
    """What a plan takes, by one or two items of it that were made.

    Attributes
    ----------
    items, most
        What is made at first, and all that the plan has.
    seconds, size
        Of an item, with one worker on `device`; bytes of its files.
    free
        Bytes that the disk has left.
    """

    items: int
    most: int
    seconds: float
    size: int
    device: str
    free: int


def estimate(plan: Plan, maker: Maker, folder: Path) -> Estimate:
    """Make an item or two, beside the dataset, and estimate what all of them take.

    It raises `PlanError` if nothing is wanted.

    Parameters
    ----------
    plan, maker
        The plan and what makes its items.
    folder
        Where the dataset is going to be.
    """
    numbers = next_items(plan, Ledger(plan, ()))
    if not numbers:
        raise PlanError("there is nothing to make: no quota asks for an image")
    begin = seconds = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="napari-ovam-estimate-") as made:
        root = Path(made)
        (root / "shards").mkdir()
        for place, number in enumerate(numbers[:2]):
            shard = Shard(place, (number,))
            seconds = float(make_shard(root, plan, shard, maker)["seconds"])
            if time.monotonic() - begin > _PATIENCE:
                break
        size = sum(f.stat().st_size for f in shard.folder(root).iterdir())
        size += shard.record(root).stat().st_size
    there: Any = next(p for p in (folder, *folder.resolve().parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    return Estimate(len(numbers), len(plan), seconds, size, maker.device, free)
