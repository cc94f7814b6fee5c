"""How well the uncertainty layer leads to what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from downstream import ids_of, tokens_of
from methods import otsu
from scipy.stats import rankdata, spearmanr

from napari_ovam import iou, joint_map, maps_to_labels
from napari_ovam.segmentation.labels import MEASURED
from napari_ovam.segmentation.refine import refine
from napari_ovam.segmentation.uncertainty import uncertainty

if TYPE_CHECKING:
    from data import Data


def doubts(data: Data) -> list[dict[str, Any]]:
    """Return how uncertainty and errors go together on the test scenes.

    Labels and maps are those of tokens from one annotated scene, with their words.
    """
    tokens = {name: tokens_of(data, name) for name in data.names}
    areas, places, overlaps, shares = [], {0.02: [], 0.05: [], 0.1: []}, [], []
    for scene in data.of("test"):
        trace, wanted = data.trace(scene).fine(), list(scene.classes)
        maps = np.stack([joint_map(trace, tokens[name]) for name in wanted])
        maps = refine(maps, scene.image)
        ids = [data.names.index(name) + 1 for name in wanted]
        labels, exact = maps_to_labels(maps, MEASURED, ids=ids), ids_of(scene, data)
        doubt = uncertainty(maps, [otsu(each) for each in maps])
        wrong = (labels != exact).ravel()
        ranks = rankdata(doubt.ravel())
        count = wrong.sum()
        if 0 < count < wrong.size:
            above = ranks[wrong].sum() - count * (count + 1) / 2
            areas.append(above / (count * (wrong.size - count)))
            order = np.argsort(-doubt.ravel(), kind="stable")
            for budget, found in places.items():
                found.append(wrong[order[: round(budget * wrong.size)]].sum() / count)
        overlaps.append(np.mean([iou(labels == i, exact == i) for i in ids]))
        shares.append((doubt >= 0.8).sum() / max((labels > 0).sum(), 1))
    return [
        {
            "auc": round(float(np.mean(areas)), 4),
            "errors_in": {
                f"{b:g}": round(float(np.mean(v)), 4) for b, v in places.items()
            },
            "rank_correlation": round(float(spearmanr(shares, overlaps)[0]), 4),
            "images": len(overlaps),
        }
    ]
