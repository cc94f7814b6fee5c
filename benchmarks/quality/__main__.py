"""How good are the masks? Scores on composed scenes whose masks are exact.

    python benchmarks/quality                  # the tables of docs/quality.md
    python benchmarks/quality --quick          # four classes, to see that it runs
    python benchmarks/quality --ovam           # also the published recipe (slow)
    python benchmarks/quality --write-docs     # write the tables into docs/quality.md

Writes results.json beside this file; a part that was not run keeps its results.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from data import HERE, PLAIN, Data, Kind, read_scenes
from methods import RECIPES, Method
from presence import presence
from runs import Runner
from tables import write_tables

from napari_ovam import load_pipeline

RESULTS = HERE / "results.json"
BEST = "cross-entropy + Dice"
LAST = ("walk",)


def main_rows() -> list[tuple[str, int, Method]]:
    rows = [("word, fixed threshold", 1, Method("word", rule="fixed"))]
    rows += [("token, default", count, Method("default")) for count in (1, 3)]
    for count in (1, 3, 10):
        rows += [
            ("word", count, Method("word")),
            ("word, fine", count, Method("word", "fine")),
            (f"token, {BEST}, fine", count, Method(BEST, "fine")),
            ("word, fine, walk", count, Method("word", "fine", LAST, "halfway")),
            (
                f"token, {BEST}, fine, walk",
                count,
                Method(BEST, "fine", LAST, "halfway"),
            ),
        ]
    return rows


def refinement_rows() -> list[tuple[str, int, Method]]:
    steps: list[tuple[str, ...]] = [
        (),
        ("flip",),
        ("attention half",),
        ("attention 16 half",),
        ("attention 16 twice",),
        ("superpixels",),
        ("guided",),
        ("guided 6",),
        ("walk 0.002",),
        ("walk 0.006",),
        ("walk",),
        ("walk 0.024",),
        ("attention 16 half", "walk"),
        ("flip", "walk"),
    ]
    return [
        (" + ".join(each) or "none", 1, Method(source, "fine", each, rule))
        for source in ("word", BEST)
        for each in steps
        for rule in ("fitted", "halfway")
    ]


def trace_rows() -> list[tuple[str, int, Method]]:
    layers: list[str | int] = ["all", "fine", 32, 16, 8]
    kinds = {
        "noise at 0": Kind(0, 1),
        "noise at 300": Kind(300),
        "noise at 600": Kind(600),
        "8 draws of noise": Kind(noise_seeds=8),
        "prompted with its classes": Kind(prompted=True),
    }
    sources = ("word", "default")
    rows = [(f"layers: {la}", 1, Method(s, la)) for la in layers for s in sources]
    rows += [
        (title, 1, Method(source, "fine", kind=kind))
        for title, kind in {"as is": PLAIN, **kinds}.items()
        for source in sources
    ]
    return rows


def recipe_rows() -> list[tuple[str, int, Method]]:
    names = [name for name in RECIPES if not name.startswith("ovam")]
    return [
        (name, count, Method(name, "fine", steps, rule))
        for steps, rule, counts in (((), "fitted", (1,)), (LAST, "halfway", (1, 3)))
        for count in counts
        for name in ["word", *names]
    ]


def ovam_rows() -> list[tuple[str, int, Method]]:
    return [
        (name, 1, Method(name, layers))
        for layers in ("all", "fine")
        for name in ("word", "default", BEST, "ovam")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ovam", action="store_true")
    parser.add_argument(
        "--only", nargs="*", default=["main", "refinement", "traces", "recipes"]
    )
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    pipe = load_pipeline(arguments.model, device="cpu")
    data = Data(pipe, weights_hash(pipe), read_scenes())
    every = 6 if arguments.quick else 1
    runner = Runner(data, data.names[::every])
    four = Runner(data, data.names[::6])
    few = Runner(data, data.names[:: max(every, 3)])
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    parts = {
        "main": lambda: runner.run(main_rows(), "test"),
        "refinement": lambda: runner.run(refinement_rows(), "test", draws=1),
        "traces": lambda: few.run(trace_rows(), "development", draws=1),
        "recipes": lambda: few.run(recipe_rows(), "development", draws=1),
        "ovam": lambda: four.run(ovam_rows(), "development", draws=1),
    }
    for part in [*arguments.only, *["ovam"] * arguments.ovam]:
        begin = time.perf_counter()
        print(part, flush=True)
        found = [row.as_dict() for row in parts[part]()]
        if part == "main":
            found.insert(0, runner.ceiling("test", 32).as_dict())
            known["presence"] = about(data) | {
                "rows": [
                    row
                    for source, layers in (("word", "fine"), (BEST, "fine"))
                    for row in presence(data, source, layers)
                ]
            }
        took = time.perf_counter() - begin
        known[part] = about(data) | {"seconds": round(took), "rows": found}
        arguments.out.write_text(json.dumps(known, indent=1) + "\n")
        print(f"{part}: {took:.0f} s")
    if arguments.write_docs:
        write_tables(known)


def about(data: Data) -> dict[str, Any]:
    return {
        "model": data.key,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }


def weights_hash(pipe: Any) -> str:
    """Return a fingerprint of all weights: traces of another model are no use."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (pipe.text_encoder, pipe.unet, pipe.vae):
        for weight in part.state_dict().values():
            digest.update(weight.float().cpu().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
