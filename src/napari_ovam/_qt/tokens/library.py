"""The token library of a session: tokens listed, kept, imported."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_ovam._qt.session.background import Loader
from napari_ovam.project.token_library import TokenLibrary, TokenLibraryError

from .library_tasks import picture_of, read_entries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.project.token_library.entry import TokenEntry


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

    # -- library -------------------------------------------------------------------

    def save(self, number: int) -> None:
        """Put the token of a class into the library, with a picture of what it finds.

        The picture is of the image that is shown.
        """
        session = self.session
        entry = session.classes.get(number)
        token = session.view(number).token
        if entry is None or token is None:
            session.complain("There is no token to save: optimize one first")
            return
        token, sample = replace(token, name=entry.name), session.current
        scores = session.view(number).scores
        iou = None if scores is None else scores[1]

        def run(job: Job) -> TokenEntry:
            picture = None
            if sample is not None:
                trace = session.models.trace(sample, job)
                picture = picture_of(token, sample, trace)
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
