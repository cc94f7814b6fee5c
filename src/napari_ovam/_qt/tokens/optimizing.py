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
    ) -> None:
        """Optimize a token for a class from the labels of samples."""
        if number not in self.session.classes:
            self.session.complain("There is no class yet: map a phrase first")
            return
        entry = self.session.classes[number]
        usable = [s for s in samples if s.trace is not None and s.edits is not None]
        if not usable:
            self.session.complain(
                "There are no labels to learn from: press Labels from maps"
            )
            return
        for sample in usable:
            self.session.take_edits(sample)
        usable = [s for s in usable if s.edits and (s.edits.labels == number).any()]
        if not usable:
            self.session.complain(
                f"No pixel of these labels is {entry.name}: paint it first, or choose "
                "another class"
            )
            return
        untouched = [s for s in usable if s.edits and s.edits.are_proposal]
        layers = self.session.map_layers
        refine = self.session.label_rules.refine
        request = tasks.MapRequest(entry.id, entry.phrase, layers=layers)
        choice = usable[0].choice
        labels = [s.edits.labels.copy() for s in usable if s.edits]
        traces = [s.trace for s in usable if s.trace is not None]
        images = [s.image for s in usable]
        keys = [s.key for s in usable]
        warning = ""
        if untouched:
            warning = (
                "These labels are still exactly the map, so a token can learn little "
                "from them: correct them with the brush for a better one."
            )

        def run(job: Job) -> tasks.Optimized:
            from napari_ovam import labels_to_target

            targets = [labels_to_target(each, number) for each in labels]
            made = settings() if settings is not None else None
            return tasks.optimize(
                self.session.models,
                choice,
                request,
                traces,
                images,
                targets,
                made,
                refine,
                job,
            )

        live: Any = self.session.layers.find(keys[0], "map", number)

        def shown() -> Any:  # a person may have removed it meanwhile
            return live if live in self.session.viewer.layers else None

        def step(value: tasks.Step) -> None:
            self.session.optimized_step.emit(value.index, value.loss)
            if (layer := shown()) is not None:
                layer.data = value.map
                scale = np.divide(usable[0].shape, value.map.shape)
                if not np.array_equal(layer.scale, scale):  # each costs a drawing
                    layer.scale = scale

        def ended() -> None:
            if (layer := shown()) is not None:
                layer.scale = (1, 1)
                layer.data = usable[0].maps.get(number, layer.data)

        job = self.session.start(
            "Optimizing",
            run,
            returned=lambda result: self._optimized(number, result, warning),
            previewed=step,
            ended=ended,
            kept="The token in use and all labels are as they were.",
        )
        if job is not None and warning:
            self.session.say(f"Optimizing… {warning}", "warning")

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
