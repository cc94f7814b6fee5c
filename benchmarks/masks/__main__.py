"""How good are the labels that maps become? One table over all worlds.

    python benchmarks/masks FOLDER             # photographs and real maps in a folder
    python benchmarks/masks FOLDER --drawn     # and composed and generated pictures
    python benchmarks/masks --split development --drawn

FOLDER holds photographs (index.json, degrade.py) or recorded maps (index.json as
`record_maps.py` writes it from a model), itself or in its folder attention/. For each
world: mean IoU by the object's share of the picture, boundary F, and the same for a
threshold of 0.45 without the rule. --worst lists the masks that came out worst, and
--sheet draws the pictures that hold them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import worlds
from measure import boundary_f
from sheet import save_sheet

from napari_ovam import class_labels, iou

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from worlds import Case

SHARES = {"< 3 %": 0.03, "3-10": 0.1, "10-35": 0.35, "> 35": 1.01}


@dataclass(frozen=True)
class Score:
    """Of one mask: its world, case and class, the object's share, IoU, boundary F.

    `found` are the labels (H, W) of all classes.
    """

    source: str
    name: str
    way: str
    share: float
    iou: float
    boundary: float
    case: Case
    found: Any


def rule(case: Case) -> Any:
    maps = dict(enumerate(case.maps, 1))
    return class_labels(maps, dict.fromkeys(maps), case.image)


def threshold(case: Case) -> Any:
    return np.where(case.maps.max(0) >= 0.45, case.maps.argmax(0) + 1, 0)


WAYS: dict[str, Callable[[Case], Any]] = {"rule": rule, "threshold 0.45": threshold}


def scores(cases: Iterable[Case]) -> Iterator[Score]:
    for case in cases:
        known = case.labels != 255
        for way, label in WAYS.items():
            found = label(case)
            for number in range(1, len(case.maps) + 1):
                exact, mask = case.labels == number, (found == number) & known
                target = np.where(known, exact, 255).astype(np.uint8)
                yield Score(
                    case.source,
                    f"{case.name}, class {number}",
                    way,
                    float(exact.mean()),
                    iou(mask, target),
                    boundary_f(mask, exact),
                    case,
                    found,
                )


def table(found: list[Score]) -> str:
    lines = [
        "| maps | labels by | mIoU | boundary F | " + " | ".join(SHARES) + " | masks |",
        "|---|---|" + "---|" * (len(SHARES) + 3),
    ]
    keys = sorted({(score.source, score.way) for score in found})
    for source, way in keys:
        rows = [s for s in found if (s.source, s.way) == (source, way)]
        cells = []
        for low, high in itertools.pairwise([0.0, *SHARES.values()]):
            part = [s.iou for s in rows if low <= s.share < high]
            cells.append(f"{np.mean(part):.3f} ({len(part)})" if part else "")
        mean, border = (
            np.mean([getattr(s, a) for s in rows]) for a in ("iou", "boundary")
        )
        lines.append(
            f"| {source} | {way} | {mean:.3f} | {border:.3f} | "
            + " | ".join(cells)
            + f" | {len(rows)} |"
        )
    return "\n".join(lines)


def chosen(arguments: argparse.Namespace) -> Iterator[Case]:
    for folder in arguments.folder:
        for place in (folder, folder / "attention"):
            index = place / "index.json"
            if index.exists():
                kinds = json.loads(index.read_text())
                world = worlds.recorded if "maps" in kinds else worlds.photographs
                yield from world(place)
    if arguments.drawn:
        for archive in ("scenes.zip", "generated.zip"):
            yield from worlds.drawn(archive, arguments.split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="*", type=Path)
    parser.add_argument("--drawn", action="store_true")
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=1, help="of the cases")
    parser.add_argument("--worst", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="where the worst are drawn")
    parser.add_argument("--out", type=Path, help="where all scores go, as JSON")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    cases = itertools.islice(chosen(arguments), 0, None, arguments.every)
    found = list(scores(cases))
    print(table(found))
    print(f"\n{time.perf_counter() - begin:.0f} s")
    by_rule = [score for score in found if score.way == "rule"]
    worst = {}  # of a picture, its worst mask
    for score in sorted(by_rule, key=lambda s: s.iou):
        worst.setdefault(id(score.case), score)
    shown = list(worst.values())[: arguments.worst]
    for number, score in enumerate(shown, 1):
        said = f"{score.source}: {score.name} ({score.share:.1%})"
        print(f"{number}. {score.iou:.2f} {said}")
    if arguments.sheet:
        save_sheet([(score.case, score.found) for score in shown], arguments.sheet)
    if arguments.out:
        kept = ("source", "name", "way", "share", "iou", "boundary")
        rows = [{name: getattr(score, name) for name in kept} for score in found]
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
