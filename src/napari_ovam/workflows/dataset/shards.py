"""Shards: ranges of items that are made together and committed by one file.

    shards/00012/NAME.png  NAME.labels.png     what was made
    shards/00012.json                          last: the shard is whole

Whoever makes a shard again, because a worker was killed or two got it, writes the same
files in the same places.
"""

from __future__ import annotations

import json
import platform
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from napari_ovam import __version__
from napari_ovam.base.atomic import replacing
from napari_ovam.base.hashing import hash_file
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.images.png import write_png
from napari_ovam.project.files import now, write_labels
from napari_ovam.workflows.dataset.plan import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_ovam.workflows.dataset.making import Made, Maker
    from napari_ovam.workflows.dataset.plan import Item, Plan

SHARDS = "shards"
_FAULTS = (ValueError, RuntimeError, MemoryError, OSError)
_SUSPECT = 2
"""After so many ends of a process while it was made, an item is made in no batch ..."""
_DEATHS = 6
"""... and after so many it is what ends them."""


@dataclass(frozen=True)
class Shard:
    """A range of items, by their places in the plan."""

    number: int
    items: tuple[int, ...]

    def folder(self, root: Path) -> Path:
        """Return where its files are made, below the plan's folder."""
        return root / SHARDS / f"{self.number:05d}"

    def record(self, root: Path) -> Path:
        """Return the place of the file that commits it."""
        return root / SHARDS / f"{self.number:05d}.json"

    def files(self, root: Path, name: str) -> tuple[Path, Path]:
        """Return the places of an image and its labels."""
        folder = self.folder(root)
        return folder / f"{name}.png", folder / f"{name}.labels.png"


def make_shard(
    root: Path,
    plan: Plan,
    shard: Shard,
    maker: Maker,
    *,
    retries: int = 2,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Make the items of a shard, and commit it; return its record.

    An item that fails is tried again alone, and recorded as failed after that. Out of
    memory halves the batch.

    Parameters
    ----------
    root, plan, shard
        The plan's folder, the plan, and what of it.
    maker
        Such as `making.ModelMaker`.
    retries
        How often an item is tried again.
    progress
        Called with (items done, all); may raise `Cancelled`.

    Raises
    ------
    PlanError
        If the plan cannot be followed here at all.
    OSError
        If a file cannot be written, as on a full disk.
    """
    start = time.monotonic()
    folder = shard.folder(root)
    folder.mkdir(exist_ok=True)  # without parents: their disk may be away
    rows: dict[int, dict[str, Any]] = {}
    failures: dict[int, dict[str, Any]] = {}
    trials = _Trials(folder)
    waiting, most = plan.items(shard.items), plan.batch
    while waiting:
        progress(len(rows) + len(failures), len(shard.items))
        group = trials.group(waiting, most)
        if (ended := trials.tries(group[0])) >= _DEATHS:
            error = f"the process ended each of {ended} times"
            failures[group[0].number] = _failure(group[0], error, ended)
            waiting = waiting[1:]
            continue
        made: list[Made | str]
        with trials.noted(group):
            try:
                made = [*maker.make(group)]
            except _FAULTS as error:
                if is_fatal(error):
                    raise
                if len(group) > 1 and _is_memory(error):
                    most = len(group) // 2
                    continue
                if len(group) > 1:
                    trials.alone |= {item.number for item in group}
                    continue
                made = [_again(maker, group[0], error, retries)]
        for item, each in zip(group, made, strict=True):
            if isinstance(each, str):
                failures[item.number] = _failure(item, each, retries + 1)
            else:
                rows[item.number] = _write(shard.files(root, item.name), item, each)
        waiting = waiting[len(group) :]
    progress(len(shard.items), len(shard.items))
    about = {
        "host": platform.node(),
        "device": maker.device,
        "batch": most,
        "seconds": round(time.monotonic() - start, 3),
    }
    record = _commit(root, plan, shard, rows, failures, about)
    trials.path.unlink(missing_ok=True)
    return record


def _commit(
    root: Path,
    plan: Plan,
    shard: Shard,
    rows: Mapping[int, Mapping[str, Any]],
    failures: Mapping[int, Mapping[str, Any]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the record of a shard whose files are all on the disk."""
    record = {
        "plan": plan.hash,
        "shard": shard.number,
        "items": shard.items,
        "rows": [rows[n] for n in sorted(rows)],
        "failures": [failures[n] for n in sorted(failures)],
        **about,
        "program": __version__,
        "at": now(),
    }
    record["sha256"] = _digest(record)
    with replacing(shard.record(root)) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")
    return record


def read_record(root: Path, plan: Plan, shard: Shard) -> dict[str, Any] | None:
    """Return what a shard was committed with; None if it is not, or damaged."""
    try:
        record = json.loads(shard.record(root).read_text(encoding="utf-8"))
        whole = (
            record["plan"] == plan.hash
            and tuple(record["items"]) == shard.items
            and record["sha256"] == _digest(record)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if whole else None


def read_records(root: Path, plan: Plan) -> Iterator[dict[str, Any]]:
    """Yield the records of all shards that are committed, by their numbers."""
    for path in sorted((root / SHARDS).glob("[0-9]*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["plan"] == plan.hash and record["sha256"] == _digest(record):
                yield record


def is_fatal(error: Exception) -> bool:
    """Whether an error is no item's: the plan's, or a GPU's that has to restart."""
    broken = type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)
    return isinstance(error, PlanError) or (broken and not _is_memory(error))


def failures_of(record: Mapping[str, Any]) -> dict[int, str]:
    """Return what is wrong with the items of a shard that failed, by their places."""
    return {
        each["item"]: f"{each['prompt']!r}: {each['error']}"
        for each in record["failures"]
    }


def _again(maker: Maker, item: Item, error: Exception, retries: int) -> Made | str:
    """Try an item again; return what was made, or what is wrong."""
    for _ in range(retries):
        try:
            return maker.make([item])[0]
        except _FAULTS as latest:
            if is_fatal(latest):
                raise
            error = latest
    return f"{type(error).__name__}: {error}"


def _write(files: tuple[Path, Path], item: Item, made: Made) -> dict[str, Any]:
    """Write what was made of an item; return its row."""
    image, labels = files
    settings = None
    if made.settings is not None:
        settings = {"version": __version__, **made.settings}
    write_png(image, made.image, settings)
    # No time in it: whoever makes it writes the same.
    write_labels(labels, made.labels, {"status": "proposed", "version": __version__})
    return {
        "item": item.number,
        "name": item.name,
        "key": item.key,
        "image": hash_file(image),
        "labels": hash_file(labels),
        "scores": made.scores,
    }


def _failure(item: Item, error: str, tries: int) -> dict[str, Any]:
    return {
        "item": item.number,
        "key": item.key,
        "prompt": item.prompt.text or (item.picture.file if item.picture else ""),
        "error": error,
        "tries": tries,
    }


def _digest(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a shard holds, whoever made it, and when."""
    held = [record["rows"], [[f["item"], f["key"]] for f in record["failures"]]]
    return sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def _is_memory(error: Exception) -> bool:
    from napari_ovam.diffusion.devices import OutOfMemory

    return isinstance(error, OutOfMemory | MemoryError)


class _Trials:
    """Which items processes were at when they ended; kept beside what they make."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trying.json"
        self.alone: set[int] = set()  # items that are made in no batch
        self._tries: dict[str, int] = {}
        with suppress(OSError, ValueError, TypeError, AttributeError):
            noted = json.loads(self.path.read_text(encoding="utf-8"))
            self._tries = {str(key): int(count) for key, count in noted.items()}

    def tries(self, item: Item) -> int:
        """Return how often a process ended while it made an item."""
        return self._tries.get(item.key, 0)

    def group(self, waiting: Sequence[Item], most: int) -> list[Item]:
        """Return the next items that are made at once."""
        group: list[Item] = []
        for item in waiting[: max(1, most)]:
            alone = item.number in self.alone or self.tries(item) >= _SUSPECT
            if group and alone:
                break
            group.append(item)
            if alone:
                break
        return group

    @contextmanager
    def noted(self, group: Sequence[Item]) -> Iterator[None]:
        """Note that items are being made; forget it unless that ends the process."""
        before = dict(self._tries)
        self._write(before | {item.key: self.tries(item) + 1 for item in group})
        try:
            yield
        except BaseException:  # an error, or Ctrl-C, is no end of the process
            self._write(before)
            raise
        self._tries = {
            k: n for k, n in before.items() if k not in {i.key for i in group}
        }

    def _write(self, tries: dict[str, int]) -> None:
        # Not to the disk at once: it is for processes that end, not for computers.
        self._tries = tries
        self.path.write_text(json.dumps(tries), encoding="utf-8")
