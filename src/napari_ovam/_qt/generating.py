"""Images of a session: generated, or loaded and traced."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from . import tasks
from .edits import Edits
from .state import LiveSample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.images.metadata import ImageMetadata

    from .session import Session
    from .worker import Job


class Images:
    """Makes samples."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def generate(
        self,
        settings: Mapping[str, Any],
        *,
        count: int = 1,
        trace: Mapping[str, Any] | None = None,
    ) -> None:
        """Generate images; each becomes a sample when it is done.

        Parameters
        ----------
        settings, trace
            Fields of `GenerationSettings` and `TraceSettings`, which are made in the
            job: their modules import torch.
        count
            How many images, with one seed after the other.
        """
        if self.session.refused():
            return
        wanted, labels = self.session.maps.wanted()
        choice = self.session.choice
        size: list[tuple[int, int]] = []

        def run(job: Job) -> int:
            from napari_ovam import GenerationSettings, TraceSettings
            from napari_ovam.diffusion import resolve_settings

            pipe = self.session.models.get(choice, job)
            resolved = resolve_settings(pipe, GenerationSettings(**settings))
            size.append((resolved.height or 1, resolved.width or 1))
            return tasks.generate_images(
                self.session.models,
                choice,
                resolved,
                count,
                TraceSettings(**(trace or {})),
                wanted,
                labels,
                job,
            )

        def arrived(value: Any) -> None:
            if isinstance(value, tasks.Preview):
                if self.session.job is None or self.session.job.cancelled:
                    return
                self.session.layers.show_preview(value.picture, size[0])
            else:
                self.session.layers.remove_preview()
                made = self._add_made(value, value.generation.settings.prompt)
                made.exact = _is_exact(trace)

        self.session.start(
            "Generating",
            run,
            returned=lambda _: self._after_images(),
            previewed=arrived,
            ended=self.session.layers.remove_preview,
            kept="Nothing was changed: correct the values and generate again.",
        )

    def load(
        self,
        read: Callable[[], tuple[NDArray[np.uint8], ImageMetadata | None]],
        name: str,
        *,
        prompt: str = "",
        reproduce: bool = True,
    ) -> None:
        """Load an image and trace it.

        Parameters
        ----------
        read
            Returns (H, W, 3) RGB and what the file says of how it was made; called
            in the job's thread.
        name
            Of the sample.
        prompt
            What the image shows.
        reproduce
            Generate an image with settings again, for its exact trace.
        """
        wanted, labels = self.session.maps.wanted()
        choice = self.session.choice
        again: list[bool] = []  # filled in the job where the image is generated again

        def run(job: Job) -> bool:
            from napari_ovam import TraceSettings

            image, metadata = read()
            settings = None
            if metadata is not None and metadata.tool == "napari-ovam":
                settings = metadata.settings()
            if settings is not None and reproduce:
                again.append(True)
                other = tasks.reproduce_image(
                    self.session.models,
                    choice,
                    image,
                    settings,
                    TraceSettings(),
                    wanted,
                    labels,
                    job,
                )
                return other is None
            tasks.trace_images(
                self.session.models,
                choice,
                [(image, prompt)],
                TraceSettings(),
                wanted,
                labels,
                job,
            )
            return True

        def done(same: bool) -> None:
            if same:
                if again and self.session.current is not None:
                    self.session.settings_restored.emit(self.session.current.settings)
                self._after_images()
                return
            self.session.say(
                "These settings make other pixels here (another model, device or "
                "version). Trace the image itself instead?",
                "warning",
            )
            self.session.reproduction_differs.emit(
                partial(self.load, read, name, prompt=prompt, reproduce=False)
            )

        def arrived(made: tasks.Made) -> None:
            self._add_made(made, name, loaded=not again, prompt=prompt)

        self.session.start(
            "Loading the image",
            run,
            returned=done,
            previewed=arrived,
            kept="Nothing was changed.",
        )

    def exact(self) -> None:
        """Run the shown sample again, recording everything in full precision.

        Its maps and proposals are made anew; labels that a person painted stay.
        """
        sample = self.session.current
        if sample is None or sample.trace is None:
            self.session.complain("There is no image: generate or load one first")
            return
        if self.session.refused():
            return
        wanted, labels = self.session.maps.wanted()
        branch = sample.trace.branch
        found: list[tasks.Made] = []

        def run(job: Job) -> bool:
            from napari_ovam import TraceSettings

            trace = TraceSettings(branch, layers=None, calls=None, dtype=None)
            shared = trace, wanted, labels, job
            models, choice = self.session.models, sample.choice
            if sample.settings is None:
                pairs = [(sample.image, sample.prompt)]
                tasks.trace_images(models, choice, pairs, *shared)
                return True
            settings = sample.settings
            other = tasks.reproduce_image(
                models, choice, sample.image, settings, *shared
            )
            return other is None

        def done(same: bool) -> None:
            if not same:
                self.session.say(
                    "Its settings make other pixels here (another model, device or "
                    "version): the trace stays as it was.",
                    "warning",
                )
                return
            (made,) = found
            sample.trace, sample.exact = made.generation.trace, True
            sample.seconds = made.seconds
            if made.maps is not None:
                self.session.maps.take(sample, made.maps)
            if sample is self.session.current:
                self.session.show(sample)
            if sample.edits is not None:
                self.session.labels.propose(sample)
            self.session.current_changed.emit()
            self.session.say("The maps are exact now: everything was recorded.")

        about = f", about {sample.seconds:.0f} s" if sample.seconds >= 1 else ""
        self.session.start(
            f"Running again{about}",
            run,
            returned=done,
            previewed=found.append,
            kept="The trace and maps are as they were.",
        )

    def _add_made(
        self, made: tasks.Made, name: str, *, loaded: bool = False, prompt: str = ""
    ) -> LiveSample:
        generation = made.generation
        sample = LiveSample(
            self._free_name(name or "image"),
            generation.image,
            made.choice,
            trace=generation.trace,
            # How a loaded image was traced does not say how it was made.
            settings=None if loaded else generation.settings,
            prompt=prompt,
            seconds=made.seconds,
        )
        if made.maps is not None:
            self.session.maps.take(sample, made.maps)
        if made.labels is not None:
            sample.edits = Edits(made.labels)
        self.session.samples.append(sample)
        self.session.samples_changed.emit()
        self.session.select(sample.key)
        sample.extra["notes"] = made.notes
        return sample

    def _after_images(self) -> None:
        notes = (
            self.session.current.extra.pop("notes", ()) if self.session.current else ()
        )
        if notes:
            self.session.say(" ".join(notes), "warning")
        else:
            self.session.hint()

    def _free_name(self, name: str) -> str:
        names = {sample.name for sample in self.session.samples}
        number, free = 2, name
        while free in names:
            free, number = f"{name} ({number})", number + 1
        return free


def _is_exact(trace: Mapping[str, Any] | None) -> bool:
    return trace is not None and "dtype" in trace and trace["dtype"] is None
