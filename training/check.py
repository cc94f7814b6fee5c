"""Does the embedded model draw what it is asked for? A classifier says, and a sheet.

    python training/check.py

Trains a small classifier on composed scenes of one and two objects (a few minutes on
two cores), lets it name 240 generated pictures of one object and 72 of two, and writes
figures and contact sheets.
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
PAIRS = 72
SHOWN_PAIRS = 24


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


def composed(first_seed: int, count: int, objects: int) -> tuple[Tensor, Tensor]:
    """Scenes at 64x64, and (count, names) 1 where an object is in them."""
    names = tuple(OBJECTS)
    rng = np.random.default_rng(first_seed)
    truth = torch.zeros(count, len(names))
    images = []
    for i in range(count):
        rest = rng.permutation(np.delete(np.arange(len(names)), i % len(names)))
        chosen = [i % len(names), *rest[: objects - 1].tolist()]
        truth[i, chosen] = 1
        chosen_names = tuple(names[k] for k in chosen)
        images.append(compose(first_seed + i, size=128, objects=chosen_names).image)
    return made_smaller(np.stack(images)), truth


def made_smaller(images: np.ndarray) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(to_tensor(images), 64)


def train_classifier(steps: int) -> nn.Module:
    parts = [composed(TEST_SEEDS + 500_000 + 10_000 * n, 4800, n) for n in (1, 2)]
    x, y = (torch.cat(each) for each in zip(*parts, strict=True))
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
        loss = nn.functional.binary_cross_entropy_with_logits(net(batch), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


@torch.no_grad()
def all_named(net: nn.Module, x: Tensor, truth: Tensor) -> Tensor:
    """Whether the n most probable names are the n objects of each picture, 0 or 1."""
    scores = torch.cat([net(part) for part in x.split(64)])
    count = int(truth[0].sum())
    named = scores.topk(count, dim=1).indices
    return truth.gather(1, named).all(dim=1).float()


def draw(pipe: object, prompts: list[str], seed: int) -> np.ndarray:
    """(n, side, side, 3) uint8: each prompt with a seed of its own."""
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


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def truth_of(groups: list[tuple[int, ...]]) -> Tensor:
    """Return (groups, names), 1 where a name's index is in the group."""
    truth = torch.zeros(len(groups), len(OBJECTS))
    for row, group in enumerate(groups):
        truth[row, list(group)] = 1
    return truth


def sheet(images: np.ndarray, columns: int, side: int, path: Path) -> None:
    rows = [
        np.concatenate(images[i : i + columns], 1)
        for i in range(0, len(images), columns)
    ]
    picture = Image.fromarray(np.concatenate(rows))
    picture = picture.resize(
        (side * columns, side * len(rows)), Image.Resampling.LANCZOS
    )
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

    net = train_classifier(arguments.steps)
    unseen = {
        n: all_named(net, *composed(TEST_SEEDS + 900_000 + 10_000 * n, 480, n))
        for n in (1, 2)
    }
    accuracy = {n: right.mean().item() for n, right in unseen.items()}
    print(f"classifier, unseen composed scenes: {accuracy}", flush=True)
    pipe = load_pipeline(arguments.model, device="cpu")
    ones = [(k,) for k in range(len(names)) for _ in range(arguments.each)]
    prompts = [
        f"{article(names[k])} {places[i % arguments.each % len(places)]}"
        for i, (k,) in enumerate(ones)
    ]
    images = draw(pipe, prompts, 0)
    right = all_named(net, made_smaller(images), truth_of(ones))
    rng = np.random.default_rng(1)
    pairs = [tuple(rng.permutation(len(names))[:2].tolist()) for _ in range(PAIRS)]
    two = [
        f"{article(names[a])} and {article(names[b])} {places[i % len(places)]}"
        for i, (a, b) in enumerate(pairs)
    ]
    both = draw(pipe, two, 1000)
    by_object = right.reshape(len(names), -1).mean(1).tolist()
    figures = {
        "classifier_accuracy": accuracy[1],
        "classifier_accuracy_two": accuracy[2],
        "images": len(images),
        "named": right.mean().item(),
        "images_of_two": len(both),
        "both_named": all_named(net, made_smaller(both), truth_of(pairs)).mean().item(),
        "by_object": dict(zip(names, by_object, strict=True)),
    }
    (out / "check.json").write_text(json.dumps(figures, indent=2) + "\n")
    sheet(images, arguments.each, 96, out / "contact-sheet.jpg")
    sheet(both[:SHOWN_PAIRS], 6, 160, out / "two-objects.jpg")
    (out / "two-objects.txt").write_text("\n".join(two[:SHOWN_PAIRS]) + "\n")
    print(json.dumps(figures, indent=2))
    if arguments.model == "tiny":
        write_card(Path("src/napari_ovam/tiny"), out / "log.jsonl", out / "check.json")


if __name__ == "__main__":
    main()
