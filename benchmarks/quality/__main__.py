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
import json
import platform
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from data import GENERATED, HERE, PLAIN, Data, Kind, read_scenes, weights_hash
from doubts import doubts
from downstream import downstream
from methods import RECIPES, Method
from presence import presence
from runs import Runner
from tables import write_tables
from together import together

from napari_ovam import load_pipeline

RESULTS = HERE / "results.json"
PARTS = ("main", "traces", "recipes", "generated", "calls")
PARTS += ("together", "together_generated", "doubts", "downstream")
# What docs/quality.md recommends, and the program does.
BEST: dict[str, Any] = {"layers": "fine", "rule": "program"}
SPREAD = (0.25, 0.5, 0.75)
PROGRAM = Kind(branch="cond", calls=SPREAD)  # what `TraceSettings` keeps
Rows = list[tuple[str, int, Method]]


def main_rows() -> Rows:
    rows = [
        ("plain word, fixed threshold", 1, Method("word", rule="fixed")),
        ("plain word", 1, Method("word")),
        ("plain word", 10, Method("word")),
        ("plain token", 1, Method("default")),
        ("plain token", 10, Method("default")),
        ("word, fine", 1, Method("word", "fine")),
        ("token, fine", 1, Method("default", "fine")),
        ("**word, as the program**", 1, Method("word", **BEST)),
    ]
    for count in (1, 3, 10):
        rows += [
            ("token alone, as the program", count, Method("default", **BEST)),
            ("**token with its word, as the program**", count, JOINT),
        ]
    return rows


JOINT = Method("default", joint=True, **BEST)


def trace_rows() -> Rows:
    layers: list[str | int] = ["all", "fine", 32, 16, 8]
    kinds = {
        "noise at 0": Kind(0, 1),
        "noise at 300": Kind(300),
        "noise at 600": Kind(600),
        "8 draws of noise": Kind(noise_seeds=8),
        "prompted with its classes": Kind(prompted=True),
    }
    sources = (("word", False), ("default", True))
    rows = []
    for source, joint in sources:
        for layer in layers:
            method = replace(Method(source, joint=joint, **BEST), layers=layer)
            rows.append((f"layers: {layer}", 1, method))
        for title, kind in {"as is": PLAIN, **kinds}.items():
            method = Method(source, joint=joint, kind=kind, **BEST)
            rows.append((title, 1, method))
    return rows


def recipe_rows() -> Rows:
    names = [name for name in RECIPES if not name.startswith("ovam")]
    rows = []
    for count in (1, 3):
        rows.append(("word", count, Method("word", **BEST)))
        for name in names:
            rows.append((f"{name}, alone", count, Method(name, **BEST)))
            rows.append((name, count, Method(name, joint=True, **BEST)))
    return rows


def ovam_rows() -> Rows:
    rows = []
    for name in ("word", "default", "30 steps", "ovam"):
        rows.append((f"{name}, all layers, fitted", 1, Method(name)))
        rows.append((f"{name}, as the program", 1, Method(name, **BEST)))
        if name != "word":
            joint = Method(name, joint=True, **BEST)
            rows.append((f"{name} with its word, as the program", 1, joint))
    return rows


def generated_rows() -> Rows:
    rows = [
        ("plain word, fixed threshold", 1, Method("word", rule="fixed")),
        ("plain word", 1, Method("word")),
        ("plain token", 1, Method("default")),
    ]
    rows += [
        ("word, as the program", 1, Method("word", **BEST)),
        ("token, as the program", 1, Method("default", **BEST)),
        ("token with its word, as the program", 1, JOINT),
    ]
    kinds = {
        "conditional half": Kind(branch="cond"),
        "**conditional half, three calls spread: as the program**": PROGRAM,
        "three calls spread": Kind(calls=SPREAD),
    }
    rows += [
        (title, 1, Method(source, joint=joint, kind=kind, **BEST))
        for source, joint in (("word", False), ("default", True))
        for title, kind in kinds.items()
    ]
    return rows


def call_rows() -> Rows:
    kinds = {
        "all calls": Kind(),
        "conditional half": Kind(branch="cond"),
        "the middle call": Kind(calls=(0.5,)),
        "three in the middle": Kind(calls=(0.4, 0.5, 0.6)),
        "three spread": Kind(calls=SPREAD),
        "the last": Kind(calls=(1.0,)),
        "three at the end": Kind(calls=(0.9, 0.95, 1.0)),
        "the first": Kind(calls=(0.0,)),
        "five spread": Kind(calls=(0.1, 0.3, 0.5, 0.7, 0.9)),
    }
    return [
        (title, 1, Method(source, joint=joint, kind=kind, **BEST))
        for source, joint in (("word", False), ("default", True))
        for title, kind in kinds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ovam", action="store_true")
    parser.add_argument("--only", nargs="*", default=[*PARTS])
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

    @cache
    def drawn() -> Data:
        return Data(pipe, data.key, read_scenes(GENERATED))

    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    parts = {
        "main": lambda: runner.run(main_rows(), "test"),
        "traces": lambda: few.run(trace_rows(), "development", draws=1),
        "recipes": lambda: few.run(recipe_rows(), "development", draws=1),
        "generated": lambda: Runner(drawn(), drawn().names[::every]).run(
            generated_rows(), "test"
        ),
        "calls": lambda: Runner(drawn(), drawn().names[:: max(every, 3)]).run(
            call_rows(), "test", draws=1
        ),
        "ovam": lambda: four.run(ovam_rows(), "development", draws=1),
    }
    others = {
        "downstream": lambda: downstream(data, drawn(), PROGRAM, quick=arguments.quick),
        "doubts": lambda: doubts(data),
        "together": lambda: together(data, PLAIN),
        "together_generated": lambda: together(drawn(), PROGRAM),
    }
    for part in [*arguments.only, *["ovam"] * arguments.ovam]:
        begin = time.perf_counter()
        print(part, flush=True)
        if part in others:
            known[part] = about(data) | {"rows": others[part]()}
            arguments.out.write_text(json.dumps(known, indent=1) + "\n")
            continue
        found = [row.as_dict() for row in parts[part]()]
        if part == "main":
            found.insert(0, runner.ceiling("test", 32).as_dict())
            known["presence"] = about(data) | {
                "rows": [
                    row
                    for source, layers in (("word", "fine"), ("default", "fine"))
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


if __name__ == "__main__":
    main()
