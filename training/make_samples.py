"""Generate the scenes of File > Open Sample, each with a small trace.

    python training/make_samples.py

Two calls in the middle of the schedule, in half precision as by default, are enough to
map phrases on.
Run it again when the embedded model has changed: a trace fits one model only.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from PIL import Image, PngImagePlugin

import napari_ovam as ovam

OUT = Path("src/napari_ovam/samples")
SAMPLES = {
    "cat-and-hat": ("a cat and a hat on the grass", 8),
    "car": ("a car in the snow", 9),
}
CALLS = 2
LIMIT = 2_000_000  # bytes, of all files together


def main() -> None:
    OUT.mkdir(exist_ok=True)
    pipe = ovam.load_pipeline("tiny", device="cpu")
    for name, (prompt, seed) in SAMPLES.items():
        settings = ovam.GenerationSettings(prompt, seed=seed)
        made = ovam.generate(pipe, settings)
        calls = made.trace.calls
        first = max(0, (len(calls) - CALLS) // 2)
        trace = made.trace.select(calls=calls[first : first + CALLS])
        ovam.save_trace(trace, OUT / f"{name}.safetensors")
        info = PngImagePlugin.PngInfo()
        info.add_itxt("ovam", json.dumps({"model": "tiny", **asdict(made.settings)}))
        Image.fromarray(made.image).save(
            OUT / f"{name}.png", pnginfo=info, optimize=True
        )
    size = sum(path.stat().st_size for path in OUT.iterdir())
    print(f"{len(SAMPLES)} samples, {size / 1e6:.2f} MB")
    if size > LIMIT:
        raise SystemExit(f"more than {LIMIT / 1e6} MB: keep fewer calls or layers")


if __name__ == "__main__":
    main()
