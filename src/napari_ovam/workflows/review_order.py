"""Which proposals to look at first: the least sure ones. Without any heavy import."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_ovam.project import Sample

UNSURE = "unsure"
"""In what a sample's provenance says of its proposal: its `doubtful_share`."""


def how_unsure(sample: Sample) -> float:
    """Return how unsure the labels are that were proposed for a sample, from 0.

    It is -1 where nothing is proposed, or it is not known.
    """
    found = sample.told("proposed_by").get(UNSURE)
    if sample.status != "proposed" or not isinstance(found, int | float):
        return -1.0
    return float(found)
