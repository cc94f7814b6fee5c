"""Images of a session: generated, or loaded and traced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.session import tasks
from napari_ovam._qt.session.edits import Edits
from napari_ovam.base.prompt_syntax import plain_prompt
from napari_ovam.images.arrays.stacks import STACK

from .images import LOOK, SeveralPages, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample, ModelChoice
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.base.progress import Progress
    from napari_ovam.images.metadata import ImageMetadata

    Read = Callable[[Progress], tuple[NDArray[np.uint8], ImageMetadata | None]]

_STAYS = "The trace of the image itself stays."


class Images:
    """Makes samples."""

    reproducible = Signal(str, object)  # model, what makes a loaded image with it again
    reproduced = Signal(str)  # the model that did
    syntax_found = Signal(str, object)  # what is no word of a prompt; loads without it
    pages_found = Signal(object)  # SeveralPages: one of them is to be chosen
    differs = Signal(object)  # what loads the picture in spite of other pixels

    def __init__(self, session: Session) -> None:
        self.session = session
        self._layers = session.feature(SampleLayers)
        session.actions["exact"] = self.exact

    def generate(
        self,
        settings: Mapping[str, Any],
        *,
        count: int = 1,
        trace: Mapping[str, Any] | None = None,
        frames: int | None = None,
    ) -> None:
        """Generate images; each becomes a sample when it is done.

        Parameters
        ----------
        settings, trace
            Fields of `GenerationSettings` and `TraceSettings`, which are made in the
            job: their modules import torch.
        count
            How many images, with one seed after the other.
        frames
            How many of a video, where the model makes one; None for its own default.
        """
        if self.session.refused():
            return
        prompt = str(settings["prompt"])
        undo = self._look_for(prompt)
        if undo is None:
            return
        maker = self.maker(self.session.choice, prompt)
        size: list[tuple[int, int]] = []
        made: list[LiveSample] = []

        def run(job: Job) -> None:
            from napari_ovam import GenerationSettings, TraceSettings
            from napari_ovam.diffusion.generation import resolve_settings

            pipe = maker.models.get(maker.choice, job)
            resolved = resolve_settings(pipe, GenerationSettings(**settings))
            size.append((resolved.height or 1, resolved.width or 1))
            recorded = TraceSettings(**(trace or {}))
            maker.generate(job, resolved, count, recorded, frames)

        def arrived(value: Any) -> None:
            if isinstance(value, tasks.Preview):
                if self.session.job is None or self.session.job.cancelled:
                    return
                self._layers.show_preview(value.picture, size[0])
            else:
                self._layers.remove_preview()
                plane, name = value.plane, value.generation.settings.prompt
                about = {} if plane is None else {STACK: plane.as_json()}
                name += plane.ending if plane is not None else ""
                made.append(self.add_made(value, name, about=about))
                made[-1].exact = _is_exact(trace)

        self.session.start(
            "Generating",
            run,
            returned=lambda _: self.after_images(),
            previewed=arrived,
            ended=self._layers.remove_preview,
            undo=lambda: None if made else undo(),
            kept="Nothing was changed: correct the values and generate again.",
        )
        self.session.classes_changed.emit()

    def _look_for(self, prompt: str) -> Callable[[], None] | None:
        """Use the phrases for a new image; return what undoes it, None if refused."""
        session = self.session
        phrases = session.phrases.look_for(prompt) if session.at_once else []
        if not phrases:
            return lambda: None
        return session.class_changes.use_phrases(phrases)

    def load(
        self,
        read: Read,
        name: str,
        *,
        prompt: str = "",
        look: Mapping[str, Any] | None = None,
        reproduce: bool | None = None,
        plain: bool = False,
        about: Mapping[str, Any] | None = None,
        added: Callable[[str], object] | None = None,
    ) -> None:
        """Load an image and trace it.

        Parameters
        ----------
        read
            Returns (H, W, 3) RGB and what the file says of how it was made; called
            in the job's thread with what takes its progress.
        name
            Of the sample.
        prompt
            What the image shows, where the file does not say so.
        look
            As in `tasks.Maker.trace`.
        reproduce
            Generate it again, for its exact trace. None does so with images of ours,
            and offers it where another tool names a model that is on this machine.
        plain
            Take weights and tags of other tools out of the prompt that the file names.
        about
            What else is known of it: where it lies, which plane of a stack it is.
        added
            Called with the key of the sample, once it is there.
        """
        load = _Load(
            self, read, name, prompt, look or {}, reproduce, about or {}, added, plain
        )
        self.session.start(
            "Loading the image",
            load.run,
            returned=load.done,
            previewed=load.arrived,
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
        maker, branch = self.maker(sample.choice), sample.trace.branch
        found: list[tasks.Made] = []

        def run(job: Job) -> bool:
            from napari_ovam import TraceSettings

            trace = TraceSettings(branch, layers=None, calls=None, dtype=None)
            if sample.settings is not None:
                return maker.reproduce(job, sample.image, sample.settings, trace)
            prompt = str(sample.about.get("prompt") or "")
            look = {k: v for k, v in sample.about.items() if k in LOOK}
            maker.trace(job, sample.image, prompt, trace, look)
            return True

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
                self.session.take_maps(sample, made.maps)
            if sample is self.session.current:
                self.session.show(sample)
            self.session.maps_changed.emit(sample)
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

    def maker(self, choice: ModelChoice, prompt: str | None = None) -> tasks.Maker:
        """Return what makes images, with maps and labels as they are wanted now."""
        session = self.session
        wanted, labels = session.map_requests(prompt), session.automatic_labels()
        return tasks.Maker(session.models, choice, wanted, labels)

    def add_made(
        self,
        made: tasks.Made,
        name: str,
        *,
        loaded: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> LiveSample:
        """Add an image that a model made, or looked at, and show it."""
        generation = made.generation
        maps = made.maps.maps if made.maps is not None else {}
        about_maps = self.session.describe_maps(generation.trace.model)
        sample = self.session.projects.add(
            generation.image,
            self._free_name(name or "image"),
            about=about,
            # How a loaded image was traced does not say how it was made.
            settings=None if loaded else generation.settings,
            trace=generation.trace,
            choice=made.choice,
            seconds=made.seconds,
            maps=dict(maps),
            edits=None if made.labels is None else Edits(made.labels, about=about_maps),
            found=made.labels,
            probabilities=made.probabilities,
        )
        if made.maps is not None:
            self.session.take_maps(sample, made.maps)
        sample.extra["notes"] = made.notes
        return sample

    def after_images(self, told: str = "", *, look: bool = False) -> None:
        """Look for the phrases, or say what is next, after what there is to say."""
        notes = (
            self.session.current.extra.pop("notes", ()) if self.session.current else ()
        )
        news = " ".join([*notes, told]).strip()
        self.session.tell_next(news, "warning" if notes else "info")
        if look:
            self.session.do("look")
        else:
            self.session.hint()

    def _free_name(self, name: str) -> str:
        projects = self.session.projects
        names = {projects.title(key) for key in projects.keys}
        number, free = 2, name
        while free in names:
            free, number = f"{name} ({number})", number + 1
        return free


@dataclass
class _Load:
    """An image that is being loaded: see `Images.load`."""

    images: Images
    read: Read
    name: str
    prompt: str
    look: Mapping[str, Any]
    reproduce: bool | None
    about: Mapping[str, Any]
    added: Callable[[str], object] | None
    plain: bool
    found: Told | None = None
    pages: SeveralPages | None = None

    def __post_init__(self) -> None:
        session = self.images.session
        self._maker = self.images.maker(session.choice)
        if session.at_once:  # once the prompt is known that the file may name
            self._maker = replace(self._maker, wanted=())

    def run(self, job: Job) -> bool:
        """Read and trace it; False where other pixels came out, or pages were found."""
        from napari_ovam import TraceSettings

        maker, choice = self._maker, self._maker.choice
        try:
            image, metadata = self.read(job.progress)
        except SeveralPages as several:
            self.pages = several  # returned, a job would take it for its error
            return False
        self.found = found = Told.of(metadata, choice.model, plain=self.plain)
        ours = found.ours if self.reproduce is None else self.reproduce
        if found.settings is not None and ours:
            used = replace(choice, model=found.model or choice.model)
            maker, found.again = replace(maker, choice=used), True
            return maker.reproduce(job, image, found.settings, TraceSettings())
        prompt = found.prompt or self.prompt
        maker.trace(job, image, prompt, TraceSettings(), self.look)
        return True

    def arrived(self, made: tasks.Made) -> None:
        """Add what was traced."""
        found = self.found or Told(None, None, "")
        about = dict(self.about)
        if not found.again:
            about |= {"prompt": found.prompt or self.prompt, **self.look}
        if found.metadata is not None and found.metadata.raw:
            about["source"] = found.metadata.as_source(self.name)
        loaded = not found.again
        sample = self.images.add_made(made, self.name, loaded=loaded, about=about)
        if self.added is not None:
            self.added(sample.key)

    def done(self, same: bool) -> None:
        """Say what came of it, and what else can be done with the file."""
        images, session, found = self.images, self.images.session, self.found
        if self.pages is not None:
            session.say(f"{self.pages}.")
            images.pages_found.emit(self.pages)
        if found is None:
            return
        if found.settings is not None:
            session.settings_restored.emit(found.settings)
        taken = plain_prompt(found.prompt)[1]
        if same and taken and not found.again:
            images.syntax_found.emit(
                ", ".join(taken)[:300], self._again_with(plain=True)
            )
        if same:
            if found.again and found.model:
                images.reproduced.emit(found.model)
            images.after_images(found.note, look=self._looks())
            if self.reproduce is None and found.can_be_offered:
                images.reproducible.emit(found.model, self._again_with(reproduce=True))
            return
        asks = self.reproduce is None
        session.say(
            "These settings make other pixels here (another model, device or "
            f"version). {found.note} "
            + ("Trace the image itself instead?" if asks else _STAYS),
            "warning",
        )
        if asks:
            images.differs.emit(self._again_with(reproduce=False))

    def _looks(self) -> bool:
        session = self.images.session
        return session.at_once and bool(session.phrases.text.strip())

    def _again_with(self, **values: bool) -> Callable[[], None]:
        known: dict[str, Any] = {
            "prompt": self.prompt,
            "look": self.look,
            "reproduce": self.reproduce,
            "about": self.about,
            "added": self.added,
            "plain": self.plain,
        }
        return partial(self.images.load, self.read, self.name, **{**known, **values})


def _is_exact(trace: Mapping[str, Any] | None) -> bool:
    return trace is not None and "dtype" in trace and trace["dtype"] is None
