"""Items of a dataset that take no time: for workers in processes of their own.

Run as a program it makes a plan's items, by the workers of a scheduler if one is named.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from napari_ovam.base.generation_settings import GenerationSettings
from napari_ovam.project import Project
from napari_ovam.workflows.dataset.making import Made, ModelMaker
from napari_ovam.workflows.dataset.plan import (
    Plan,
    PlannedClass,
    PlannedPrompt,
)

CAT, DOG = (
    PlannedClass(1, "cat", "cat", "phrase", None),
    PlannedClass(2, "dog", "dog", "phrase", None),
)
POISON = "a poisoned cat"


class Fast:
    """Draws noise for an item, and calls a corner of it the class; one is poison."""

    device = "none"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.made = 0

    def make(self, items):
        time.sleep(self.seconds * len(items))
        return [self._one(item) for item in items]

    def _one(self, item):
        if item.prompt.text == POISON:
            raise ValueError("it is poisoned")
        self.made += 1
        random = np.random.default_rng(item.seed)
        side = int(random.integers(3, 9))
        labels = np.zeros((16, 16), np.uint8)
        scores = {}
        for place, number in enumerate(item.prompt.classes):
            labels[:side, 8 * place : 8 * place + side] = number
            scores[str(number)] = {
                "area": float(random.uniform(0.01, 0.3)),
                "presence": float(random.uniform(0.9, 2)),
                "agreement": float(random.uniform(0.7, 1)),
            }
        return Made(
            random.integers(0, 255, (16, 16, 3), np.uint8),
            labels,
            {"blank": 0.0, "unsure": float(random.uniform(0, 0.45)), "classes": scores},
            {"model": "fast", **vars(GenerationSettings(item.prompt.text))},
        )


def load_fast(plan: Plan, folder: Path, device: str) -> Fast:
    """Return what makes the items of a plan in as many seconds as its settings say."""
    return Fast(plan.settings.get("seconds", 0.0))


def load_small(plan: Plan, folder: Path, device: str) -> ModelMaker:
    """Return the small random pipeline, which every process builds for itself."""
    from conftest import build_pipeline

    return ModelMaker(plan, folder, device, build_pipeline())


def make_plan(count: int = 40, seconds: float = 0.0, **how) -> Plan:
    """Return a plan of cats and dogs, one of them poisoned."""
    texts = [("a cat", (1,)), ("a dog", (2,)), ("a cat and a dog", (1, 2))]
    prompts = [PlannedPrompt(f"{t} {i}", "", c) for i in range(count) for t, c in texts]
    prompts[5] = PlannedPrompt(POISON, "", (1,))
    how = {"prompts": tuple(prompts[:count]), "classes": (CAT, DOG), **how}
    return Plan("fast", "weights", "auto", {"seconds": seconds}, shard=4, **how)


def start(plan: Plan, folder: Path) -> Project:
    """Make the project that a plan fills."""
    project = Project.create(folder)
    project.classes.add("cat")
    project.classes.add("dog")
    project.save()
    plan.save(folder)
    return project


def main() -> None:
    from napari_ovam.cli.common import working_in
    from napari_ovam.workflows.dataset.cluster import Workers
    from napari_ovam.workflows.dataset.running import run

    folder, scheduler = Path(sys.argv[1]), sys.argv[2]
    plan = Plan.load(folder)
    with (
        working_in(folder) as project,
        Workers(folder, plan, scheduler=scheduler, load=load_fast) as workers,
    ):
        report = run(project, workers)
    print(report.made, len(report.failed), report.lost, flush=True)


if __name__ == "__main__":
    main()
