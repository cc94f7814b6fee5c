"""What makes the maps of classes: phrases or tokens; the one way to give a token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.project.token_library import TokenLibrary

from .state import Former
from .tasks import MapRequest, make_maps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_ovam import Token
    from napari_ovam.datasets.project_class import Source

    from .background import Work
    from .saving import Saving
    from .tasks import Maps
    from .worker import Job
    from .workspace import Workspace


class Sources:
    """Chooses phrase or token of classes, and maps the samples in memory anew."""

    def __init__(self, session: Workspace, saving: Saving) -> None:
        self.session, self.saving = session, saving

    def use(self, number: int, source: Source, text: str = "") -> None:
        """Use the phrase or the token of a class from now on, and say `text`."""
        session, entry = self.session, self.session.classes[number]
        token = session.view(number).token
        if source == "token" and token is None:
            session.complain(f"{entry.name} has no token yet: optimize or load one")
            return
        token = token if source == "token" else None
        text = text or f"{entry.name} is mapped by its {source}."

        def done(found: Mapping[int, Token | None]) -> None:
            if number in found:
                session.classes.change(number, source=source)
            session.say(text)

        kept = "The source in use is as it was."
        self._map({number: token}, done, "Mapping", kept, check=False)

    def give(
        self,
        tokens: Mapping[int, Token | Path | str],
        scores: Mapping[int, tuple[float, float]] | None = None,
    ) -> None:
        """Give classes tokens and use them; the library keeps the ones they had.

        Parameters
        ----------
        tokens
            By the ids of the classes: tokens, or files of them.
        scores
            IoU before and after, where they are known.
        """
        session = self.session
        if session.opened.read_only:
            session.complain("The open project can only be read")
            return
        gone = [number for number in tokens if number not in session.classes]
        if gone:
            session.complain(f"There is no class {gone[0]} to use a token for")
            return

        def done(found: Mapping[int, Token | None]) -> None:
            for number, token in found.items():
                if token is not None:
                    self.keep(number, token, (scores or {}).get(number), use=True)
            names = ", ".join(session.classes[number].name for number in found)
            what = "Tokens are" if len(found) > 1 else "The token is"
            session.say(f"{what} used for {names}.")

        kept = "The tokens in use are as they were."
        self._map(tokens, done, "Using the token", kept, check=True)

    def keep(
        self,
        number: int,
        token: Token,
        scores: tuple[float, float] | None = None,
        *,
        use: bool = False,
    ) -> None:
        """Give a class a token that is known to fit, whether or not it is used."""
        session, entry = self.session, self.session.classes[number]
        view = session.view(number)
        view.token, view.scores = token, scores
        view.former, view.learns = None, True
        values: dict[str, Any] = {"thresholds": {**entry.thresholds, "token": None}}
        if use:
            values["source"] = "token"
        session.classes.change(number, **values)
        self.saving.save_token(number, token)

    def learned(self, number: int, token: Token, scores: tuple[float, float]) -> None:
        """Use a token that was learned by itself; `back` goes back to what was."""
        entry, view = self.session.classes[number], self.session.view(number)
        former = Former(entry.source, entry.thresholds, view.token, view.scores)
        self.keep(number, token, scores, use=True)
        view.former = former

    def back(self, number: int) -> None:
        """Use what a class had before it learned by itself; it learns no more."""
        session = self.session
        former = session.view(number).former
        if former is None:
            session.complain(f"{session.classes[number].name} has learned nothing")
            return
        token = former.token if former.source == "token" else None

        def done(found: Mapping[int, Token | None]) -> None:
            if number not in found:
                return
            if former.token is not None:
                self.keep(number, former.token, former.scores)
            values: Any = {"source": former.source, "thresholds": former.thresholds}
            session.classes.change(number, **values)
            view = session.view(number)
            view.former, view.learns = None, False
            session.say(
                f"{session.classes[number].name} is mapped by its former "
                f"{former.source}. It learns again once you give it a token."
            )

        kept = "The source in use is as it was."
        self._map({number: token}, done, "Mapping", kept, check=False)

    def _map(
        self,
        tokens: Mapping[int, Token | Path | str | None],
        done: Callable[[Mapping[int, Token | None]], None],
        title: str,
        kept: str,
        *,
        check: bool,
    ) -> None:
        """Map by tokens or phrases as a long task; see `mapping`."""
        session = self.session
        if session.refused():
            session.classes_changed.emit()  # a switch goes back
            return
        run, returned = self.mapping(tokens, done, check=check)
        session.start(
            title,
            run,
            returned=returned,
            undo=session.classes_changed.emit,
            kept=kept,
        )

    def mapping(
        self,
        tokens: Mapping[int, Token | Path | str | None],
        done: Callable[[Mapping[int, Token | None]], None],
        *,
        check: bool = False,
    ) -> Work:
        """Return what maps each sample in memory by the tokens or phrases of classes.

        Then `done` is called with what is used for each class that is still there.
        Mapping refuses tokens of another model; `check` them where there is nothing to
        map.
        """
        session = self.session
        choice, layers = session.choice, session.map_layers
        phrases = {number: session.classes[number].phrase for number in tokens}
        samples = [
            s
            for s in session.samples
            # Labels of one that was never mapped came from elsewhere, and stay.
            if s.trace is not None and (s.maps or s.edits is None)
        ]

        def run(job: Job) -> tuple[dict[int, Token | None], list[Maps]]:
            found: dict[int, Token | None] = {}
            for number, token in tokens.items():
                found[number] = token = _read(token)
                if token is not None and check and not samples:
                    from napari_ovam.attention.tokens import check_token
                    from napari_ovam.diffusion.phrases import text_space

                    pipe = session.models.get(choice, job)
                    check_token(token, text_space(pipe))
            wanted = [
                MapRequest(number, phrases[number], token, layers)
                for number, token in found.items()
            ]
            maps = [
                make_maps(session.models, s.choice, s.trace, wanted, job)
                for s in samples
                if s.trace is not None
            ]
            return found, maps

        def returned(result: tuple[dict[int, Token | None], list[Maps]]) -> None:
            found, maps = result
            found = {n: t for n, t in found.items() if n in session.classes}
            done(found)
            for sample, made in zip(samples, maps, strict=True):
                sample.maps.update({n: made.maps[n] for n in found})
                for number in found:
                    if sample is session.current and session.classes[number].active:
                        session.layers.show_map(sample, number)
                session.maps_changed.emit(sample)
            session.classes_changed.emit()

        return run, returned


def _read(token: Token | Path | str | None) -> Token | None:
    """Return a token, or what the library's or another file of one holds."""
    if not isinstance(token, str | Path):
        return token
    path = Path(token)
    if path.is_absolute():
        from napari_ovam import load_token

        return load_token(path)
    return TokenLibrary().load(token)
