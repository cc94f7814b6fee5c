"""Photograph what was learned from accepted images, and where to go back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from window import Window

if TYPE_CHECKING:
    from pathlib import Path

ACCEPTED = 3


def photograph_learning(out: Path, home: Path) -> None:
    """Accept some images of a class that its word does not find well."""
    from superqt import QCollapsible

    shown = Window(out, make_things(home / "cats"))
    shown.dock("OVAM project")
    session = shown.session
    for other in shown.panel.findChildren(QCollapsible):
        if other.objectName().startswith("fold_"):
            opened = other.objectName() in ("fold_labels", "fold_token")
            (other.expand if opened else other.collapse)(animate=False)
    for _ in range(ACCEPTED - 1):
        session.do("accept")
        shown.pump(0.5)
        while session.learning.busy:
            shown.pump(0.2)
        shown.wait(1)
    shown.find("unsure_first").click()
    shown.photograph("learning-1400x900", shown.find("source_button"))
    shown.photograph("learning-1024x768", shown.find("source_button"), size=(1024, 768))
    shown.viewer.close()


def make_things(folder: Path) -> Path:
    """Take the scenes with a cat, which is called a thing; propose the last one."""
    import numpy as np

    from napari_ovam import Project, load_pipeline, propose
    from napari_ovam.scenes import load_scenes

    project = Project.create(folder)
    number = project.classes.add("cat").id
    project.classes.change(number, phrase="animal")
    scenes = sorted(load_scenes(), key=lambda s: "cat" not in s.classes.values())
    for scene in scenes:
        project.add_sample(scene.image, name=scene.name)
    for scene in scenes[:ACCEPTED]:
        here = [i for i, name in scene.classes.items() if name == "cat"]
        labels = np.isin(scene.labels, here).astype(np.uint8)
        project.save_labels(scene.name, labels, "edited")
    rest = [scene.name for scene in scenes[ACCEPTED:]]
    propose(project, load_pipeline("tiny"), rest)
    project.save()
    return folder
