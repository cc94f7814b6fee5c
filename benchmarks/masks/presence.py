"""Is a class in the picture at all? What `presence` says of the drawn worlds.

    python benchmarks/masks/presence.py [--below 0.93]

Each class of the embedded model is asked of each picture; the table is in
docs/quality.md.
"""

from __future__ import annotations

import argparse

import numpy as np
import worlds

from napari_ovam import encode_phrase, load_pipeline
from napari_ovam.segmentation.presence import ABSENT, REFERENCES, presence

PARTS = {
    "composed, development": ("scenes.zip", "development"),
    "composed, test": ("scenes.zip", "test"),
    "generated, test": ("generated.zip", "test"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--below", type=float, default=ABSENT, help="What is absent.")
    below = parser.parse_args().below
    pipe = load_pipeline("tiny", device="cpu")
    references = [encode_phrase(pipe, word) for word in REFERENCES]
    print(
        "| pictures | area under the curve | there, and called absent | "
        "not there, and called absent | questions |\n|---|---|---|---|---|"
    )
    for title, (archive, split) in PARTS.items():
        data, kind = worlds.traced(pipe, archive)
        words = dict(enumerate(encode_phrase(pipe, name) for name in data.names))
        scores, there = [], []
        for scene in data.of(split):
            found = presence(data.trace(scene, kind), words, references)
            scores += [found[number] for number in words]
            there += [name in scene.classes for name in data.names]
        values, truth = np.array(scores), np.array(there)
        above = values[truth][:, None] > values[~truth][None]
        absent = values < below
        print(
            f"| {title} | {above.mean():.3f} | {absent[truth].mean():.0%} | "
            f"{absent[~truth].mean():.0%} | {len(truth)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
