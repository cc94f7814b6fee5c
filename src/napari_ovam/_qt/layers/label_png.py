"""Label PNGs that napari opened as pictures: shown as labels, with their classes.

Label PNGs have no ending of their own. A reader for every PNG would make napari ask
which reader to use for each of them, so napari's own opens it, and the session turns
it into labels where a class table is beside it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QTimer

from napari_ovam._qt.session.state import UNSURE
from napari_ovam.images.png import read_ids

from .layers import SampleLayers
from .marked import role_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer

    from napari_ovam._qt.session.session import Session
    from napari_ovam.datasets.exporters import LabelClass

CLASS_TABLE = "classes.json"


class LayerWatch:
    """Shows label PNGs as labels, and keeps labels whose layer a person removed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._layers = session.feature(SampleLayers)
        events = session.viewer.layers.events
        events.inserted.connect(self._inserted)
        events.removed.connect(self._removed)

    def _inserted(self, event: Any) -> None:
        if not self.session.closed and label_png(event.value) is not None:
            # napari is not done with the layer yet
            call = partial(self.session.guarded, self._as_labels, event.value)
            QTimer.singleShot(0, call)

    def _as_labels(self, layer: Layer) -> None:
        """Show a label PNG that napari opened as a picture as the labels that it is."""
        found, layers = label_png(layer), self.session.viewer.layers
        if self.session.closed or found is None or layer not in layers:
            return
        labels = read_label_png(*found)
        index = layers.index(layer)
        layers.remove(layer)
        layers.insert(index, labels)
        self.session.say(
            f"{found[0].name} is shown as labels, with the classes beside it."
        )

    def _removed(self, event: Any) -> None:
        key, role, _ = role_of(event.value)
        session, sample = self.session, self.session.sample(key)
        if sample is None or session.closed or self._layers.removing:
            return
        if role == "labels":
            session.guarded(partial(session.take_edits, sample), event.value)
        if role in ("labels", "image"):
            are, them = ("are", "them") if role == "labels" else ("is", "it")
            session.say(
                f"The {role} of {sample.name} {are} kept: Labels from maps shows "
                f"{them} again.",
                "warning",
            )


def label_png(layer: Layer) -> tuple[Path, Path] | None:
    """Return the files of labels and class table, if a layer shows a label PNG."""
    source = getattr(layer.source, "path", None)
    if not source or not isinstance(layer, ImageLayer) or role_of(layer)[1]:
        return None
    path = Path(source)
    if path.suffix.lower() != ".png":
        return None
    table = next((each for each in _tables(path) if each.is_file()), None)
    return None if table is None else (path, table)


def read_label_png(path: Path, table: Path) -> Labels:
    """Return a layer of (H, W) uint16 class ids with the names and colours of a table.

    Raises
    ------
    ValueError
        If the PNG is no image of ids, or the table is none.
    """
    classes = read_classes(table)
    colours: dict[int | None, Any] = {
        0: (0, 0, 0, 0),
        UNSURE: (0.62, 0.62, 0.62, 1),
        None: (1, 0, 1, 1),
    }
    for entry in classes:
        red, green, blue = entry.color or (255, 0, 255)
        colours[entry.id] = (red / 255, green / 255, blue / 255, 1)
    rows = [(0, "background"), (UNSURE, "unsure"), *((c.id, c.name) for c in classes)]
    rows.sort()
    return Labels(
        read_ids(path).astype(np.uint16),
        name=path.stem,
        features={"index": [i for i, _ in rows], "name": [n for _, n in rows]},
        colormap=DirectLabelColormap(color_dict=colours),
        opacity=0.6,
    )


def _tables(path: Path) -> list[Path]:
    """Return where the classes of a label PNG may be: its own, or its dataset's."""
    places = [path.with_name(f"{path.stem}.{CLASS_TABLE}"), path.with_name(CLASS_TABLE)]
    # In an exported folder, labels/NAME.png; not the image of that name beside it.
    if path.parent.name == "labels":
        places.append(path.parents[1] / CLASS_TABLE)
    return places


def read_classes(path: Path) -> list[LabelClass]:
    """Read the class table of an exported dataset, or of a work folder.

    It raises `ValueError` if it is none, or its classes do not fit together.
    """
    from napari_ovam.datasets.class_colors import PALETTE
    from napari_ovam.datasets.class_lists import read_class_list
    from napari_ovam.datasets.exporters.dataset import check_classes

    listed = read_class_list(path)
    if any(entry.id is None for entry in listed):
        raise ValueError(f"{path} is no class table: its classes have no ids")
    ids = [entry.id or 0 for entry in listed]
    classes = [
        label_class(i, e.name, e.color or PALETTE[(i - 1) % len(PALETTE)])
        for i, e in zip(ids, listed, strict=True)
    ]
    return list(check_classes(classes))


def label_class(number: int, name: str, colour: Sequence[Any]) -> LabelClass:
    """Return a class of an id, a name and a colour of three numbers, 0 to 255."""
    from napari_ovam.datasets.exporters import LabelClass

    red, green, blue = (int(value) for value in colour)
    return LabelClass(number, name, (red, green, blue))
