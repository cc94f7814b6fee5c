"""Does the embedded model draw what it is asked for? A classifier says, and a sheet.

    python training/check.py

Trains a small classifier on composed scenes of one object (a few minutes on two
cores), lets it name 240 generated pictures, and writes figures and contact sheets.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from card import write_card
from PIL import Image
from scenes import BACKGROUNDS, OBJECTS, compose
from torch import Tensor, nn
from train import TEST_SEEDS, to_tensor

from napari_ovam import load_pipeline

EACH = 10


def make_classifier() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for wider in (32, 64, 128):
        layers += [
            nn.Conv2d(channels, wider, 3, padding=1),
            nn.GroupNorm(8, wider),
            nn.SiLU(),
            nn.MaxPool2d(2),
        ]
        channels = wider
    return nn.Sequential(
        *layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(128, len(OBJECTS))
    )


def composed(first_seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Scenes of one object, halved to 64x64, and which object it is."""
    names = tuple(OBJECTS)
    images = [
        compose(first_seed + i, objects=(names[i % len(names)],)).image
        for i in range(count)
    ]
    return halved(np.stack(images)), torch.arange(count) % len(names)


def halved(images: np.ndarray) -> Tensor:
    return nn.functional.avg_pool2d(to_tensor(images), 2)


def train_classifier(steps: int) -> tuple[nn.Module, float]:
    """Train, and measure on scenes that neither it nor the model has seen."""
    x, y = composed(TEST_SEEDS + 500_000, 4800)
    net = make_classifier()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (48,))
        batch = x[rows]
        # the model's pictures are softer and noisier than composed ones
        if torch.rand(()) < 0.5:
            batch = nn.functional.avg_pool2d(batch, 3, 1, 1)
        batch = batch + 0.05 * torch.randn_like(batch)
        loss = nn.functional.cross_entropy(net(batch), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x, y = composed(TEST_SEEDS + 900_000, 480)
    with torch.no_grad():
        return net, (net(x).argmax(1) == y).float().mean().item()


def draw(pipe: object, prompts: list[str], seed: int) -> np.ndarray:
    """(n, 128, 128, 3) uint8: each prompt with a seed of its own."""
    images = []
    for start in range(0, len(prompts), 10):
        part = prompts[start : start + 10]
        generators = [
            torch.Generator().manual_seed(seed + start + i) for i in range(len(part))
        ]
        images += pipe(  # type: ignore[operator]
            part,
            num_inference_steps=25,
            guidance_scale=4.0,
            generator=generators,
            output_type="np",
        ).images.tolist()
    return (np.array(images) * 255).round().astype(np.uint8)


def sheet(images: np.ndarray, columns: int, path: Path) -> None:
    rows = [
        np.concatenate(images[i : i + columns], 1)
        for i in range(0, len(images), columns)
    ]
    picture = Image.fromarray(np.concatenate(rows))
    picture = picture.resize((picture.width * 5 // 8, picture.height * 5 // 8))
    picture.save(path, quality=88)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("docs/embedded-model"))
    parser.add_argument("--work", type=Path, default=Path("training/work"))
    parser.add_argument("--steps", type=int, default=700, help="of the classifier")
    parser.add_argument("--each", type=int, default=EACH)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    log = arguments.work / "log.jsonl"
    if log.exists():
        shutil.copy(log, out / "log.jsonl")
    names, places = tuple(OBJECTS), tuple(BACKGROUNDS.values())

    net, accuracy = train_classifier(arguments.steps)
    print(f"classifier: {accuracy:.1%} of unseen composed scenes", flush=True)
    pipe = load_pipeline(arguments.model, device="cpu")
    prompts = [
        f"{'an' if name[0] in 'aeiou' else 'a'} {name} {places[i % len(places)]}"
        for name in names
        for i in range(arguments.each)
    ]
    images = draw(pipe, prompts, 0)
    with torch.no_grad():
        named = net(halved(images)).argmax(1).reshape(len(names), -1)
    right = (named == torch.arange(len(names))[:, None]).float()
    figures = {
        "classifier_accuracy": accuracy,
        "images": len(images),
        "named": right.mean().item(),
        "by_object": dict(zip(names, right.mean(1).tolist(), strict=True)),
    }
    (out / "check.json").write_text(json.dumps(figures, indent=2) + "\n")
    sheet(images, arguments.each, out / "contact-sheet.jpg")
    rng = np.random.default_rng(1)
    pairs = [rng.choice(names, 2, replace=False) for _ in range(24)]
    two = [f"a {a} and a {b} {places[i % 6]}" for i, (a, b) in enumerate(pairs)]
    sheet(draw(pipe, two, 1000), 6, out / "two-objects.jpg")
    (out / "two-objects.txt").write_text("\n".join(two) + "\n")
    print(json.dumps(figures, indent=2))
    if arguments.model == "tiny":
        write_card(Path("src/napari_ovam/tiny"), out / "log.jsonl", out / "check.json")


if __name__ == "__main__":
    main()
