"""Measure `napari-ovam dataset`: its filters, its overhead, its workers.

    python benchmarks/dataset.py filters FOLDER     what filters keep and throw out
    python benchmarks/dataset.py overhead           beside a bare loop
    python benchmarks/dataset.py workers            1 and 2 workers
    python benchmarks/dataset.py simulate           up to 1,000 workers that only wait
    python benchmarks/dataset.py memory             over 100,000 items

Figures are in docs/dataset.md. `filters` draws pictures whose masks are known by their
colours (`benchmarks/quality/make_generated.py`) and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam import GenerationSettings, iou, labels_to_target, load_pipeline
from napari_ovam.project import Project
from napari_ovam.workflows.dataset import planning
from napari_ovam.workflows.dataset.making import Made, ModelMaker
from napari_ovam.workflows.dataset.plan import Filters, Plan
from napari_ovam.workflows.dataset.prompts import Prompt
from napari_ovam.workflows.dataset.running import Inline, run
from napari_ovam.workflows.dataset.shards import read_records
from napari_ovam.workflows.dataset.verdicts import Ledger

if TYPE_CHECKING:

    from napari_ovam.workflows.dataset.plan import Item

QUALITY = Path(__file__).parent / "quality"
SEEDS = 3


class TwoLooks(ModelMaker):
    """Scores items by both ways to look twice, and keeps labels without a band."""

    def _label(self, item: Item, made: Any) -> Made:
        by_thresholds = super()._label(item, made)
        plan = self._plan
        self._plan = replace(plan, agreement="calls")
        calls = super()._label(item, made).scores
        self._plan = replace(plan, agreement="none")
        plain = super()._label(item, made)
        self._plan = plan
        for number, scores in by_thresholds.scores["classes"].items():
            scores["calls"] = calls["classes"][number]["agreement"]
        band = float((by_thresholds.labels == 255).mean())
        scores = {**by_thresholds.scores, "band": band}
        return replace(plain, scores=scores)


def filters(folder: Path) -> None:
    """Draw objects alone and in pairs; compare masks with those known by colour."""
    sys.path.insert(0, str(QUALITY))
    from make_generated import PAIRS, WHERE, labels_of, mean_colours, prompt_of

    names = sorted(WHERE)
    wanted = [((name,), place) for name in names for place in WHERE[name]]
    wanted += [(pair, place) for pair in PAIRS for place in ("grass", "snow")]
    texts = {prompt_of(each, place): each for each, place in wanted}
    plan = start(folder, names, [Prompt(t, classes=c) for t, c in texts.items()])
    with Inline(folder, plan, load=lambda *of: TwoLooks(*of, None)) as engine:
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
                        for score in ("presence", "agreement", "calls", "area")
                    },
                }
            )
    rejected = ledger.rejected()
    for row in rows:
        row["reasons"] = rejected.get(row["item"], [])
    (folder / "filters.json").write_text(json.dumps(rows))
    report(rows)


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
        **{"seeds": range(SEEDS), "filters": Filters(), "shard": 8, **how},
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
    for score in ("presence", "agreement", "calls", "unsure"):
        ordered = sorted(
            rows, key=lambda r: -r[score] if score == "unsure" else r[score]
        )
        for share in (0.05, 0.1, 0.2):
            count = round(share * len(rows))
            print(line(f"worst {share:.0%} by {score}", ordered[:count]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["filters", "report"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "filters":
        filters(arguments.folder)
    else:
        report(json.loads((arguments.folder / "filters.json").read_text()))


if __name__ == "__main__":
    main()
