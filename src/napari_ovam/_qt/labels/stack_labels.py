"""The labels of all planes of a stack as one layer, for other tools of napari."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels

from napari_ovam._qt.layers.colors import label_colormap, label_features
from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.layers.placement import placed_stack
from napari_ovam.images.arrays.stacks import Plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job


def collect_stack(session: Session) -> None:
    """Add a layer with the labels of all planes of the stack that is shown: a copy."""
    sample = session.current
    plane = sample.plane if sample is not None else None
    if sample is None or plane is None:
        session.complain("The image that is shown is of no stack")
        return
    session.take_all()
    project, size = session.project, sample.shape
    records = session.feature(SampleLayers).stack.records(sample.record)
    here = {s.key: s.edits.now for s in session.samples if s.edits is not None}

    def run(job: Job) -> NDArray[np.uint16]:
        whole = np.zeros((*plane.shape, *size), np.uint16)
        for done, record in enumerate(records):
            job.progress(done, len(records))
            now, its = here.get(record.name), Plane.of(record.provenance)
            labels = (
                project.load_labels(record.name, to_edit=False)
                if now is None
                else now.labels
            )
            if labels is not None and its is not None:
                whole[its.at] = labels
        return whole

    def returned(whole: NDArray[np.uint16]) -> None:
        layer = Labels(
            whole,
            name=f"{plane.name} labels, all planes",
            opacity=0.6,
            colormap=label_colormap(session.classes),
            features=label_features(session.classes),
            **placed_stack(sample, plane),
        )
        session.viewer.add_layer(layer)
        session.say(f"{layer.name}: a copy; what is painted on it is not saved here.")

    session.start("Collecting the labels", run, returned=returned)
