"""Instances of the samples: found, kept in step with the labels, split and merged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_ovam._qt.layers.instance_tools import (
    Place,
    cut_by_line,
    draw_line,
    object_at,
    place_of,
)
from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.layers.marked import role_of
from napari_ovam._qt.session.background import Background
from napari_ovam.project.files import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari.layers import Labels

    from napari_ovam._qt.session.background import Work
    from napari_ovam._qt.session.edits import Snapshot
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.segmentation.instances import Instances

Tool = Literal["", "cut", "split", "merge"]
_PAUSE = 200  # ms after a stroke
_UNDO = 20  # steps that can be taken back

TOOLS: dict[Tool, str] = {
    "": "",
    "cut": "Draw a line across an object to cut it in two.",
    "split": "Click two places in one object: it is divided between them.",
    "merge": "Click two objects of one class to make them one.",
}
"""What each tool says when it is chosen."""


@dataclass
class _Known:
    """Instances of a sample, the labels that they follow, and those before."""

    instances: Instances
    labels: Snapshot | None
    past: list[Instances] = field(default_factory=list)


class InstanceEdits:
    """Finds the instances of the sample that is shown, and changes them.

    What takes time happens in a thread, one thing after another.

    Attributes
    ----------
    shown
        Whether instances have a layer.
    tool
        What the mouse does on that layer.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.shown = False
        self.tool: Tool = ""
        self._layers = session.feature(SampleLayers)
        self._known: dict[str, _Known] = {}  # by the sample's key
        self._background = Background(session, "Instances", self._failed)
        self._picked: tuple[int, Place] | None = None
        self._notes = 0
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE)
        self._timer.timeout.connect(self._catch_up)
        session.labels_changed.connect(self._later)
        session.current_changed.connect(self._switched)
        session.classes_changed.connect(self._show)
        session.classes_replaced.connect(self.replace)
        session.project_changed.connect(lambda: self._known.clear())
        session.viewer.layers.events.removed.connect(self._layer_removed)

    def close(self) -> None:
        """Stop what runs."""
        self._timer.stop()
        self._background.close()

    @property
    def busy(self) -> bool:
        """Whether instances are being found or changed, or will be in a moment."""
        return self._background.busy or self._timer.isActive()

    # -- asking ----------------------------------------------------------------------

    def of(self, sample: LiveSample) -> Instances | None:
        """Return the instances of a sample as they were found last."""
        known = self._known.get(sample.key)
        return None if known is None else known.instances

    def counts(self) -> dict[int, int]:
        """Return how many objects of each class the image that is shown holds."""
        sample = self.session.current
        found = self.of(sample) if sample is not None else None
        if found is None:
            return {}
        things = self._things()
        return dict(Counter(c for c in found.classes.values() if c in things))

    def can_undo(self) -> bool:
        """Whether a split or merge can be taken back."""
        sample = self.session.current
        known = self._known.get(sample.key) if sample is not None else None
        return known is not None and bool(known.past)

    # -- doing -----------------------------------------------------------------------

    def show(self, on: bool) -> None:
        """Show the instances of the things in the image, or take their layer away."""
        session, sample = self.session, self.session.current
        if on and (sample is None or sample.edits is None):
            session.complain("There are no labels yet: make or paint some first")
            on = False
        self.shown = on
        if not on:
            self.set_tool("")
            for each in session.samples:
                self._layers.remove_extra(each.key, "instances")
        elif sample is not None:
            self._want(sample)
        self.changed.emit()

    def set_tool(self, tool: Tool) -> None:
        """Choose what the mouse does on the layer of instances."""
        if tool and not self.shown:
            self.show(True)
        self.tool = tool if self.shown else ""
        self._picked = None
        self._prepare()
        if self.tool:
            self.session.say(TOOLS[self.tool])
        self.changed.emit()

    def undo(self) -> None:
        """Take the last split or merge of this image back."""
        sample = self.session.current
        known = self._known.get(sample.key) if sample is not None else None
        if sample is None or known is None or not known.past:
            self.session.complain("There is no split or merge to take back")
            return
        before, known.instances = known.instances, known.past.pop()
        known.labels = None
        self._note(sample, before, known.instances, "back")
        self._want(sample)

    def replace(self, sample: LiveSample, changes: Mapping[int, int]) -> None:
        """Follow classes of a sample that became others, or background (0)."""
        known = self._known.get(sample.key)
        if known is not None:
            from napari_ovam.segmentation.instances.relabel import replace_classes

            known.instances = replace_classes(known.instances, changes)
            known.past.clear()

    # -- in a thread -----------------------------------------------------------------

    def _want(
        self,
        sample: LiveSample,
        change: Callable[[Instances], Instances] | None = None,
    ) -> None:
        """Have instances found, and changed by the tool that is chosen."""
        key = (sample, None) if change is None else object()  # every change counts
        self._background.ask(key, partial(self._work, sample, change))

    def _work(
        self, sample: LiveSample, change: Callable[[Instances], Instances] | None
    ) -> Work | None:
        session = self.session
        if sample.edits is None or sample not in session.samples:
            return None
        labels = sample.edits.now
        known = self._known.get(sample.key)
        project, name, tool = sample.project, sample.key, self.tool

        def run(_: Job) -> tuple[Instances, Instances, str]:
            # scikit-image is imported here, and not when napari starts
            from napari_ovam.images.files import ImageFileError
            from napari_ovam.segmentation.instances import InstanceError
            from napari_ovam.segmentation.instances.files import load_instances
            from napari_ovam.segmentation.instances.relabel import (
                find_instances,
                follow_labels,
            )

            note = ""
            found: Instances | None = None
            if known is not None:
                found = known.instances
                if known.labels is not labels:
                    found = follow_labels(found, labels.labels)
            else:
                try:
                    found = load_instances(project.path, name, labels.labels)
                except (ImageFileError, InstanceError, OSError) as error:
                    note = f"{error}. They were found again from the labels."
            if found is None:
                found = find_instances(labels.labels)
            return found, found if change is None else change(found), note

        def returned(result: tuple[Instances, Instances, str]) -> None:
            before, after, note = result
            old = self._known.setdefault(sample.key, _Known(after, labels))
            is_new = known is None or known.instances is not after
            old.instances, old.labels = after, labels
            if change is not None:
                old.past = [*old.past, before][-_UNDO:]
                self._note(sample, before, after, tool)
            if is_new and after.classes and project is session.project:
                self._save(sample, after)
            if note:
                session.say(note, "warning")
            self._show()
            self.changed.emit()

        return run, returned

    def _failed(self, error: Exception) -> None:
        self.session.complain(error)
        self._show()
        self.changed.emit()

    def _save(self, sample: LiveSample, instances: Instances) -> None:
        from napari_ovam.segmentation.instances.files import save_instances

        project, key = sample.project, sample.key

        def write() -> None:
            save_instances(project.path, key, instances)

        self.session.saving.submit("instances", key, write)

    def _note(
        self, sample: LiveSample, before: Instances, after: Instances, what: str
    ) -> None:
        """Write into the history of a sample what happened to its objects."""
        from napari_ovam.project.history import Change, pack_all

        project, key, about = sample.project, sample.key, {"by": what, "at": now()}

        def write() -> None:
            touched = np.unique(before.ids[before.ids != after.ids])
            objects = np.isin(before.ids, touched[touched > 0])
            pieces = pack_all(before.labels(), objects)
            if pieces:
                project.add_to_history(key, [Change(about, pieces)])

        self._notes += 1  # none takes the place of another
        self.session.saving.submit(f"objects {self._notes}", key, write)

    # -- following -------------------------------------------------------------------

    def _later(self) -> None:
        if self.shown:
            self._timer.start()

    def _catch_up(self) -> None:
        sample = self.session.current
        if not self.shown or sample is None or sample.edits is None:
            return
        known = self._known.get(sample.key)
        if known is None or known.labels is not sample.edits.now:
            self._want(sample)

    def _switched(self) -> None:
        self._picked = None
        there = {sample.key for sample in self.session.samples}
        self._known = {k: v for k, v in self._known.items() if k in there}
        self._catch_up()
        self._show()
        self.changed.emit()

    def _show(self) -> None:
        """Show the instances of the things in the image that is shown."""
        sample = self.session.current
        found = self.of(sample) if sample is not None else None
        if not self.shown or sample is None or found is None:
            return
        if found.ids.shape != sample.shape:
            return
        things, classes = self._things(), self.session.classes
        table = np.zeros(found.last + 1, np.uint16)
        names = [(0, "")]
        for number, class_id in sorted(found.classes.items()):
            if class_id in things:
                table[number] = number
                names.append((number, f"{classes[class_id].name} {number}"))
        features: dict[str, list[Any]] = {
            "index": [n for n, _ in names],
            "name": [n for _, n in names],
        }
        self._layers.show_instances(sample, table[found.ids], features, self._drag)
        self._prepare()

    def _things(self) -> set[int]:
        return {entry.id for entry in self.session.classes if entry.thing}

    def _prepare(self) -> None:
        """Give the mouse on the layer to the tool, or back to the camera."""
        sample = self.session.current
        layer: Any = None
        if sample is not None:
            layer = self.session.layers.find(sample.key, "instances")
        if layer is None:
            return
        layer.mouse_pan = not self.tool
        layer.cursor = "cross" if self.tool else "standard"
        selection = self.session.viewer.layers.selection
        labels = self.session.layers.find(sample.key, "labels") if sample else None
        if self.tool:
            selection.active = layer
        elif selection.active is layer and labels is not None:
            selection.active = labels

    def _layer_removed(self, event: Any) -> None:
        session = self.session
        key, role, _ = role_of(event.value)
        by_hand = role == "instances" and not self._layers.removing
        if by_hand and session.current is not None and session.current.key == key:
            self.shown, self.tool = False, ""
            self.changed.emit()

    # -- the mouse -------------------------------------------------------------------

    def _drag(self, layer: Labels, event: Any) -> Iterator[None]:
        if not self.tool or event.button != 1:
            return
        key = role_of(layer)[0]
        places = [place_of(layer, event)]
        yield
        while event.type == "mouse_move":
            places.append(place_of(layer, event))
            if self.tool == "cut":
                draw_line(layer, places[-2], places[-1])
            yield
        sample = self.session.current
        if sample is not None and sample.key == key:
            self._act(sample, places)

    def _act(self, sample: LiveSample, places: Sequence[Place]) -> None:
        """Do what the tool does where the mouse was."""
        found = self.of(sample)
        if found is None:
            return
        if self.tool == "cut":
            things = self._things()
            self._want(
                sample, partial(cut_by_line, places=tuple(places), classes=things)
            )
            return
        number = object_at(found, places[-1])
        if not number or found.classes[number] not in self._things():
            self.session.complain("There is no object: click one")
            return
        picked, self._picked = self._picked, None
        name = f"{self.session.classes[found.classes[number]].name[:40]} {number}"
        if picked is None or (self.tool == "split" and picked[0] != number):
            self._picked = number, places[-1]
            other = "another place in it" if self.tool == "split" else "another object"
            self.session.say(f"{name}: now click {other}.")
        elif self.tool == "split":
            seeds = [picked[1], places[-1]]
            from napari_ovam.segmentation.instances import split_by_seeds

            self._want(sample, lambda each: split_by_seeds(each, number, seeds))
        else:
            from napari_ovam.segmentation.instances import merge

            chosen = [picked[0], number]
            self._want(sample, lambda each: merge(each, chosen))
