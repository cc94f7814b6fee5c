"""Proposals and improved tokens of the project of a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_ovam.base.progress import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.workflows.improving import Improvement, ImproveReport
    from napari_ovam.workflows.proposals import ProposalReport, ProposalSettings


@dataclass
class _Run:
    """What a run over images did until it ended."""

    done: int = 0
    cancelled: bool = False
    kept: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Proposing:
    """Proposes labels for images of the project, and improves its tokens.

    The classes, tokens and statuses of the session are written first, so that both
    see what the window shows.
    """

    improved = Signal(object)  # ImproveReport; nothing was changed yet

    def __init__(self, session: Session) -> None:
        self.session = session
        session.more_wanted.connect(self.find_more)

    # -- proposals -----------------------------------------------------------------

    def propose(self, keys: Sequence[str], *, redo: bool = False) -> None:
        """Propose labels for samples; edited and decided ones stay as they are.

        Parameters
        ----------
        keys
            Of the samples.
        redo
            Whether those that are "proposed" are done anew.
        """
        if not self._ready():
            return
        session, project = self.session, self.session.project
        names = list(keys)
        if not names:
            session.complain("There is no image to propose labels for: select some")
            return
        if not session.classes.active:
            ticked = "tick phrases under Classes, or " if len(session.classes) else ""
            session.complain(
                f"No class is looked for: {ticked}type phrases under Maps and press Map"
            )
            return
        settings = self._settings(redo=redo)

        def run(pipe: Any, **how: Any) -> ProposalReport:
            from napari_ovam.workflows.proposals import propose

            return propose(project, pipe, names, settings=settings(), **how)

        self._start(run)

    def find_more(self, number: int) -> None:
        """Look for more of what a class is in the image that is shown, in all others.

        Its labels have to be a person's; others that are not are proposed anew.
        """
        if not self._ready():
            return
        session, project = self.session, self.session.project
        shown = session.current
        if shown is None or number not in session.classes:
            session.complain("There is no image to find more like: open one")
            return
        settings = self._settings(redo=True)

        def run(pipe: Any, **how: Any) -> ProposalReport:
            from napari_ovam.workflows.finding_more import find_more

            return find_more(
                project, pipe, shown.key, number, settings=settings(), **how
            )

        self._start(run)

    def carry_on(self) -> None:
        """Look for the objects of the image that is shown in those that follow it."""
        if not self._ready():
            return
        session, project = self.session, self.session.project
        shown = session.current
        if shown is None:
            session.complain("There is no image to carry on from: open one")
            return
        settings = self._settings(redo=True)

        def run(_: Any, **how: Any) -> ProposalReport:
            from napari_ovam.workflows.carrying_on import carry_on

            return carry_on(project, shown.key, settings=settings(), **how)

        self._start(run, model=False)

    def _settings(self, *, redo: bool) -> Callable[[], ProposalSettings]:
        """Return what makes the settings, in a thread: they import much."""
        layers, options = self.session.map_layers, self.session.label_rules.options
        options = dict(options)  # as they are now

        def make() -> ProposalSettings:
            from napari_ovam.workflows.proposals import ProposalSettings

            return ProposalSettings(redo=redo, layers=layers, labels=options)

        return make

    def _start(
        self, propose: Callable[..., ProposalReport], *, model: bool = True
    ) -> None:
        session, choice = self.session, self.session.choice

        def run(job: Job) -> _Run:
            found = _Run()

            def written(name: str) -> None:
                found.done += 1
                job.post(name)

            try:
                session.saving.flush()
                pipe = session.models.get(choice, job) if model else None
                report = propose(pipe, progress=_counting(job), written=written)
            except Cancelled:  # what was written stays
                found.cancelled = True
            else:
                found.kept, found.failed = report.kept, report.failed
                found.notes = report.notes()
            return found

        session.start(
            "Proposing labels",
            run,
            returned=self._proposed,
            previewed=lambda name: session.projects.refresh([name]),
            kept="Labels that were proposed before that are kept.",
        )

    def _proposed(self, found: _Run) -> None:
        text = f"{_images(found.done)} got labels"
        if found.cancelled:
            self.session.say(
                f"Cancelled: {text}, which are kept; Propose labels goes on from there."
            )
            return
        notes = []
        before = sum("proposed" in reason for reason in found.kept.values())
        if before:
            notes.append(f"{before} had some from before")
        if len(found.kept) > before:
            notes.append(f"{len(found.kept) - before} of your own were not touched")
        text = "; ".join([text, *notes]) + "."
        if found.failed:
            name, reason = next(iter(found.failed.items()))
            text += f" {_images(len(found.failed))} failed, such as {name}: {reason}."
        elif found.done:
            text += " Go through them, correct and accept."
        text = " ".join([text, *found.notes])
        self.session.say(text, "warning" if found.failed else "info")

    # -- tokens --------------------------------------------------------------------

    def improve(self) -> None:
        """Optimize tokens on the accepted images; `improved` shows what came of it.

        Nothing is changed before `use`.
        """
        if not self._ready():
            return
        session, project = self.session, self.session.project
        if not len(session.classes):
            session.complain(
                "There is no class yet: type a phrase under Maps and press Map"
            )
            return
        statuses = map(session.projects.status, session.projects.keys)
        if "accepted" not in statuses:
            session.complain(
                "No image is accepted yet: correct labels and accept them, so that "
                "tokens can learn from them"
            )
            return
        choice, layers = session.choice, session.map_layers

        def run(job: Job) -> ImproveReport:
            from napari_ovam.workflows.improving import ImproveSettings, improve_tokens

            session.saving.flush()
            pipe = session.models.get(choice, job)
            settings = ImproveSettings(store="never", layers=layers)
            return improve_tokens(
                project, pipe, settings=settings, progress=job.progress
            )

        session.start(
            "Improving tokens",
            run,
            returned=self._improved,
            kept="The tokens in use are as they were.",
        )

    def _improved(self, report: ImproveReport) -> None:
        if not report.results:
            reasons = list(report.failed.items()) or list(report.skipped.items())
            name, why = reasons[0]
            self.session.complain(f"No token could be made: {name}: {why}")
            return
        better = sum(each.better for each in report.results)
        text = f"{better} of {len(report.results)} new tokens are better."
        if any(not each.left_out for each in report.results):
            text += " Of one accepted image the figures say little: accept more."
        self.session.say(f"{text} Choose which to use; nothing is changed yet.")
        self.improved.emit(report)

    def use(self, results: Sequence[Improvement]) -> None:
        """Give classes their new tokens; the library keeps the ones they had."""
        tokens = {
            each.id: each.token for each in results if each.id in self.session.classes
        }
        if not tokens:
            self.session.say("The tokens in use are as they were.")
            return
        scores = {each.id: (each.before, each.after) for each in results}
        self.session.sources.give(tokens, scores)

    # -- inside --------------------------------------------------------------------

    def _ready(self) -> bool:
        """Whether the project can be worked on now; else say what keeps it from it."""
        session = self.session
        if session.opened.read_only:
            session.complain(f"{session.opened.path} can only be read")
            return False
        if session.refused():
            return False
        session.take_edits(session.current)
        return True


def _counting(job: Job) -> Any:
    """Return a progress callback that takes calls without figures as a check."""

    def progress(done: int, total: int) -> None:
        job.check()
        if total:
            job.progress(done, total)

    return progress


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"
