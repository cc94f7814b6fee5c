"""The token library of a session: tokens listed, given to classes, kept, compared."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_ovam._qt.image.loading import Loader
from napari_ovam._qt.session import tasks
from napari_ovam._qt.session.library_tasks import (
    Compared,
    check_all,
    compared,
    keep,
    picture_of,
    read_entries,
)
from napari_ovam.project.token_library import TokenLibrary, TokenLibraryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qtpy.QtCore import QMimeData

    from napari_ovam import Token
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.attention.trace import Trace
    from napari_ovam.project.token_library.entry import TokenEntry

MIME = "application/x-napari-ovam-token"
"""What is dragged out of the library: the path of a token's file."""


class Library:
    """The user's tokens, and what can be done with them.

    Files are read and written in jobs and in a thread.

    Attributes
    ----------
    entries
        As they were read last.
    model
        Hash of the text encoder that tokens are used with; "" where it is not known
        yet.
    """

    changed = Signal()
    compared = Signal(object)  # Compared

    def __init__(self, session: Session) -> None:
        self.session = session
        self.entries: list[TokenEntry] = []
        self.model = ""
        self._filter: dict[str, Any] = {}
        self._wanted = 0  # of the lists that were asked for, the last counts
        self._loader = Loader()
        self._loader.loaded.connect(self._listed)

    def close(self) -> None:
        """End the thread."""
        self._loader.close()

    def reload(self) -> None:
        """List the tokens anew, in a thread."""
        session = self.session
        trace = None if session.current is None else session.current.trace
        self._wanted += 1
        read = partial(
            read_entries, session.models, session.choice, trace, self._filter
        )
        self._loader.load(str(self._wanted), read, now=True)

    def set_filter(self, text: str, sort: str, *, descending: bool = False) -> None:
        """List tokens whose name or phrase holds a text, sorted by a `SortKey`."""
        self._filter = {"text": text, "sort": sort, "descending": descending}
        self.reload()

    def _listed(self, number: str, found: object) -> None:
        if self.session.closed or number != str(self._wanted):
            return
        if isinstance(found, Exception):
            self.session.complain(found, "The token library could not be read.")
        elif isinstance(found, tuple):
            self.entries, self.model = found
            self.changed.emit()

    def why_not(self, entry: TokenEntry) -> str:
        """Return why a token cannot be used with the model; empty if it can."""
        if entry.damaged:
            return f"damaged: {entry.damaged}"
        if self.model and entry.model and entry.model != self.model:
            return "belongs to another model"
        return ""

    # -- classes -------------------------------------------------------------------

    def use(self, number: int, token: Token | Path | str) -> None:
        """Use a token for a class from now on.

        Parameters
        ----------
        number
            Id of the class.
        token
            A token, or a file of the library.
        """
        if number not in self.session.classes:
            self.session.complain(f"There is no class {number} to use a token for")
            return
        self.give({number: token})

    def give(
        self,
        tokens: Mapping[int, Token | Path | str],
        scores: Mapping[int, tuple[float, float]] | None = None,
    ) -> None:
        """Give classes tokens and use them; the library keeps the ones they had."""
        session = self.session
        if session.refused():
            return
        if session.saving.read_only:
            session.complain("The open project can only be read")
            return
        entries = {number: session.classes[number] for number in tokens}
        old = {e.name: e.token for e in entries.values() if e.token is not None}
        samples = [s for s in session.samples if s.trace is not None]
        layers, choice = session.maps.layers, session.choice

        def run(job: Job) -> tuple[dict[int, Token], list[tasks.Maps]]:
            library = TokenLibrary()
            found = {
                i: library.load(t) if isinstance(t, str | Path) else t
                for i, t in tokens.items()
            }
            check_all(found, session.models.get(choice, job))
            wanted = [
                tasks.MapRequest(i, entries[i].phrase, token, layers)
                for i, token in found.items()
            ]
            maps = [
                tasks.make_maps(session.models, s.choice, s.trace, wanted, job)
                for s in samples
                if s.trace is not None
            ]
            for name, token in old.items():
                if not any(token is new for new in found.values()):
                    keep(library, replace(token, name=name))
            return found, maps

        def done(result: tuple[dict[int, Token], list[tasks.Maps]]) -> None:
            found, maps = result
            given = []
            for number, token in found.items():
                entry = session.classes.get(number)
                if entry is None:
                    continue  # removed meanwhile
                given.append(entry.name)
                entry.token, entry.source = token, "token"
                entry.thresholds["token"] = None
                entry.scores = (scores or {}).get(number)
            self._show(samples, maps, list(found))
            session.classes_changed.emit()
            names = ", ".join(given)
            session.say(
                f"Tokens are used for {names}."
                if len(given) > 1
                else f"The token is used for {names}."
            )
            if old:
                self.reload()

        session.start(
            "Using the token",
            run,
            returned=done,
            kept="The tokens in use are as they were.",
        )

    def _show(
        self,
        samples: Sequence[LiveSample],
        maps: Sequence[tasks.Maps],
        numbers: Sequence[int],
    ) -> None:
        """Show maps that were made anew, and labels of them."""
        session = self.session
        for sample, made in zip(samples, maps, strict=True):
            for number in numbers:
                entry = session.classes.get(number)
                if entry is None:
                    continue
                sample.maps[number] = made.maps[number]
                if sample is session.current and entry.active:
                    session.layers.show_map(sample, entry, session.maps.opacity)
            if sample.edits is not None:
                session.labels.propose(sample)

    # -- library -------------------------------------------------------------------

    def save(self, number: int) -> None:
        """Put the token of a class into the library, with a picture of what it finds.

        The picture is of the image that is shown.
        """
        session = self.session
        entry = session.classes.get(number)
        if entry is None or entry.token is None:
            session.complain("There is no token to save: optimize one first")
            return
        token, sample = replace(entry.token, name=entry.name), session.current
        iou = None if entry.scores is None else entry.scores[1]

        def run(job: Job) -> TokenEntry:
            picture = None
            if sample is not None:
                picture = picture_of(token, sample, self._trace(sample, job))
            return TokenLibrary().add(token, iou=iou, preview=picture)

        def done(found: TokenEntry) -> None:
            session.say(
                f"The token of {entry.name} is in the library as {found.path.stem}."
            )
            self.reload()

        session.start("Saving the token", run, returned=done)

    def remove(self, paths: Sequence[Path]) -> None:
        """Move tokens to the library's folder of removed ones."""

        def run(_: Job) -> list[Path]:
            library = TokenLibrary()
            return [library.remove(path) for path in paths]

        def done(gone: list[Path]) -> None:
            names = ", ".join(path.stem for path in gone)
            self.session.say(f"Removed {names}. It waits in {gone[0].parent}.")

        self.session.start(
            "Removing", run, returned=done, ended=self.reload, kept="The rest is there."
        )

    def restore(self) -> None:
        """Put back every token that was removed."""

        def run(_: Job) -> int:
            library = TokenLibrary()
            return len([library.restore(each.path) for each in library.removed()])

        self.session.start(
            "Putting back",
            run,
            returned=lambda n: self.session.say(f"{n} removed tokens are back."),
            ended=self.reload,
        )

    def import_file(self, path: Path) -> None:
        """Add all tokens of a file, the reference's included."""
        session, choice = self.session, self.session.choice

        def run(job: Job) -> tuple[list[TokenEntry], str]:
            library = TokenLibrary()
            try:
                return library.import_file(path), ""
            except TokenLibraryError:  # rows alone: they take the model's start token
                pipe = session.models.get(choice, job)
                from napari_ovam.diffusion.phrases import text_space

                space = text_space(pipe)
                return library.import_file(path, target=space), choice.model

        def done(result: tuple[list[TokenEntry], str]) -> None:
            found, model = result
            text = f"{len(found)} token{'s' * (len(found) != 1)} imported."
            if model:
                text += f" Their background is the start token of {model}."
            if any(not each.model for each in found):
                text += " The file does not say which model they are for."
            session.say(text)

        session.start(
            "Importing tokens",
            run,
            returned=done,
            ended=self.reload,
            kept="The library is as it was.",
        )

    def export(self, token: Path, path: Path) -> None:
        """Write a token to a new file, `.safetensors` or the reference's `.npy`."""
        self.session.start(
            "Exporting the token",
            lambda _: TokenLibrary().export(token, path),
            returned=lambda made: self.session.say(f"Saved to {made}."),
        )

    def compare(self, first: Path, second: Path) -> None:
        """Compare two tokens, on the image that is shown where there is one."""
        session, sample = self.session, self.session.current
        if sample is not None:
            session.labels.take_edits(sample)
        labels = None if sample is None or sample.edits is None else sample.edits.labels
        classes = [(e.id, e.name, e.phrase) for e in session.classes]

        def run(job: Job) -> Compared:
            return compared(
                first, second, sample, labels, classes, partial(self._trace, job=job)
            )

        session.start("Comparing", run, returned=self.compared.emit)

    def _trace(self, sample: LiveSample, job: Job) -> Trace | None:
        if sample.trace is None and self.session.projects.opened is not None:
            sample.trace = self.session.projects.trace(sample, job)
        return sample.trace


def dragged_token(mime: QMimeData | None) -> Path | None:
    """Return the file of a token that is dragged, if one is; for drop targets."""
    if mime is None or not mime.hasFormat(MIME):
        return None
    return Path(bytes(mime.data(MIME).data()).decode())
