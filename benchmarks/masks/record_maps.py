"""Record the maps of classes on pictures with masks, from a real model.

    python benchmarks/masks/record_maps.py --model NAME PICTURES OUT

NAME is a model's, such as stable-diffusion-v1-5/stable-diffusion-v1-5.
PICTURES holds index.json as for photographs: pictures, each with its file `image`, its
`mask_file` (0 background, 1.. ids in the order of `classes`, 255 unsure) and `classes`.
OUT gets one 16-bit map, the picture and a mask for each class, and an index.json that
`python benchmarks/masks OUT` reads.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from napari_ovam import class_maps, encode_phrase, load_pipeline, trace_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    pipe = load_pipeline(arguments.model, device=arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    index = []
    listed = json.loads((arguments.pictures / "index.json").read_text())["pictures"]
    for entry in listed:
        image = Image.open(arguments.pictures / entry["image"]).convert("RGB")
        labels = np.array(Image.open(arguments.pictures / entry["mask_file"]))
        image.save(arguments.out / f"{entry['name']}.png")
        trace = trace_image(pipe, np.array(image)).trace
        words = {i: [encode_phrase(pipe, n)] for i, n in enumerate(entry["classes"], 1)}
        for number, found in class_maps(trace, words).items():
            name = f"{entry['name']}_{entry['classes'][number - 1]}".replace(" ", "_")
            mask = np.where(labels == 255, 255, labels == number).astype(np.uint8)
            Image.fromarray(mask).save(arguments.out / f"{name}_mask.png")
            pixels = (found * 65535).round().astype(np.uint16)
            Image.fromarray(pixels).save(arguments.out / f"{name}_map.png")
            index.append(
                {
                    "name": name,
                    "kind": "word",
                    "image": f"{entry['name']}.png",
                    "map": f"{name}_map.png",
                    "mask": f"{name}_mask.png",
                    "model": arguments.model,
                }
            )
        text = json.dumps({"maps": index}, indent=1)
        (arguments.out / "index.json").write_text(text + "\n")
        print(f"{len(index)} maps: {entry['name']}", flush=True)


if __name__ == "__main__":
    main()
