"""Images of a session: generated, or loaded and traced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_ovam._qt.layers.placement import PLACEMENT
from napari_ovam._qt.session import tasks
from napari_ovam._qt.session.edits import Edits
from napari_ovam._qt.session.state import LiveSample
from napari_ovam.base.prompt_syntax import plain_prompt

from .images import LOOK, SeveralPages, model_here

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.base.generation_settings import GenerationSettings
    from napari_ovam.images.metadata import ImageMetadata


_STAYS = "The trace of the image itself stays."


@dataclass
class _Told:
    """What a file says, as far as it matters for loading it.

    Attributes
    ----------
    settings
        How it was made, None without a prompt.
    model
        What to load for the model that it names; "" where that is not here.
    again
        Whether it was generated again.
    """

    metadata: ImageMetadata | None
    settings: GenerationSettings | None
    model: str
    again: bool = False

    @classmethod
    def of(
        cls, metadata: ImageMetadata | None, chosen: str, *, plain: bool = False
    ) -> _Told:
        if metadata is None:
            return cls(None, None, "")
        settings = metadata.settings()
        if plain and settings is not None:
            settings = replace(settings, prompt=plain_prompt(settings.prompt)[0])
        return cls(metadata, settings, model_here(metadata.model, chosen) or "")

    @property
    def ours(self) -> bool:
        return self.metadata is not None and self.metadata.tool == "napari-ovam"

    @property
    def prompt(self) -> str:
        return self.settings.prompt if self.settings is not None else ""

    @property
    def note(self) -> str:
        return self.metadata.describe() if self.metadata is not None else ""

    @property
    def can_be_offered(self) -> bool:
        """Whether the model that made it may make it again: it and the seed are known.

        What was generated again already needs no offer.
        """
        known = self.metadata is not None and self.metadata.seed is not None
        return known and bool(self.model) and not (self.again or self.settings is None)


class Images:
    """Makes samples."""

    reproducible = Signal(str, object)  # model, what makes a loaded image with it again
    reproduced = Signal(str)  # the model that did
    syntax_found = Signal(str, object)  # what is no word of a prompt; loads without it
    pages_found = Signal(object)  # SeveralPages: one of them is to be chosen

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
            from napari_ovam.diffusion.generation import resolve_settings

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
        look: Mapping[str, Any] | None = None,
        reproduce: bool | None = None,
        plain: bool = False,
        placement: Mapping[str, Any] | None = None,
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
            What the image shows, where the file does not say so.
        look
            As in `tasks.trace_images`.
        reproduce
            Generate it again, for its exact trace. None does so with images of ours,
            and offers it where another tool names a model that is on this machine.
        plain
            Take weights and tags of other tools out of the prompt that the file names.
        placement
            Where the image lies in the world, as of `placement_of`.
        """
        wanted, labels = self.session.maps.wanted()
        choice = self.session.choice
        told: list[_Told] = []
        pages: list[SeveralPages] = []

        def run(job: Job) -> bool:
            from napari_ovam import TraceSettings

            try:
                image, metadata = read()
            except SeveralPages as several:
                pages.append(several)  # returned, a job would take it for its error
                return False
            found = _Told.of(metadata, choice.model, plain=plain)
            told.append(found)
            shared = TraceSettings(), wanted, labels, job
            models = self.session.models
            if found.settings is not None and (
                found.ours if reproduce is None else reproduce
            ):
                used = replace(choice, model=found.model or choice.model)
                settings = found.settings
                found.again = True
                other = tasks.reproduce_image(models, used, image, settings, *shared)
                return other is None
            pairs = [(image, found.prompt or prompt)]
            tasks.trace_images(models, choice, pairs, *shared, look)
            return True

        def arrived(made: tasks.Made) -> None:
            found = told[0]
            about: dict[str, Any] = {}
            if not found.again:
                about = {"prompt": found.prompt or prompt, **(look or {})}
            if placement:
                about[PLACEMENT] = dict(placement)
            if found.metadata is not None and found.metadata.raw:
                about["source"] = found.metadata.as_source(name)
            self._add_made(made, name, loaded=not found.again, about=about)

        def done(same: bool) -> None:
            if pages:
                self.session.say(f"{pages[0]}.")
                self.pages_found.emit(pages[0])
                return
            (found,) = told
            if found.settings is not None:
                self.session.settings_restored.emit(found.settings)
            again = partial(self.load, read, name, prompt=prompt, look=look)
            taken = plain_prompt(found.prompt)[1]
            if same and taken and not found.again:
                self.syntax_found.emit(
                    ", ".join(taken)[:300], partial(again, plain=True)
                )
            if same:
                if found.again and found.model:
                    self.reproduced.emit(found.model)
                self._after_images(found.note)
                if reproduce is None and found.can_be_offered:
                    self.reproducible.emit(found.model, partial(again, reproduce=True))
                return
            self.session.say(
                "These settings make other pixels here (another model, device or "
                f"version). {found.note} "
                + ("Trace the image itself instead?" if reproduce is None else _STAYS),
                "warning",
            )
            if reproduce is None:
                self.session.reproduction_differs.emit(partial(again, reproduce=False))

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
                look = {k: v for k, v in sample.about.items() if k in LOOK}
                tasks.trace_images(models, choice, pairs, *shared, look)
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
        self,
        made: tasks.Made,
        name: str,
        *,
        loaded: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> LiveSample:
        generation = made.generation
        sample = LiveSample(
            self._free_name(name or "image"),
            generation.image,
            made.choice,
            trace=generation.trace,
            # How a loaded image was traced does not say how it was made.
            settings=None if loaded else generation.settings,
            prompt=generation.settings.prompt if loaded else "",
            seconds=made.seconds,
            about=dict(about or {}),
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

    def _after_images(self, told: str = "") -> None:
        notes = (
            self.session.current.extra.pop("notes", ()) if self.session.current else ()
        )
        self.session.hint()
        text, _ = self.session.message
        if notes:
            self.session.say(" ".join([*notes, told]).strip(), "warning")
        elif told:
            self.session.say(f"{told} {text}")

    def _free_name(self, name: str) -> str:
        names = {sample.name for sample in self.session.samples}
        number, free = 2, name
        while free in names:
            free, number = f"{name} ({number})", number + 1
        return free


def _is_exact(trace: Mapping[str, Any] | None) -> bool:
    return trace is not None and "dtype" in trace and trace["dtype"] is None
