"""Write the embedded model's card from the training log and the check's figures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scenes import BACKGROUNDS, OBJECTS

if TYPE_CHECKING:
    from pathlib import Path

_CARD = """\
# tiny, the embedded model of napari-ovam

A small Stable Diffusion, trained from nothing by `training/train.py` of napari-ovam
on scenes composed from the emoji of Noto Color Emoji (SIL Open Font License 1.1).
It is the default, the demonstration and the test bed of the plugin, and draws nothing
else than these:

- objects: {objects};
- places: {places}.

Prompts look like "a cat and a hat on the grass" or "a photo of a panda at night".
Use 256x256 pixels, 25 DDIM steps and a guidance scale of 4 (`ovam_defaults.json`).

| part | what it is | weights |
|---|---|---|
{parts}

Latents are 4x32x32, the UNet predicts v and attends to the text on grids of 32x32,
16x16 and 8x8 cells (and 4x4 in the middle).

## Training

{training}

The log of losses is in `docs/embedded-model/log.jsonl` of the repository, the recipe in
`training/`: `python training/train.py --device cuda`, then `python training/check.py`.

## Check

{check}

## Licence

The weights: BSD-3-Clause, like napari-ovam. The emoji they were trained on: Noto Color
Emoji, copyright Google, SIL Open Font License 1.1.
"""


def write_card(folder: Path, log: Path, check: Path) -> None:
    """Write `folder`/README.md; `check` need not exist yet."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    last = {line["stage"]: line for line in lines if "stage" in line}
    training = [
        f"- {stage}: {line['step']} steps, last "
        + ", ".join(f"{k} {v}" for k, v in line.items() if k in ("l1", "loss"))
        for stage, line in last.items()
    ]
    training += [f"- {line['note']}" for line in lines if "note" in line]
    parts = [
        f"| {name} | {_class_name(folder / name / 'config.json')} | "
        f"{_megabytes(folder / name):.1f} MB |"
        for name in ("text_encoder", "unet", "vae")
    ]
    (folder / "README.md").write_text(
        _CARD.format(
            objects=", ".join(OBJECTS),
            places=", ".join(BACKGROUNDS.values()),
            parts="\n".join(parts),
            training="\n".join(training),
            check=_check_text(check),
        )
    )


def _check_text(path: Path) -> str:
    if not path.exists():
        return "Not run yet."
    figures: dict[str, Any] = json.loads(path.read_text())
    poor = [f"{k} {v:.0%}" for k, v in figures["by_object"].items() if v < 0.8]
    return (
        f"A small classifier trained on composed scenes (right on "
        f"{figures['classifier_accuracy']:.1%} of unseen ones with one object, "
        f"{figures['classifier_accuracy_two']:.1%} with two) names "
        f"{figures['named']:.1%} of {figures['images']} generated pictures of one "
        f"object, and both objects in {figures['both_named']:.1%} of "
        f"{figures['images_of_two']} of two. Below 80 %: {', '.join(poor) or 'none'}."
    )


def _class_name(config: Path) -> str:
    values = json.loads(config.read_text())
    return str(values.get("_class_name") or values["architectures"][0])


def _megabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.iterdir()) / 1e6
