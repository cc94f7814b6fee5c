"""Seams and masks of tiled traces, for docs/images-elsewhere.md.

    python benchmarks/tiling.py

The scenes that the package ships, in two kinds of large image: a scene enlarged, and
scenes in a mosaic. Each is traced in one piece, in tiles that are cut off in the middle
of the overlaps, in tiles that are cross-faded, and as `trace_image` does it: in one
piece and in tiles that are cross-faded.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_ovam import encode_phrase, iou, load_pipeline, phrase_map, trace_image
from napari_ovam.diffusion.image_traces import MAX_TILES
from napari_ovam.diffusion.pipelines import pipeline_architecture
from napari_ovam.diffusion.tiling import Mosaic, Tiles, plan_tiles
from napari_ovam.scenes import Scene, load_scenes

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE, TIMES = 128, 3
WAYS = "one piece", "tiles, cut off", "tiles, cross-faded", "one piece and tiles"


def seam(found: np.ndarray, tiles: Tiles, cut: bool) -> float:
    """Return the mean jump from pixel to pixel where tiles meet, over that near by.

    Where they meet: in the middle of the overlaps if the tiles were cut off there, else
    at both ends of the overlaps. Near by: within 16 pixels, as the middle of an image
    has more to see than its border.
    """
    at, near = [], []
    for axis, starts in enumerate((tiles.tops, tiles.lefts)):
        scale = found.shape[axis] / tiles.size[axis]
        steps = np.abs(np.diff(found, axis=axis)).mean(1 - axis)
        for start, before in zip(starts[1:], starts, strict=False):
            end = before + tiles.tile[axis]
            for place in [(start + end) / 2] if cut else [start, end]:
                line = round(scale * place) - 1
                at.append(steps[line])
                around = steps[max(0, line - 16) : line + 17]
                near.append((around.sum() - steps[line]) / (len(around) - 1))
    return float(np.mean(at) / np.mean(near))


def best_iou(found: np.ndarray, mask: np.ndarray) -> float:
    return max(iou(found >= t, mask) for t in np.linspace(0.1, 0.95, 18))


@contextmanager
def cut_off() -> Iterator[None]:
    """Give each cell to the nearest tile alone."""
    fade = Mosaic._fade

    def nearest(self: Mosaic, grid: tuple[int, int], axis: int, start: int):
        starts = (self._tiles.tops, self._tiles.lefts)[axis]
        whole = torch.zeros(len(starts), self._grid(grid)[axis], dtype=torch.float64)
        for row, other in enumerate(starts):
            whole[row, self._cells(grid, axis, other)] = fade(self, grid, axis, other)
        owner = whole.argmax(0) == starts.index(start)
        return owner.double()[self._cells(grid, axis, start)]

    Mosaic._fade = nearest
    try:
        yield
    finally:
        Mosaic._fade = fade


Picture = tuple[np.ndarray, dict[str, np.ndarray]]  # an image, and masks by phrase


def measured(model, picture: Picture) -> list[list[list[float]]]:
    """Return [seam, IoU] for each phrase and each way to trace (`WAYS`)."""
    image, masks = picture
    alignment = pipeline_architecture(model).alignment(model)
    tiles = plan_tiles(image.shape[:2], (SIDE, SIDE), alignment, MAX_TILES)
    whole = trace_image(model, image, max_tiles=1).trace
    with cut_off():
        hard = trace_image(model, image).trace
    both = trace_image(model, image).trace
    half = len(both.calls) // 2  # the calls of the whole come first
    tiled = [trace.select(calls=range(-half, 0)) for trace in (hard, both)]
    traces = whole, *tiled, both
    results = []
    for phrase, mask in masks.items():
        token = encode_phrase(model, phrase)
        maps = [phrase_map(trace, token) for trace in traces]
        results.append(
            [
                [seam(found, tiles, cut), best_iou(found, mask)]
                for found, cut in zip(maps, (False, True, False, False), strict=True)
            ]
        )
    return results


def masks_of(scene: Scene) -> dict[str, np.ndarray]:
    return {name: scene.labels == label for label, name in scene.classes.items()}


def enlarged(scenes: list[Scene]) -> Iterator[Picture]:
    block = np.ones((TIMES, TIMES), np.uint8)
    for scene in scenes:
        masks = {k: np.kron(v, block).astype(bool) for k, v in masks_of(scene).items()}
        yield np.kron(scene.image, block[..., None]), masks


def mosaic(scenes: list[Scene]) -> Iterator[Picture]:
    places = [scenes[i % len(scenes)] for i in range(TIMES**2)]

    def together(pictures: list[np.ndarray]) -> np.ndarray:
        lines = range(0, TIMES**2, TIMES)
        return np.vstack([np.hstack(pictures[i : i + TIMES]) for i in lines])

    empty = np.zeros((SIDE, SIDE), bool)
    phrases = sorted({phrase for scene in places for phrase in masks_of(scene)})
    yield (
        together([scene.image for scene in places]),
        {p: together([masks_of(s).get(p, empty) for s in places]) for p in phrases},
    )


def main() -> None:
    model, scenes = load_pipeline("tiny", device="cpu"), load_scenes()
    kinds = {
        f"a scene, {TIMES} times as large": enlarged(scenes[::2]),
        f"{TIMES} x {TIMES} scenes": mosaic(scenes),
    }
    print("| image | traced in | jump where tiles meet, mean (most) | IoU |")
    print("| --- | --- | --- | --- |")
    for kind, pictures in kinds.items():
        found = np.array([row for each in pictures for row in measured(model, each)])
        for way, values in zip(WAYS, found.transpose(1, 0, 2), strict=True):
            (jump, score), most = values.mean(0), values[:, 0].max()
            print(f"| {kind} | {way} | {jump:.2f} ({most:.2f}) | {score:.2f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
