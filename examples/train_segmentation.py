"""Train a small segmentation network on an export in the format "indexed".

    napari-ovam export pets --format indexed --split 0.75,0.25,0 --out dataset
    python examples/train_segmentation.py dataset/indexed

Needs torch, numpy and Pillow, which come with napari-ovam. Learns from the images of
splits/train.txt, writes the network (network.pt) and what it finds in the images of
splits/val.txt (predictions.png) into the current folder, and prints the IoU of each
class on those. On two CPU cores some minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

IGNORE = 255


class UNet(nn.Module):
    """Three levels down and up again; sees the image at half its size."""

    def __init__(self, classes: int, width: int = 24) -> None:
        super().__init__()
        self.down = nn.ModuleList([_block(3, width), _block(width, 2 * width)])
        self.middle = _block(2 * width, 3 * width)
        self.up = nn.ModuleList(
            [_block(5 * width, 2 * width), _block(3 * width, width)]
        )
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores (N, classes, H, W) of images (N, 3, H, W), H and W by 8."""
        x, kept = functional.avg_pool2d(images, 2), []
        for block in self.down:
            kept.append(block(x))
            x = functional.max_pool2d(kept[-1], 2)
        x = self.middle(x)
        for block, skip in zip(self.up, reversed(kept), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2), skip], 1))
        return functional.interpolate(self.last(x), scale_factor=2, mode="bilinear")


def _block(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for count in (inside, outside):
        layers += [nn.Conv2d(count, outside, 3, padding=1), nn.GroupNorm(4, outside)]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def load(folder: Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the pairs of image (H, W, 3) and class ids (H, W) of a split."""
    names = (folder / "splits" / f"{split}.txt").read_text().split("\n")
    pairs = []
    for name in filter(None, names):
        image = Image.open(folder / "images" / f"{name}.png").convert("RGB")
        labels = Image.open(folder / "labels" / f"{name}.png")
        pairs.append((np.asarray(image), np.asarray(labels).astype(np.int64)))
    return pairs


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """Return (3, H, W) from -1 to 1, cropped to a multiple of 8."""
    height, width = (side // 8 * 8 for side in image.shape[:2])
    cut = np.ascontiguousarray(image[:height, :width].transpose(2, 0, 1))
    return torch.from_numpy(cut).float() / 127.5 - 1


def varied(
    image: np.ndarray, target: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror and shift: the images are few."""
    if rng.random() < 0.5:
        image, target = image[:, ::-1], target[:, ::-1]
    most = image.shape[0] // 8
    by = tuple(rng.integers(-most, most + 1, 2))
    return np.roll(image, by, (0, 1)), np.roll(target, by, (0, 1))


def train(
    pairs: list[tuple[np.ndarray, np.ndarray]], classes: int, steps: int, batch: int = 8
) -> UNet:
    """Train on images of one size, whose targets count the classes from 0."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = UNet(classes)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for step in range(steps):
        chosen = [varied(*pairs[i], rng) for i in rng.integers(len(pairs), size=batch)]
        images = torch.stack([as_tensor(image) for image, _ in chosen])
        height, width = images.shape[-2:]
        targets = torch.from_numpy(np.stack([t[:height, :width] for _, t in chosen]))
        loss = functional.cross_entropy(network(images), targets, ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    return network.eval()


def main() -> None:
    """Train, score and show."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    entries = json.loads((arguments.folder / "classes.json").read_text())["classes"]
    ids = [0, *(entry["id"] for entry in entries)]
    colours = np.array([[0, 0, 0], *(entry["color"] for entry in entries)], np.uint8)

    def counted(labels: np.ndarray) -> np.ndarray:
        """Turn class ids into 0, 1, 2 ...; what is unsure stays 255."""
        found = np.full(labels.shape, IGNORE, np.int64)
        for place, number in enumerate(ids):
            found[labels == number] = place
        return found

    splits = {
        split: [
            (image, counted(labels)) for image, labels in load(arguments.folder, split)
        ]
        for split in ("train", "val")
    }
    print(f"{len(splits['train'])} images to learn from, {len(splits['val'])} to score")
    network = train(splits["train"], len(ids), arguments.steps)
    torch.save(network.state_dict(), "network.pt")
    both, either = np.zeros(len(ids)), np.zeros(len(ids))
    rows = []
    for image, exact in splits["val"]:
        with torch.no_grad():
            found = network(as_tensor(image)[None])[0].argmax(0).numpy()
        height, width = found.shape
        image, exact = image[:height, :width], exact[:height, :width]
        known = exact != IGNORE
        for place in range(len(ids)):
            a, b = (found == place) & known, exact == place
            both[place] += (a & b).sum()
            either[place] += (a | b).sum()
        shown = np.where(known, exact, 0)
        rows.append(np.hstack([image, colours[shown], colours[found]]))
    for place, entry in enumerate(entries, 1):
        if either[place]:
            print(f"{entry['name']}: IoU {both[place] / either[place]:.2f}")
    Image.fromarray(np.vstack(rows[:8])).save("predictions.png")
    print("predictions.png: image, label, prediction")


if __name__ == "__main__":
    main()
