"""What is kept of a dataset: a second look at the scores of all its images.

Nothing is deleted: what is not kept is rejected, and says why.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from napari_ovam.workflows.dataset.plan import Plan

_FEWEST = 20
"""Of fewer images the percentiles of a class's area say nothing."""

REASONS = ("blank", "empty", "area", "presence", "agreement", "unsure", "clip")


class Ledger:
    """The scores of all images that are made, in little memory.

    Parameters
    ----------
    plan
        The plan.
    records
        Of its shards.
    """

    def __init__(self, plan: Plan, records: Iterable[Mapping[str, Any]]) -> None:
        self._plan = plan
        self.made = array("q")
        self.failed = array("q")
        images = {name: array("d") for name in ("blank", "unsure", "clip")}
        # For each class that an image is expected to show:
        place, number = array("q"), array("q")
        scores = {name: array("d") for name in ("area", "presence", "agreement")}
        for record in records:
            self.failed.extend(each["item"] for each in record["failures"])
            for row in record["rows"]:
                found = row["scores"]
                for name, values in images.items():
                    values.append(found.get(name, np.nan))
                expected = plan.prompt(row["item"]).classes
                for each in expected:
                    place.append(len(self.made))
                    number.append(each)
                    of = found["classes"][str(each)]
                    for name, values in scores.items():
                        values.append(of.get(name, np.nan))
                self.made.append(row["item"])
        self._place, self._class = np.asarray(place), np.asarray(number)
        self._scores = {
            n: np.asarray(values) for n, values in (images | scores).items()
        }

    def verdicts(self) -> dict[str, NDArray[np.bool_]]:
        """Return which images each filter rejects, in the order of `made`."""
        filters = self._plan.filters
        none = np.zeros(len(self.made), bool)
        found = dict.fromkeys(REASONS, none)
        if filters.blank is not None:
            found["blank"] = self._scores["blank"] >= filters.blank
        if filters.unsure is not None:
            found["unsure"] = self._scores["unsure"] >= filters.unsure
        if filters.clip is not None:  # not where it is unknown
            found["clip"] = self._scores["clip"] < filters.clip
        area = self._scores["area"]
        found["empty"] = self._images(area == 0)
        if filters.area is not None:
            found["area"] = self._images(self._outside(area, *filters.area))
        for name in ("presence", "agreement"):
            least = getattr(filters, name)
            if least is not None:
                found[name] = self._images(self._scores[name] < least)
        return found

    def rejected(self) -> dict[int, list[str]]:
        """Return why images are rejected, by the places of their items."""
        reasons: dict[int, list[str]] = {}
        for name, wrong in self.verdicts().items():
            for place in np.flatnonzero(wrong):
                reasons.setdefault(self.made[place], []).append(name)
        return reasons

    def kept(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return how many images are kept of each class, and of each density."""
        good = ~np.any([*self.verdicts().values()], 0)
        ids, counts = np.unique(self._class[good[self._place]], return_counts=True)
        dense = np.bincount(self._place, minlength=len(self.made))[good]
        many, images = np.unique(dense, return_counts=True)
        return (
            dict(zip(ids.tolist(), counts.tolist(), strict=True)),
            dict(zip(many.tolist(), images.tolist(), strict=True)),
        )

    def _images(self, wrong: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which images have a class with which something is wrong."""
        found = np.zeros(len(self.made), bool)
        found[self._place[wrong]] = True
        return found

    def _outside(
        self, area: NDArray[np.float64], low: float, high: float
    ) -> NDArray[np.bool_]:
        outside = np.zeros(len(area), bool)
        for number in np.unique(self._class):
            mine = (self._class == number) & (area > 0)
            if mine.sum() >= _FEWEST:
                least, most = np.percentile(area[mine], (low, high))
                outside |= mine & ((area < least) | (area > most))
        return outside


def next_items(plan: Plan, ledger: Ledger) -> list[int]:
    """Return the items that are made next, by their places; none when all is done.

    All that are not made yet, in the order of the plan; where there are quotas, as many
    of them as are wanted still, going by how many were kept so far.
    """
    done = {*ledger.made, *ledger.failed}
    left = (number for number in range(len(plan)) if number not in done)
    if not plan.quotas and not plan.densities:
        return list(left)
    kept, dense = ledger.kept()
    made = len(done)
    good = sum(dense.values())
    # Of ten that are made not less than one is taken to be kept.
    rate = max(0.1, good / made) if made else 1.0
    wanted = {i: (n - kept.get(i, 0)) / rate for i, n in plan.quotas.items()}
    room = {i: (n - dense.get(i, 0)) / rate for i, n in plan.densities.items()}
    chosen = []
    for number in left:
        named = plan.prompt(number).classes
        useful = any(wanted.get(i, 0) > 0 for i in named) or not plan.quotas
        if not useful or (plan.densities and room.get(len(named), 0) <= 0):
            continue
        chosen.append(number)
        for each in named:
            wanted[each] = wanted.get(each, 0) - 1
        room[len(named)] = room.get(len(named), 0) - 1
    return chosen


def missing(plan: Plan, ledger: Ledger) -> dict[str, int]:
    """Return how many images each quota lacks, by what it is of."""
    kept, dense = ledger.kept()
    lacking = {
        repr(plan.by_id[i].name): n - kept.get(i, 0) for i, n in plan.quotas.items()
    }
    lacking |= {
        f"{i} class{'es' * (i != 1)}": n - dense.get(i, 0)
        for i, n in plan.densities.items()
    }
    return {name: count for name, count in lacking.items() if count > 0}
