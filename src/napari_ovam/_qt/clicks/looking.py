"""Answers clicks on a sample; runs in the background's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam._qt.session.edits import Snapshot
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam.segmentation.click_evidence import Click
    from napari_ovam.segmentation.clicks import ClickMask, ClickSegmenter


class Looking:
    """Keeps what no click changes of the sample that was looked at last."""

    def __init__(self) -> None:
        self._segmenter: tuple[Any, ClickSegmenter | None] = (None, None)
        self._base: tuple[Any, NDArray[np.bool_] | None] = (None, None)

    def look(
        self,
        sample: LiveSample,
        labels: Snapshot,
        number: int,
        clicks: tuple[Click, ...],
        box: Any,
    ) -> ClickMask | None:
        """Return what clicks on a class of some labels give.

        None without clicks: it is made ready for them.
        """
        segmenter = self._prepared(sample, number)
        if not clicks and box is None:
            return None
        key = labels, number
        if self._base[0] != key:
            self._base = key, labels.labels == number
        return segmenter(clicks, box=box, mask=self._base[1])

    def _prepared(self, sample: LiveSample, number: int) -> ClickSegmenter:
        from napari_ovam.segmentation.clicks import ClickSegmenter
        from napari_ovam.workflows.object_token import load_object_token
        from napari_ovam.workflows.sample_trace import saved_trace

        if sample.trace is None:
            sample.trace = saved_trace(sample.project, sample.key)
        key = sample, sample.trace, id(sample.maps.get(number))
        if self._segmenter[0] != key:
            trace = sample.trace
            model = trace.model if trace is not None else ""
            objects = load_object_token(sample.project, model)
            found = ClickSegmenter(
                trace, sample.image, sample.maps.get(number), objects
            )
            self._segmenter = key, found
        found_now = self._segmenter[1]
        assert found_now is not None  # noqa: S101 (just made)
        return found_now


def described(clicks: tuple[Click, ...], box: Any) -> dict[str, Any]:
    """Return what labels were made by, as `project.history.Change` has it."""
    places = [[round(c.row, 1), round(c.column, 1), c.positive] for c in clicks]
    return {"by": "click", "clicks": places, **({"box": box} if box else {})}
