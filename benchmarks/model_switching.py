"""What switching between models leaves in memory.

Three models of different classes are loaded in turn, A, B, C and A again: the embedded
one, a random Stable Diffusion XL and a random PixArt (tests/small_models.py, made wide
enough that a copy left behind would be seen). Each draws an image and maps a phrase,
and is given up. After each round it says how much memory the process holds, and how
much of that is tensors. With --device cuda the device's memory is shown as well.

    python benchmarks/model_switching.py [--rounds 10] [--device cpu]
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import tempfile
import warnings
from pathlib import Path

import psutil
import torch

from napari_ovam import (
    GenerationSettings,
    encode_phrase,
    generate,
    load_pipeline,
    phrase_map,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import small_models

WARM_UP = 2  # rounds
MB = 1e6


def switch(model: str, device: str) -> None:
    """Load a model, use it once, and give it up."""
    pipe = load_pipeline(model, device=device)
    made = generate(pipe, GenerationSettings("a cat on the grass", steps=2))
    phrase_map(made.trace, encode_phrase(pipe, "cat"))


def resident() -> float:
    """Return the megabytes of memory that this process holds."""
    return psutil.Process().memory_info().rss / MB


def tensors() -> float:
    """Return the megabytes of all tensors alive, each storage counted once."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of objects that dislike being looked at
        alive = [o for o in gc.get_objects() if isinstance(o, torch.Tensor)]
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in alive)}
    return sum(storages.values()) / MB


def weights(pipe: object) -> float:
    """Return the megabytes of a pipeline's weights."""
    parts = [p for p in pipe.components.values() if isinstance(p, torch.nn.Module)]
    return sum(w.nbytes for part in parts for w in part.parameters()) / MB


def main() -> None:
    """Run the rounds and print what each left."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    rounds, device = arguments.rounds, arguments.device
    with tempfile.TemporaryDirectory() as folder:
        models = {"tiny": "tiny"}
        makers = {
            "xl": lambda: small_models.xl(channels=(128, 256)),
            "pixart": lambda: small_models.pixart(head_dim=256),
        }
        for name, make in makers.items():
            pipe = make()
            print(f"{name}: {type(pipe).__name__}, {weights(pipe):.0f} MB of weights")
            models[name] = str(Path(folder) / name)
            pipe.save_pretrained(models[name])
            del pipe
        pipe = load_pipeline("tiny", device="cpu")
        print(f"tiny: {type(pipe).__name__}, {weights(pipe):.0f} MB of weights")
        if tensors() < weights(pipe):
            raise SystemExit("the count of tensors misses those of a loaded model")
        del pipe
        print("round  resident MB  tensors MB")
        after = []
        for number in range(WARM_UP + rounds):
            for name in ("tiny", "xl", "pixart", "tiny"):
                switch(models[name], device)
            alive = tensors()
            after.append((resident(), alive))
            line = f"{number:5}  {after[-1][0]:11.1f}  {after[-1][1]:10.2f}"
            if device.startswith("cuda"):
                line += f"  {torch.cuda.memory_allocated() / MB:.2f} MB on {device}"
                line += f" ({torch.cuda.memory_reserved() / MB:.0f} MB kept by torch)"
            print(line, flush=True)
    grown, tensors_grown = (after[-1][i] - after[WARM_UP - 1][i] for i in range(2))
    switches = 4 * rounds
    levels = [level for level, _ in after[WARM_UP:]]
    print(
        f"after {switches} switches: {grown:+.1f} MB resident "
        f"(from {min(levels):.1f} to {max(levels):.1f} between), "
        f"{tensors_grown:+.2f} MB of tensors; "
        f"{platform.platform()}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
