"""Going through the samples of a session: filter, accept, reject."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_ovam._qt.session.state import DECIDED
from napari_ovam.workflows.review_order import how_unsure

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session
    from napari_ovam.project.index import Status


class Review:
    """Moves through the samples and says what is done with them.

    Attributes
    ----------
    status
        Of the samples that are gone through; empty for all.
    text
        What their titles contain.
    unsure_first
        Whether those whose proposals are least sure come first, and else all in the
        order of the project.
    """

    filter_changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self._projects = session.projects
        self.status = ""
        self.text = ""
        self.unsure_first = False
        session.project_changed.connect(self.clear_filter)
        session.projects.selected.connect(self._look_ahead)
        session.actions |= {
            "next": partial(self.step, 1),
            "previous": partial(self.step, -1),
            "next_open": partial(self.step, 1, open_only=True),
            "accept": self.accept,
            "reject": self.reject,
        }

    def _look_ahead(self, key: str) -> None:
        """Have what is likely to be shown next read."""
        self._projects.near = (self.neighbour(1, of=key), self.neighbour(-1, of=key))

    def matches(self, key: str) -> bool:
        """Whether a sample is among those that are gone through."""
        return self.status in ("", self._projects.status(key)) and (
            self.text.casefold() in self._projects.title(key).casefold()
        )

    def shown(self) -> list[str]:
        """Return the keys of the samples that are gone through."""
        keys = self._ordered()
        if not self.status and not self.text:
            return keys
        return [key for key in keys if self.matches(key)]

    def _ordered(self) -> list[str]:
        samples = self.session.project.samples
        if self.unsure_first:  # of equals, the order stays
            samples = sorted(samples, key=how_unsure, reverse=True)
        return [sample.name for sample in samples]

    def set_order(self, *, unsure_first: bool) -> None:
        """Go through the samples whose proposals are least sure first, or not."""
        self.unsure_first = unsure_first
        self.filter_changed.emit()

    def set_filter(self, *, status: str | None = None, text: str | None = None) -> None:
        """Go through samples of one status, or whose titles contain a text."""
        self.status = self.status if status is None else status
        self.text = self.text if text is None else text.strip()
        self.filter_changed.emit()

    def clear_filter(self) -> None:
        """Go through all samples."""
        self.set_filter(status="", text="")

    def neighbour(self, by: int, *, open_only: bool = False, of: str = "") -> str:
        """Return the next (1) or previous (-1) sample; empty where there is none.

        Parameters
        ----------
        open_only
            Only one that was neither accepted nor rejected; after the last comes the
            first.
        of
            Of which; by default of the one that is shown, or will be in a moment.
        """
        projects, shown = self._projects, self.session.current
        keys = self._ordered()
        waited = projects.wanted or projects.unread  # a broken one is passed by
        current = of or waited or (shown.key if shown else "")
        if current not in keys:
            return next(iter(self.shown()), "")
        at = keys.index(current)
        after = keys[at + 1 :] if by > 0 else keys[:at][::-1]
        if open_only:
            after += keys[:at] if by > 0 else keys[:at:-1]
            after = [key for key in after if projects.status(key) not in DECIDED]
        return next((key for key in after if self.matches(key)), "")

    def show(self, key: str) -> None:
        """Show a sample, and say what can be done with it."""
        self.session.select(key)
        if not self.session.busy:
            self.session.hint()

    def step(self, by: int, *, open_only: bool = False) -> None:
        """Show the next or previous sample that the filter lets through."""
        key = self.neighbour(by, open_only=open_only)
        if key:
            self.show(key)
            return
        kind = " that is not reviewed" if open_only else ""
        which = "before" if by < 0 and not open_only else "after"
        self.session.say(f"There is no image{kind} {which} this one in the list.")

    def accept(self) -> None:
        """Accept the labels that are shown, and show the next sample."""
        self._decide("accepted")

    def reject(self) -> None:
        """Leave the sample that is shown out of exports, and show the next one."""
        self._decide("rejected")

    def _decide(self, status: Status) -> None:
        session, sample = self.session, self.session.current
        if sample is None:
            session.complain("There is no image to decide on")
            return
        opened, wanted = session.opened, self._projects.wanted
        if opened.read_only:
            session.complain(f"{opened.path} can only be read")
            return
        if wanted not in ("", sample.key):  # a key too fast would decide on what was
            title = self._projects.title(wanted)
            session.say(f"{title} is being read: decide once it is shown.")
            return
        session.take_edits(sample)
        if status == "accepted":
            if sample.edits is None:
                session.complain(
                    f"{sample.name} has no labels yet: make some, or reject it"
                )
                return
            if unknown := session.unknown_ids(sample):
                session.complain(
                    f"Label {unknown[0]} has no class: create it under Labels, or "
                    "erase it, before you accept"
                )
                return
        following = self.neighbour(1)
        session.set_status(sample, status)
        session.saving.write_labels(sample)
        session.saving.save_index()
        if following:
            session.select(following)
        last = "" if following else " It was the last one of the list."
        session.say(f"{sample.name} is {status}.{last}")
