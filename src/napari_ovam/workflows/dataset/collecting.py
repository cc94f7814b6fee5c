"""Take what shards made into the project: the review queue of a dataset."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari_ovam import __version__
from napari_ovam.project.index import Sample, Status
from napari_ovam.workflows.dataset.shards import Shard, read_records
from napari_ovam.workflows.dataset.verdicts import Ledger
from napari_ovam.workflows.review_order import UNSURE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_ovam.project import Project
    from napari_ovam.workflows.dataset.plan import Plan


def collect(project: Project, plan: Plan) -> int:
    """Take all that is committed into the project of a plan.

    New samples are rejected, with the filters' reasons, or proposed. Of those that are
    there, the status follows the filters unless a person has changed it. A run that is
    killed meanwhile is gone on with by the next.

    It returns how many images are rejected by the filters.
    """
    root = project.path
    rejected = Ledger(plan, read_records(root, plan)).rejected()
    new: list[Sample] = []
    shared: dict[str, Mapping[str, Any]] = {}  # provenance that many have
    for record in read_records(root, plan):
        shard = Shard(record["shard"], ())
        for row in record["rows"]:
            reasons = rejected.get(row["item"], [])
            if project.has_sample(row["name"]):
                _judge(project, row["name"], reasons)
            elif shard.files(root, row["name"])[1].is_file():
                new.append(_sample(plan, record, row, reasons, shared))
    if new:
        project.add_samples(sorted(new, key=lambda sample: sample.name))
    else:
        project.save()
    for record in read_records(root, plan):
        shard = Shard(record["shard"], ())
        if shard.folder(root).is_dir():
            names = [row["name"] for row in record["rows"]]
            taken = [name for name in names if project.has_sample(name)]
            for name in taken:
                image, labels = shard.files(root, name)
                _move(labels, project.files.labels(name))
                _move(image, project.files.image(name))
            if len(taken) == len(names):  # else a worker has made more since
                # What is left is of a worker that was killed after the commit, or as
                # it made the shard a second time.
                shutil.rmtree(shard.folder(root), ignore_errors=True)
    return len(rejected)


def _sample(
    plan: Plan,
    record: Mapping[str, Any],
    row: Mapping[str, Any],
    reasons: list[str],
    shared: dict[str, Mapping[str, Any]],
) -> Sample:
    item = plan.item(row["item"])
    ids = tuple(row["scores"]["classes"])
    made_by = shared.setdefault(" ".join(ids), _made_by(plan, map(int, ids)))
    status: Status = "rejected" if reasons else "proposed"
    provenance: dict[str, Any] = {
        "added": record["at"],
        "version": __version__,
        "title": item.prompt.text or (item.picture.file if item.picture else ""),
        "model": plan.model,
        "text_encoder": plan.text_encoder,
        "labelled": record["at"],
        "proposed_by": {**made_by, UNSURE: row["scores"]["unsure"]},
        "dataset": {"status": status, "reasons": reasons, "key": item.key},
    }
    if item.picture is not None:
        provenance |= {"source": item.picture.file, "seed": item.seed, "prompt": ""}
    return Sample(row["name"], status, (), provenance, row["image"])


def _made_by(plan: Plan, ids: Any) -> dict[str, Any]:
    """Return what found the classes, as `propose` says it."""
    classes = [plan.by_id[number] for number in ids]
    return {
        "model": plan.text_encoder,
        "thresholds": {str(entry.id): entry.threshold for entry in classes},
        "sources": {
            str(entry.id): {"phrase": entry.phrase}
            | ({"token": entry.token[:16]} if entry.token else {})
            for entry in classes
        },
        "layers": "fine",
    }


def _judge(project: Project, name: str, reasons: list[str]) -> None:
    """Let the status of a sample follow the filters, unless a person changed it."""
    sample = project.sample(name)
    before = sample.told("dataset")
    status: Status = "rejected" if reasons else "proposed"
    if sample.status != before.get("status"):
        return
    if before.get("reasons") != reasons:
        about = {"dataset": {**before, "status": status, "reasons": reasons}}
        project.change_sample(name, status=status, provenance=about, write=False)


def _move(made: Path, place: Path) -> None:
    """Move a file to its place, unless something is there: a person may have had it."""
    if place.is_file():
        made.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        made.replace(place)
