"""Compose the scenes that the package ships: images with exact masks.

    python training/ship_scenes.py

Their seeds are among those that the model never trained on.
"""

from __future__ import annotations

import json
from pathlib import Path

from model import SIDE
from PIL import Image
from scenes import OBJECTS, class_id, compose
from train import TEST_SEEDS

OUT = Path("src/napari_ovam/scenes")
# Of each class first the scene that the demonstration annotates: with another object,
# so that a token can learn what the class is not.
SCENES = (
    (("cat", "hat"), "room"),
    (("cat",), "grass"),
    (("cat", "ball"), "desert"),
    (("car", "tree"), "grass"),
    (("car",), "snow"),
    (("car", "star"), "night"),
    (("owl", "umbrella"), "snow"),
    (("owl",), "sea"),
    (("owl", "apple"), "room"),
    (("flower", "house"), "sea"),
    (("flower",), "night"),
    (("flower", "fox"), "grass"),
)


def main() -> None:
    index = []
    for number, (objects, background) in enumerate(SCENES):
        scene = compose(
            TEST_SEEDS + number, size=SIDE, objects=objects, background=background
        )
        name = "-".join((*objects, background))
        Image.fromarray(scene.image).save(OUT / f"{name}.png", optimize=True)
        Image.fromarray(scene.labels).save(OUT / f"{name}.labels.png", optimize=True)
        index.append(
            {
                "name": name,
                "caption": scene.caption,
                "classes": {str(class_id(o)): o for o in OBJECTS if o in objects},
            }
        )
    (OUT / "scenes.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
