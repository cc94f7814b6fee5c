"""Train a small network on masks that the program made, and on exact ones.

Both are scored on the composed test scenes. The program's masks are made as a person
would have them made: a token a class from one annotated scene, mapped with its word on
images that are known to hold the class.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from data import PLAIN
from torch import nn
from torch.nn import functional

from napari_ovam import (
    class_labels,
    encode_phrase,
    iou,
    joint_map,
    optimize_token,
)
from napari_ovam.diffusion.devices import find_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data import Data, Kind, Scene
    from numpy.typing import NDArray

SEEDS = (0,)
STEPS = 1500
BATCH = 16


class Net(nn.Module):
    """A U-Net of four levels at half the image's size, 0.2 million weights."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        sizes = [width, width * 2, width * 3, width * 4]
        self.down = nn.ModuleList(
            _block(a, b) for a, b in zip([3, *sizes[:-1]], sizes, strict=True)
        )
        self.up = nn.ModuleList(
            _block(a + b, b) for a, b in zip(sizes[:0:-1], sizes[-2::-1], strict=True)
        )
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, x = [], functional.avg_pool2d(x, 2)
        for i, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if i else x)
            kept.append(x)
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0), skip], 1))
        found: torch.Tensor = functional.interpolate(
            self.last(x), scale_factor=2.0, mode="bilinear"
        )
        return found


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1),
        nn.GroupNorm(4, outside),
        nn.SiLU(),
        nn.Conv2d(outside, outside, 3, padding=1),
        nn.GroupNorm(4, outside),
        nn.SiLU(),
    )


def downstream(
    composed: Data, generated: Data, kind: Kind, *, quick: bool = False
) -> list[dict[str, Any]]:
    """Return the networks' scores, and how well the masks agree that they learnt.

    `kind` is how generated images are traced.
    """
    names = composed.names
    tokens = {name: tokens_of(composed, name) for name in names}
    test = composed.of("test")
    real = [s for s in composed.scenes if s.split != "test"]
    drawn = list(generated.scenes)
    steps, seeds = (30, SEEDS[:1]) if quick else (STEPS, SEEDS)
    rows = []
    for title, data, scenes, traced in (
        ("generated", generated, drawn, kind),
        ("composed", composed, real, PLAIN),
    ):
        pictures = [scene.image for scene in scenes]
        exact = [ids_of(scene, composed) for scene in scenes]
        made = [_proposed(data, scene, tokens, traced) for scene in scenes]
        agreement = np.mean(
            [
                iou(a == i + 1, b == i + 1)
                for scene, a, b in zip(scenes, exact, made, strict=True)
                for i in [names.index(n) for n in scene.classes]
            ]
        )
        scores = {}
        for masks, targets in (("exact", exact), ("the program's", made)):
            begin = time.perf_counter()
            found = [
                score(train(pictures, targets, len(names) + 1, steps, s), test, names)
                for s in seeds
            ]
            scores[masks] = float(np.mean(found))
            rows.append(
                {
                    "images_from": title,
                    "masks": masks,
                    "images": len(scenes),
                    "agreement": None if masks == "exact" else float(agreement),
                    "miou": scores[masks],
                    "runs": found,
                    "ratio": scores[masks] / scores["exact"],
                    "seconds": round(time.perf_counter() - begin),
                }
            )
            print(f"  {title}, {masks}: {found}", flush=True)
    return rows


def tokens_of(data: Data, name: str) -> list[Any]:
    """Return the token of a class, from one annotated scene, and its word."""
    word, scene = encode_phrase(data.pipe, name), data.of("annotated", name)[0]
    trace = data.trace(scene).fine()
    return [optimize_token(trace, word, scene.mask(name)), word]


def ids_of(scene: Scene, data: Data) -> NDArray[np.int64]:
    """Return (H, W) with 1 for the first class of the data, and so on."""
    found = np.zeros(scene.labels.shape, np.int64)
    for name, number in scene.classes.items():
        found[scene.labels == number] = data.names.index(name) + 1
    return found


def _proposed(
    data: Data, scene: Scene, tokens: dict[str, list[Any]], kind: Kind
) -> NDArray[np.int64]:
    """Return the labels that the program proposes where it is told what is there."""
    trace, wanted = data.trace(scene, kind).fine(), list(scene.classes)
    maps = {data.names.index(n) + 1: joint_map(trace, tokens[n]) for n in wanted}
    labels = class_labels(maps, dict.fromkeys(maps), scene.image)
    return labels.astype(np.int64)


def train(
    pictures: Sequence[NDArray[np.uint8]],
    targets: Sequence[NDArray[np.int64]],
    classes: int,
    steps: int,
    seed: int,
) -> Net:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    device = find_device("auto")
    net = Net(classes).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(steps):
        chosen = rng.integers(len(pictures), size=BATCH)
        pairs = [_varied(pictures[i], targets[i], rng) for i in chosen]
        images = torch.stack([_tensor(image) for image, _ in pairs])
        wanted = torch.stack([torch.from_numpy(t.copy()) for _, t in pairs])
        loss = functional.cross_entropy(net(images.to(device)), wanted.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval().cpu()


def _varied(image: Any, target: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Mirror, shift and lighten or darken: a few hundred images are few."""
    if rng.random() < 0.5:
        image, target = image[:, ::-1], target[:, ::-1]
    shift = tuple(int(v) for v in rng.integers(-16, 17, 2))
    image, target = np.roll(image, shift, (0, 1)), np.roll(target, shift, (0, 1))
    return np.clip(image * rng.uniform(0.9, 1.1), 0, 255), target


def _tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1) / 127.5 - 1


def score(net: Net, scenes: Sequence[Scene], names: Sequence[str]) -> float:
    """Return the mean over classes of the mean IoU over the scenes that hold them."""
    found: dict[str, list[float]] = {name: [] for name in names}
    with torch.no_grad():
        for scene in scenes:
            guess = net(_tensor(scene.image)[None])[0].argmax(0).numpy()
            for name in scene.classes:
                mask = guess == names.index(name) + 1
                found[name].append(iou(mask, scene.mask(name)))
    return float(np.mean([np.mean(each) for each in found.values()]))
