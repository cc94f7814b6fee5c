"""The demonstration does the whole job, and what it claims is so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_ovam.attention.targets import iou
from napari_ovam.workflows import demo as demo_module
from napari_ovam.workflows.demo import colour_mask, run_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    """All that it does, for three classes in place of six."""
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "load_pipeline", lambda _: tiny)
        patch.setattr(demo_module, "_SCENE_CLASSES", ("cat", "flower"))
        patch.setattr(demo_module, "_CONTRASTS", demo_module._CONTRASTS[:1])
        run_demo(out)
    return out


def test_everything_is_written(demo: Path) -> None:
    with Image.open(demo / "overview.png") as overview:
        assert overview.width > 1000
    tokens = {p.stem for p in (demo / "tokens").iterdir()}
    assert tokens >= {"cat", "flower", "apple"}
    names = {p.stem for p in (demo / "images").iterdir()}
    assert names == {p.stem for p in (demo / "labels").iterdir()}
    exported = {p.stem for p in (demo / "masks/indexed/labels").iterdir()}
    assert exported == names
    assert (demo / "masks/coco/annotations.json").is_file()


def test_the_phrases_find_their_objects(demo: Path) -> None:
    labels = np.array(Image.open(demo / "labels" / "generated-cat-hat.png"))
    assert {1, 2} <= set(np.unique(labels))


def test_the_masks_of_other_images_are_found(demo: Path) -> None:
    # Which of the two is better on so few images is chance: see docs/quality.md.
    scores = json.loads((demo / "scores.json").read_text())
    for source in ("phrase", "token"):
        assert np.mean([s[source] for s in scores]) > 0.65


def test_colour_finds_an_outline() -> None:
    y, x = np.mgrid[:96, :96]
    disk = (y - 50) ** 2 + (x - 40) ** 2 < 25**2
    image = np.full((96, 96, 3), (205, 210, 220), np.uint8)
    image[disk] = (210, 40, 30)
    image[45:52, 36:43] = (240, 240, 240)  # a highlight: a hole that belongs to it
    image[5:7, 80:82] = (250, 120, 0)  # a speck elsewhere
    assert iou(colour_mask(image), disk) > 0.95
