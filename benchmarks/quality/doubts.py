"""How well the uncertainty layer leads to what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from downstream import ids_of, tokens_of
from scipy.stats import rankdata, spearmanr

from napari_ovam import LabelSettings, iou, joint_map
from napari_ovam.segmentation.class_maps import label_maker
from napari_ovam.segmentation.thresholds import THRESHOLD
from napari_ovam.segmentation.uncertainty import DOUBTFUL, uncertainty

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
        ids = [data.names.index(name) + 1 for name in wanted]
        maps = [joint_map(trace, tokens[name]) for name in wanted]
        maker = label_maker(dict(zip(ids, maps, strict=True)), scene.image)
        labels = maker.labels(LabelSettings(THRESHOLD))
        exact, doubt = ids_of(scene, data), uncertainty(maker.maps, THRESHOLD)
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
        shares.append((doubt >= DOUBTFUL).sum() / max((labels > 0).sum(), 1))
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
