"""Projects to photograph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROMPTS = (
    "a cat and a hat on the grass",
    "a car on the snow",
    "a fox on the sand",
    "a boat and a cat on the water",
    "a hat on the grass",
    "a cat on the snow",
)


def make_generated(folder: Path) -> Path:
    """Generate images into a project and propose labels for all but the last."""
    from napari_ovam import (
        GenerationSettings,
        Project,
        generate,
        load_pipeline,
        propose,
    )

    project = Project.create(folder)
    for name in ("cat", "hat", "car", "fox", "boat"):
        project.classes.add(name)
    project.save()
    pipe = load_pipeline("tiny")
    for seed, prompt in enumerate(PROMPTS):
        made = generate(pipe, GenerationSettings(prompt, seed=seed))
        settings = {"prompt": prompt, "seed": seed}
        project.add_sample(made.image, settings, provenance={"title": prompt})
        if seed < len(PROMPTS) - 1:
            here = [e.id for e in project.classes if f" {e.name} " in f"{prompt} "]
            propose(project, pipe, [project.samples[-1].name], classes=here)
    return folder


def make_scenes(folder: Path) -> Path:
    """Take the scenes that come with the program; accept some, exactly.

    All with a cat, and of those with an owl all but the last.
    """
    import numpy as np

    from napari_ovam import Project
    from napari_ovam.scenes import load_scenes

    project = Project.create(folder)
    ids = {name: project.classes.add(name).id for name in ("cat", "owl")}
    scenes = sorted(load_scenes(), key=lambda s: not ids.keys() & s.classes.values())
    last = [s.name for s in scenes if "owl" in s.classes.values()][-1]
    for scene in scenes:
        project.add_sample(scene.image, name=scene.name)
        here = {ids[name]: i for i, name in scene.classes.items() if name in ids}
        absent = set(ids.values()) - set(here)
        project.change_sample(scene.name, absent=absent)
        if here and scene.name != last:
            labels = np.zeros(scene.labels.shape, np.uint8)
            for number, there in here.items():
                labels[scene.labels == there] = number
            project.save_labels(scene.name, labels, "accepted", absent=absent)
    project.save()
    return folder
