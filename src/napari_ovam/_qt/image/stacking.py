"""Planes of a layer's stack, each made a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam.base.progress import Cancelled
from napari_ovam.images.arrays.stacks import Plane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job

    from .layer_pictures import Source

_AT_ONCE = 4  # pictures in memory that are not written yet


class Stacking:
    """Makes samples of planes; the model does not look at them yet."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def load(self, source: Source, planes: Sequence[tuple[int, ...]]) -> None:
        """Read planes of a layer, and show the first; those that are there stay."""
        session = self.session
        if session.refused():
            return
        if session.opened.read_only:
            session.complain("The open project can only be read: nothing was loaded")
            return
        session.saving.begin()
        known = self._known(source, planes[0])
        wanted = [at for at in planes if at not in known]
        model = session.choice.model
        about = {
            at: {"title": source.title(at), "model": model, **source.about(at)}
            for at in wanted
        }
        made: list[str] = []

        def run(job: Job) -> bool:
            autosave = session.saving.autosave
            for done, at in enumerate(wanted):
                try:
                    job.progress(done, len(wanted))
                    image = source.pictures.read(at, lambda *_: job.check())
                except Cancelled:
                    return False
                if autosave is None:  # the window was closed
                    return False
                title, each = about[at]["title"], about[at]
                made.append(autosave.add_sample(image, None, title, provenance=each))
                if done % _AT_ONCE == _AT_ONCE - 1:
                    session.saving.flush()
            session.saving.flush()
            return True

        def ended() -> None:
            session.samples_changed.emit()
            if made:
                source.lead(session.feature(SampleLayers), made[0])

        def returned(whole: bool) -> None:
            count = f"{len(made)} of {len(wanted)}"
            text = f"{len(made)} planes of {source.name} are samples now: the slider "
            text += "goes through them. Map looks at the one that is shown, Propose "
            text += "labels (☰) at all."
            if not whole:
                text = f"Cancelled: {count} planes of {source.name} are samples now."
            first = made[0] if made else known.get(planes[0])
            if first is not None:
                session.select(first)
            session.say(text)

        session.start(
            "Reading the planes",
            run,
            returned=returned,
            ended=ended,
            kept="The planes before it are samples.",
        )

    def _known(self, source: Source, at: tuple[int, ...]) -> dict[tuple[int, ...], str]:
        """Return the samples of the stack that are there already, by their planes."""
        mine, found = source.plane(at), {}
        for record in self.session.project.samples:
            plane = Plane.of(record.provenance)
            if plane is not None and mine is not None and plane.id == mine.id:
                found[plane.at] = record.name
        return found
