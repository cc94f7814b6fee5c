"""Tokens of a session: optimized, loaded, put to use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam._qt.session import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_ovam import OptimizationSettings, Token
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import ClassEntry, LiveSample
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.datasets.classes import Source


class Tokens:
    """Optimizes tokens and chooses what makes a class's maps."""

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
            self.session.labels.take_edits(sample)
        usable = [s for s in usable if s.edits and (s.edits.labels == number).any()]
        if not usable:
            self.session.complain(
                f"No pixel of these labels is {entry.name}: paint it first, or choose "
                "another class"
            )
            return
        untouched = [s for s in usable if s.edits and s.edits.are_proposal]
        layers = self.session.maps.layers
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
            returned=lambda result: self._optimized(entry, result, warning),
            previewed=step,
            ended=ended,
            kept="The token in use and all labels are as they were.",
        )
        if job is not None and warning:
            self.session.say(f"Optimizing… {warning}", "warning")

    def _optimized(
        self, entry: ClassEntry, result: tasks.Optimized, warning: str
    ) -> None:
        entry.token = result.token
        entry.thresholds["token"] = None
        entry.scores = (result.before, result.after)
        cancelled = bool(result.token.info.get("cancelled"))
        better = result.after > result.before
        self.session.optimized.emit(entry.id)
        figures = f"IoU {result.before:.2f} → {result.after:.2f}"
        if cancelled:
            self.session.say(f"Cancelled; the best token so far is kept ({figures}).")
        elif better:
            text = f"The token is better and is used ({figures}). {warning}".strip()
            self.use(entry.id, "token", text)
        else:
            self.session.say(
                f"The token is no better than the phrase ({figures}): the phrase stays "
                f"in use. {warning}".strip(),
                "warning",
            )
        self.session.classes_changed.emit()

    def set_token(self, number: int, token: Token) -> None:
        """Give a class a token, such as one from a file, and use it."""
        entry = self.session.classes[number]
        text = f"The token {token.name} is used for {entry.name}."
        self._use(entry, "token", replace(entry, token=token, scores=None), text)

    def save_token(self, number: int, path: str) -> None:
        """Write the token of a class to a file."""
        token = self.session.classes[number].token
        if token is None:
            self.session.complain("There is no token to save: optimize one first")
            return

        def run(_: Job) -> None:
            from napari_ovam import save_token

            save_token(token, path)

        self.session.start(
            "Saving", run, returned=lambda _: self.session.say(f"Saved to {path}.")
        )

    def load_token(self, number: int, path: str) -> None:
        """Read a token from a file and use it for a class."""

        def run(_: Job) -> Token:
            from napari_ovam import load_token

            return load_token(path)

        self.session.start(
            "Loading the token",
            run,
            returned=lambda token: self.set_token(number, token),
            kept="The token in use is as it was.",
        )

    def use(self, number: int, source: Source, text: str = "") -> None:
        """Use the phrase or the token of a class and map every sample anew."""
        entry = self.session.classes[number]
        if source == "token" and entry.token is None:
            self.session.complain(
                f"{entry.name} has no token yet: optimize or load one"
            )
            return
        self._use(
            entry, source, entry, text or f"{entry.name} is mapped by its {source}."
        )

    def _use(
        self, entry: ClassEntry, source: Source, wanted: ClassEntry, text: str
    ) -> None:
        """Map every sample by the source and token of `wanted`, then take them over."""
        if self.session.refused():
            self.session.classes_changed.emit()  # the switch goes back
            return
        wanted = replace(wanted, source=source)
        request = tasks.MapRequest(
            wanted.id,
            wanted.phrase,
            wanted.token_in_use,
            self.session.maps.layers,
        )
        samples = [s for s in self.session.samples if s.trace is not None]

        def run(job: Job) -> list[tasks.Maps]:
            return [
                tasks.make_maps(self.session.models, s.choice, s.trace, [request], job)
                for s in samples
                if s.trace is not None
            ]

        def done(results: list[tasks.Maps]) -> None:
            entry.source, entry.token = source, wanted.token
            entry.scores = wanted.scores
            for sample, maps in zip(samples, results, strict=True):
                sample.maps[entry.id] = maps.maps[entry.id]
                if sample is self.session.current and entry.active:
                    self.session.layers.show_map(
                        sample, entry, self.session.maps.opacity
                    )
                if sample.edits is not None:
                    self.session.labels.propose(sample)
            self.session.classes_changed.emit()
            self.session.say(text)

        self.session.start(
            "Mapping",
            run,
            returned=done,
            undo=self.session.classes_changed.emit,
            kept="The source in use is as it was.",
        )
