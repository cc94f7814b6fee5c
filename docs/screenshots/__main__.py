"""Photograph the panel for README and docs, from the program as it is.

    python docs/screenshots [NAME ...] [--out FOLDER]

NAME is one of panel, project, classes, proposals, clicks, film, tour, learning and
guide; all of them without. Each is made in a process of its own, on a display and with
settings of its own, on the embedded model; every button is pressed as a person would.
Minutes on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from clicks import film_clicks, photograph_clicks
from guide import photograph_guide
from learning import photograph_learning
from projects import make_generated, make_scenes
from tour import film_tour
from window import Window, display

if TYPE_CHECKING:
    from collections.abc import Callable

OUT = Path(__file__).parents[1] / "images"
SMALL = (1024, 768)
STEPS = {
    "image": "generate_button",
    "maps": "map_button",
    "labels": "labels_button",
    "token": "optimize_button",
    "export": "export_button",
}


def photograph_panel(out: Path, _home: Path) -> None:
    """Go through the whole job, then show each section with its settings open."""
    from qtpy.QtWidgets import QAbstractButton
    from superqt import QCollapsible

    shown = Window(out)
    for step, name in STEPS.items():
        if step == "token":
            correct(shown.session)
        shown.press(name)
        shown.photograph(f"panel-1400x900-{step}", shown.find(name))
    folds = {step: shown.find(f"fold_{step}") for step in STEPS}
    for step, fold in folds.items():
        for other in shown.panel.findChildren(QCollapsible):
            if other.objectName().startswith("fold_"):
                (other.expand if other is fold else other.collapse)(animate=False)
        for more in fold.findChildren(QAbstractButton, "more_button"):
            more.setChecked(True)
        shown.pump(0.3)
        shown.photograph(f"section-1024x768-{step}", size=SMALL)
    shown.viewer.close()


def correct(session: Any) -> None:
    """Erase every part of the first class but the largest, as a person would."""
    from skimage.measure import label

    sample = session.current
    layer = session.layers.find(sample.key, "labels")
    number = layer.selected_label
    parts = label(layer.data == number)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    for part in set(np.flatnonzero(sizes)) - {int(sizes.argmax())}:
        row, column = np.argwhere(parts == part)[0]
        layer.fill((int(row), int(column)), 0)
    if sizes.astype(bool).sum() < 2:  # nothing to erase: make it a little larger
        rows, columns = np.nonzero(parts)
        layer.paint((int(rows.min()), int(columns[rows.argmin()])), number)
    session.labels.take_edits(sample)


def photograph_project(out: Path, home: Path) -> None:
    """Review some images, paint on one."""
    shown = Window(out, make_generated(home / "pets"))
    shown.dock("OVAM project")
    session = shown.session
    for step in (session.review.accept, session.review.reject):
        step()
        shown.wait(2)
    session.review.step(1)
    shown.wait(2)
    layer = session.layers.find(session.current.key, "labels")
    with layer.block_history():
        layer.brush_size = 8
        layer.paint((20, 20), layer.selected_label)
    shown.wait(3)
    shown.photograph("project-1400x900")
    shown.viewer.close()


def photograph_classes(out: Path, home: Path) -> None:
    """Import a list, show the instances, ask to delete a class."""
    shown = Window(out, make_generated(home / "pets"))
    changes = shown.session.class_changes
    changes.import_preset("voc")
    shown.wait(1)
    for number in (1, 2):
        changes.change(number, key=str(number))
    for name in STEPS:
        shown.find(f"fold_{name}").collapse(animate=False)
    for name in ("classes", "instances"):
        shown.find(f"fold_{name}").expand(animate=False)
    shown.session.instances.show(True)
    shown.panel.sections["Classes"].select(2)
    shown.wait(2)
    changes.ask_delete([2])
    shown.wait(2)
    shown.photograph("classes-1400x900")
    shown.viewer.close()


def photograph_proposals(out: Path, home: Path) -> None:
    """Propose, improve, use the tokens and keep them in the library."""
    from qtpy.QtWidgets import QDialog

    shown = Window(out, make_scenes(home / "pets"))
    shown.dock("OVAM project")
    session = shown.session
    session.proposing.propose(session.projects.keys)
    shown.wait(2)
    session.proposing.improve()
    shown.wait(1)
    (dialog,) = [d for d in shown.window.findChildren(QDialog) if d.isVisible()]
    dialog.move(300, 120)
    shown.photograph("proposals-1400x900")
    dialog.accept()
    shown.wait(2)
    for entry in session.classes:
        if session.view(entry.id).token is not None:  # better than its word
            session.library.save(entry.id)
            shown.wait(1)
    assert session.library.entries, session.message
    shown.dock("OVAM token library")
    shown.wait(2)
    shown.photograph("token-library-1400x900")
    shown.viewer.close()


STORIES: dict[str, Callable[[Path, Path], None]] = {
    "panel": photograph_panel,
    "project": photograph_project,
    "classes": photograph_classes,
    "proposals": photograph_proposals,
    "clicks": photograph_clicks,
    "film": film_clicks,
    "tour": film_tour,
    "learning": photograph_learning,
    "guide": photograph_guide,
}


def main() -> None:
    """Take the pictures that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *STORIES])
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    given.out.mkdir(exist_ok=True)
    if len(given.names) == 1:
        with display() as home:
            STORIES[given.names[0]](given.out, home)
        return
    for name in given.names or STORIES:
        again = [sys.executable, __file__, name, "--out", str(given.out)]
        subprocess.run(again, check=True)  # noqa: S603


if __name__ == "__main__":
    main()
