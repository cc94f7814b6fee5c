"""Tokens of a session: optimized from labels, and saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam._qt.session import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_ovam import OptimizationSettings
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam._qt.session.worker import Job


class Tokens:
    """Optimizes tokens of classes, and reads and writes their files."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def optimize(
        self,
        number: int,
        samples: Sequence[LiveSample],
        settings: Callable[[], OptimizationSettings] | None = None,
        left: int = 0,
    ) -> None:
        """Optimize a token for a class from the labels of samples.

        `left` is how many others a person may have meant as well.
        """
        session = self.session
        usable = self._usable(number, samples)
        if not usable:
            return
        phrase, layers = session.classes[number].phrase, session.map_layers
        request = tasks.MapRequest(number, phrase, layers=layers)
        choice = usable[0].choice
        labels = [s.edits.labels for s in usable if s.edits]
        images = [s.image for s in usable]
        warnings = []
        if left:
            warnings.append(
                f"{left} edited images that were not shown lately are left out: "
                "Improve tokens… (☰) learns from all that are accepted."
            )
        if any(s.edits and s.edits.are_proposal for s in usable):
            warnings.append(
                "These labels are still exactly the map, so a token can learn little "
                "from them: correct them with the brush for a better one."
            )
        warning = " ".join(warnings)

        def run(job: Job) -> tasks.Optimized:
            from napari_ovam import labels_to_target

            traces = [session.models.trace(sample, job) for sample in usable]
            targets = [labels_to_target(each, number) for each in labels]
            made = settings() if settings is not None else None
            return tasks.optimize(
                session.models,
                choice,
                request,
                traces,
                images,
                targets,
                made,
                job,
            )

        live = _LiveMap(session, usable[0], number)
        job = session.start(
            "Optimizing",
            run,
            returned=lambda result: self._optimized(number, result, warning),
            previewed=live.step,
            ended=live.restore,
            kept="The token in use and all labels are as they were.",
        )
        if job is not None and warning:
            session.say(f"Optimizing… {warning}", "warning")

    def _usable(self, number: int, samples: Sequence[LiveSample]) -> list[LiveSample]:
        """Return the samples whose labels hold a class; none, and why, without."""
        session = self.session
        if number not in session.classes:
            session.complain("There is no class yet: map a phrase first")
            return []
        for sample in samples:
            session.take_edits(sample)
        labelled = [s for s in samples if not s.unlabelled]
        usable = [s for s in labelled if s.edits and number in s.edits.now.ids]
        if not labelled:
            session.complain(
                "There are no labels to learn from: paint some, or press Map and "
                "Labels from maps"
            )
        elif not usable:
            session.complain(
                f"No pixel of these labels is {session.classes[number].name}: paint it "
                "first, or choose another class"
            )
        return usable

    def _optimized(self, number: int, result: tasks.Optimized, warning: str) -> None:
        session = self.session
        if number not in session.classes:  # removed meanwhile
            session.complain("The class of the token is gone, and with it the token")
            return
        session.sources.keep(number, result.token, (result.before, result.after))
        cancelled = bool(result.token.info.get("cancelled"))
        better = result.after > result.before
        figures = f"IoU {result.before:.2f} → {result.after:.2f}"
        if cancelled:
            session.say(f"Cancelled; the best token so far is kept ({figures}).")
        elif better:
            text = f"The token is better and is used ({figures}). {warning}".strip()
            session.sources.use(number, "token", text)
        else:
            session.say(
                f"The token is no better than the phrase ({figures}): the phrase stays "
                f"in use. {warning}".strip(),
                "warning",
            )
        session.classes_changed.emit()

    def save_token(self, number: int, path: str) -> None:
        """Write the token of a class to a file."""
        token = self.session.view(number).token
        if token is None:
            self.session.complain("There is no token to save: optimize one first")
            return

        def run(_: Job) -> None:
            from napari_ovam import save_token

            save_token(token, path)

        self.session.start(
            "Saving", run, returned=lambda _: self.session.say(f"Saved to {path}.")
        )


class _LiveMap:
    """The map layer of a class, which shows each step of an optimization."""

    def __init__(self, session: Session, sample: LiveSample, number: int) -> None:
        self._session, self._sample, self._number = session, sample, number
        self._layer = session.layers.find(sample.key, "map", number)

    @property
    def _shown(self) -> Any:  # a person may have removed it meanwhile
        return self._layer if self._layer in self._session.viewer.layers else None

    def step(self, value: tasks.Step) -> None:
        """Show one step."""
        self._session.optimized_step.emit(value.index, value.loss)
        if (layer := self._shown) is not None:
            layer.data = value.map
            down, right = np.divide(self._sample.shape, value.map.shape).tolist()
            self._session.layers.place(layer, self._sample, (down, right))

    def restore(self) -> None:
        """Show the map again."""
        if (layer := self._shown) is not None:
            self._session.layers.place(layer, self._sample, (1.0, 1.0))
            layer.data = self._sample.maps.get(self._number, layer.data)
