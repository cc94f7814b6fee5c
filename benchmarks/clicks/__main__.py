"""How good are masks from clicks? Clicks simulated in the middle of the largest error.

    python benchmarks/clicks                         # composed and generated pictures
    python benchmarks/clicks --photographs FOLDER    # and photographs (index.json)
    python benchmarks/clicks --split development
    python benchmarks/clicks --object-token OUT      # optimize the shipped token anew

Mean IoU after 1, 2, 3, 5 and 10 clicks; how many are needed for 0.85 and 0.90 (10 where
they do not suffice), as in papers on interactive segmentation; the largest fall of the
mean from one click to the next; milliseconds a click (of the processor, and of the
clock), and to prepare a picture.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from worlds import SPLITS, Target, Worlds

from napari_ovam import (
    Click,
    ClickSegmenter,
    Token,
    encode_phrase,
    iou,
    optimize_token,
    save_token,
)
from napari_ovam.attention import cells as cells_module
from napari_ovam.attention.cells import cell_map
from napari_ovam.project import Project
from napari_ovam.workflows.improving import ImproveSettings
from napari_ovam.workflows.object_token import learn_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLICKS = 10
AFTER = (1, 2, 3, 5, 10)
WANTED = (0.85, 0.90)
ENOUGH = 0.995
ACCEPTED = 8


def colours(target: Target) -> ClickSegmenter:
    return ClickSegmenter(None, target.image)


def cells(target: Target) -> ClickSegmenter:
    """Go by the cells' likeness alone, as with a model without a token of objects."""
    return ClickSegmenter(replace(target.trace, model=""), target.image)


def objects(target: Target) -> ClickSegmenter:
    return ClickSegmenter(target.trace, target.image)


def learned(target: Target) -> ClickSegmenter | None:
    """Go by the token that a project learned from eight accepted scenes, if it did.

    As with a model that comes without a token of objects.
    """
    token = _learned()
    if token is None:
        return None
    return ClickSegmenter(target.trace, target.image, objects=token)


@cache
def _learned() -> Token | None:
    worlds = Worlds("annotated")
    scenes = list(worlds.drawn("scenes.zip", alone=True))
    random = np.random.default_rng(0)
    with TemporaryDirectory() as folder, patch.object(cells_module, "_shipped", _none):
        project = Project.create(Path(folder) / "project")
        project.classes.add("object")
        for index in random.permutation(len(scenes))[:ACCEPTED].tolist():
            name = project.add_sample(scenes[index].image).name
            project.save_trace(name, scenes[index].trace)
            project.save_labels(name, scenes[index].mask, "accepted")
        settings = ImproveSettings.quick("fine")
        found = learn_objects(project, worlds.pipe, settings=settings)
    assert found is not None
    print(f"<!-- learned: {found.before:.3f} -> {found.after:.3f} -->", flush=True)
    return found.token if found.better else None


def _none() -> Token:
    return Token("", "no model", torch.zeros(2, 1))


def word(target: Target) -> ClickSegmenter | None:
    if target.token is None:
        return None
    return ClickSegmenter(
        target.trace, target.image, cell_map(target.trace, (target.token,))
    )


WAYS: dict[str, Callable[[Target], ClickSegmenter | None]] = {
    "colours alone": colours,
    "cells": cells,
    "cells, object token": objects,
    "cells, object token, word": word,
    "cells, token of eight accepted": learned,
}


def next_click(mask: Any, target: Any) -> Click:
    """Return a click in the middle of the largest piece that is missed or too much."""
    depth = [
        distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
        for part in ((target == 1) & ~mask, (target == 0) & mask)
    ]
    positive = depth[0].max() >= depth[1].max()
    largest = depth[0] if positive else depth[1]
    row, column = np.unravel_index(largest.argmax(), largest.shape)
    return Click(float(row), float(column), bool(positive))


def clicked(segmenter: ClickSegmenter, target: Target) -> tuple[list[float], Any]:
    """Return the IoU after each click, and seconds (of processor, of clock) of each."""
    mask, asked = np.zeros(target.mask.shape, bool), list[Click]()
    found, seconds = list[float](), []
    while len(found) < CLICKS and (not found or found[-1] < ENOUGH):
        asked.append(next_click(mask, target.mask))
        start = time.process_time(), time.perf_counter()
        mask = segmenter(asked).mask
        seconds.append((time.process_time() - start[0], time.perf_counter() - start[1]))
        found.append(iou(mask, target.mask))
    return found + found[-1:] * (CLICKS - len(found)), seconds


def measure(targets: Iterator[Target], ways: list[str]) -> None:
    scores, seconds, prepared = defaultdict(list), defaultdict(list), defaultdict(list)
    for target in targets:
        for way in ways:
            start = time.process_time()
            segmenter = WAYS[way](target)
            if segmenter is None:
                continue
            key = target.world, way
            prepared[key].append(time.process_time() - start)
            found, times = clicked(segmenter, target)
            scores[key].append(found)
            seconds[key] += times
    for (world, way), rows in scores.items():
        table = np.array(rows)
        cells = [f"{table[:, k - 1].mean():.3f}" for k in AFTER]
        for level in WANTED:
            met = table >= level
            needed = np.where(met.any(1), met.argmax(1) + 1, CLICKS)
            cells.append(f"{needed.mean():.1f}")
        fall = max(0.0, float(-np.diff(table.mean(0)).min()))
        times = 1e3 * np.median(seconds[world, way], axis=0)
        cells += [f"{fall:.3f}", f"{times[0]:.0f}, {times[1]:.0f}"]
        cells.append(f"{1e3 * np.median(prepared[world, way]):.0f}")
        print(
            f"| {world} | {way} | " + " | ".join(cells) + f" | {len(rows)} |",
            flush=True,
        )


def optimize_object_token(path: Path) -> None:
    """Optimize the token of any object on one annotated scene of each class."""
    worlds = Worlds("annotated")
    chosen: dict[str, Target] = {}
    for target in worlds.drawn("scenes.zip", alone=True):
        chosen.setdefault(target.name.split()[1], target)
    token = optimize_token(
        [target.trace for target in chosen.values()],
        encode_phrase(worlds.pipe, "object"),
        [target.mask for target in chosen.values()],
    )
    save_token(replace(token, name="object"), path)
    print(f"{path}: of {len(chosen)} scenes")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--every", type=int, default=1, help="of the pictures")
    parser.add_argument("--world", choices=("composed", "generated", "photographs"))
    parser.add_argument("--way", action="append", choices=list(WAYS))
    parser.add_argument("--object-token", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.object_token:
        optimize_object_token(arguments.object_token)
        return
    worlds = Worlds(arguments.split, arguments.every)
    found = {
        "composed": lambda: worlds.drawn("scenes.zip"),
        "generated": lambda: worlds.drawn("generated.zip"),
    }
    if arguments.photographs:
        found["photographs"] = lambda: worlds.photographs(arguments.photographs)
    after = " | ".join(map(str, AFTER))
    print(f"| pictures | by | {after} | to 0.85 | to 0.90 | fall | ms | prepare | n |")
    print("|---" * (len(AFTER) + 8) + "|")
    for name, targets in found.items():
        if arguments.world in (None, name):
            measure(targets(), arguments.way or list(WAYS))


if __name__ == "__main__":
    main()
