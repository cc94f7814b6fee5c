"""Corrections that learn: tokens are refitted by themselves after each accepted image.

As `improve_tokens` does when a person asks for it, and by its rule: what is better on
accepted images that it did not see is used, and what it replaced can be gone back to.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_ovam._qt.session.background import IdleBackground
from napari_ovam._qt.session.settings import preferences
from napari_ovam.base.ids import IGNORE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_ovam import Token
    from napari_ovam._qt.session.background import Work
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.workflows.improving import Improvement
    from napari_ovam.workflows.refitting import Refitted

_PAUSE = 500  # ms after the last accepted image: who goes on accepting is not held up


class Learning:
    """Learns from accepted images while nothing else runs.

    Attributes
    ----------
    on
        Whether it does.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.on = preferences().learn
        self._background = IdleBackground(session, "Learning", self._failed)
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(_PAUSE)
        self._soon.timeout.connect(self._ask)
        self._accepted: set[str] = set()  # what was looked at, or was there before
        self._wanted: set[int] = set()  # ids of classes that something is new of
        self._learned = False  # anything, in this project
        session.project_changed.connect(self._begin)
        session.sample_changed.connect(self._status_changed)
        for signal in (session.current_changed, session.classes_changed):
            signal.connect(self._renew)

    def close(self) -> None:
        """Stop what runs."""
        self._soon.stop()
        self._background.close()

    @property
    def busy(self) -> bool:
        """Whether something is learned, or waits for it."""
        return self._soon.isActive() or self._background.busy

    def set_on(self, on: bool) -> None:
        """Learn from images that are accepted from now on, or do not."""
        self.on = on
        if not on:
            self._wanted.clear()
            self.close()
        self.changed.emit()

    def _begin(self) -> None:
        self.close()
        self._wanted.clear()
        self._learned = False
        samples = self.session.project.samples
        self._accepted = {s.name for s in samples if s.status == "accepted"}

    def _status_changed(self, key: str) -> None:
        if self.session.projects.status(key) != "accepted":
            self._accepted.discard(key)
        elif key not in self._accepted:
            self._accepted.add(key)
            sample = self.session.sample(key)
            if self.on and sample is not None and sample.edits is not None:
                self._wanted |= sample.edits.now.ids - {0, IGNORE}
                self._soon.start()

    def _ask(self) -> None:
        self._background.ask("learn", self._prepare)

    def _failed(self, error: Exception) -> None:
        self._learned = False  # else each image that is shown would say it again
        self.session.complain(error, "The tokens in use are as they were.")

    @property
    def _able(self) -> bool:
        """Whether it may; other models than the embedded one only once they run."""
        session = self.session
        there = session.choice.model == "tiny" or session.models.has(session.choice)
        return self.on and there and not session.opened.read_only

    # -- learning ------------------------------------------------------------------

    def _prepare(self) -> Work | None:
        session, project = self.session, self.session.project
        ids = [
            entry.id
            for entry in session.classes.active
            if entry.id in self._wanted and session.view(entry.id).learns
        ]
        if not ids or not self._able:
            return None
        choice, layers = session.choice, session.map_layers
        used, accepted = {n: _used(session, n) for n in ids}, set(self._accepted)

        def run(job: Job) -> tuple[Sequence[Improvement], Refitted | None]:
            from napari_ovam.workflows.accepted import usable_images
            from napari_ovam.workflows.improving import ImproveSettings, improve_tokens
            from napari_ovam.workflows.object_token import FEWEST, learn_objects

            def check(*_: int) -> None:
                self._background.give_way(job)

            session.saving.flush()
            settings = ImproveSettings.quick(layers)
            usable, _ = usable_images(project, ids, check)
            enough = [n for n in ids if len(usable[n]) >= settings.fewest]
            different = {name for names in usable.values() for name in names}
            if not enough and len(different) < FEWEST:
                return (), None  # before a model is loaded for nothing
            pipe = session.models.get(choice, job)
            report = improve_tokens(
                project, pipe, enough, settings=settings, progress=check
            )
            objects = learn_objects(project, pipe, settings=settings, progress=check)
            return report.results, objects

        def done(found: tuple[Sequence[Improvement], Refitted | None]) -> None:
            results, objects = found
            if self._accepted == accepted:  # else it is learned once more
                self._wanted -= set(ids)
            if objects is not None and objects.better:
                self._say(
                    f"clicks on objects: {objects.before:.2f} → {objects.after:.2f} "
                    f"from {len(objects.images)} pictures"
                )
            better = {each.id: each for each in results if each.better}
            if better and project is session.project:
                self._background.ask("use", partial(self._use, better, used))

        return run, done

    def _use(
        self, better: Mapping[int, Improvement], used: Mapping[int, object]
    ) -> Work | None:
        """Use the tokens of classes that are as they were when they were compared."""
        session = self.session

        def still(number: int) -> bool:
            there = self.on and number in session.classes
            return there and _used(session, number) == used[number]

        tokens = {n: each.token for n, each in better.items() if still(n)}
        if not tokens:
            return None

        def done(found: Mapping[int, Token | None]) -> None:
            learned = [better[number] for number in found if still(number)]
            self._learned = self._learned or bool(learned)
            for each in learned:
                scores = each.before, each.after
                session.sources.learned(each.id, each.token, scores)
            if learned:
                self._say("; ".join(session.figures(each.id) for each in learned))

        return session.sources.mapping(tokens, done)

    def _say(self, what: str) -> None:
        if self.session.message[1] == "info":  # else more important words would go
            self.session.say(f"Learned: {what}.")

    # -- proposals ---------------------------------------------------------------------

    def _renew(self) -> None:
        """Have the proposals that come next follow what was learned."""
        if self._learned:
            self._background.ask("renew", self._prepare_renewing)

    def _prepare_renewing(self) -> Work | None:
        session, project = self.session, self.session.project
        shown = [] if session.current is None else [session.current.key]
        status, keys = session.projects.status, set(session.projects.keys)
        names = [
            key
            for key in (*shown, *session.projects.near)
            if key in keys and status(key) == "proposed" and session.saving.written(key)
        ]
        if not names or not self._able:
            return None
        choice, layers = session.choice, session.map_layers
        options = dict(session.label_rules.options)

        def run(job: Job) -> tuple[str, ...]:
            from napari_ovam.workflows.proposals import ProposalSettings, propose

            session.saving.flush()
            settings = ProposalSettings(redo="outdated", layers=layers, labels=options)
            report = propose(
                project,
                session.models.get(choice, job),
                names,
                settings=settings,
                progress=lambda *_: self._background.give_way(job),
            )
            return report.proposed

        def done(renewed: tuple[str, ...]) -> None:
            if project is session.project:
                session.projects.refresh(renewed)

        return run, done


def _used(session: Session, number: int) -> object:
    """Return what makes the maps of a class now."""
    entry = session.classes[number]
    return entry.source, entry.phrase, session.view(number).token
