"""Whether corrections that learn make the next proposals better, in sequences.

    python benchmarks/quality/learning.py              # the table of docs/proposals.md
    python benchmarks/quality/learning.py --classes 3  # fewer, to see that it runs

Pictures are accepted one by one, with their exact masks, in a project; after each, the
class learns as it does in the panel, and pictures that were left out are proposed anew.
Mean IoU of the class in their labels, with the word that the project begins with and
with what it has learned; how many classes it fell for, and the largest fall; seconds
that a class took to learn. "thing" is a word that says nothing of the class.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from data import GENERATED, HERE, PLAIN, Data, Kind, Scene, read_scenes, weights_hash

from napari_ovam import ProposalSettings, improve_tokens, iou, load_pipeline, propose
from napari_ovam.project import Project
from napari_ovam.project.token_library import TokenLibrary
from napari_ovam.workflows.improving import ImproveSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCEPTED, AFTER = 8, (2, 3, 4, 6, 8)
PROGRAM = Kind(branch="cond", calls=(0.25, 0.5, 0.75))
SETTINGS = replace(ImproveSettings.quick("fine"), store="better")


@dataclass(frozen=True)
class World:
    """Pictures, what they are called in the table, and the word of the class."""

    title: str
    data: Data
    kind: Kind
    word: str = ""

    def dealt(self, name: str) -> tuple[list[Scene], list[Scene]]:
        """Return the pictures of a class that are accepted, and those left out."""
        data = self.data
        pool, rest = data.of("annotated", name), data.of("test", name)
        if self.kind is PLAIN:
            pool = pool + data.of("development", name)
        else:
            pool, rest = pool + rest, []
        random = np.random.default_rng([7, data.names.index(name)])
        mixed = [pool[i] for i in random.permutation(len(pool))]
        return mixed[:ACCEPTED], rest or mixed[ACCEPTED:]


class Sequence:
    """A project in which pictures of one class are accepted one by one."""

    def __init__(self, folder: Path, world: World, name: str) -> None:
        self.project, self.world = Project.create(folder / "project"), world
        for each in world.data.names:
            self.project.classes.add(each)
        self.number = self.project.classes.find(name).id
        self.project.classes.change(self.number, phrase=world.word or name)
        self.library = TokenLibrary(folder / "library")
        self.accepted, self.left_out = world.dealt(name)
        self.seconds: list[float] = []
        for scene in self.left_out:
            self._add(scene)

    def _add(self, scene: Scene) -> str:
        name = f"{scene.number:03d}"
        prompt = " and ".join(f"a {each}" for each in scene.classes)
        self.project.add_sample(scene.image, {"prompt": prompt}, name)
        trace = self.world.data.trace(scene, self.world.kind).fine()
        self.project.save_trace(name, trace)
        return name

    def scores(self) -> Iterator[tuple[int, float]]:
        """Yield the mean IoU of proposals after 0, 2, ... accepted pictures."""
        yield 0, self._score()
        for count, scene in enumerate(self.accepted, 1):
            name = self._add(scene)
            labels = np.full_like(scene.labels, 0)
            for each, number in scene.classes.items():
                known = self.project.classes.find(each).id
                labels[scene.labels == number] = known
            labels[scene.labels == 255] = 255
            self.project.save_labels(name, labels, "accepted")
            begin = time.perf_counter()
            improve_tokens(
                self.project,
                self.world.data.pipe,
                [self.number],
                settings=SETTINGS,
                library=self.library,
            )
            if count > 1:
                self.seconds.append(time.perf_counter() - begin)
            if count in AFTER:
                yield count, self._score()

    def _score(self) -> float:
        """Propose the pictures left out anew; return how well the class is found."""
        names = {f"{scene.number:03d}": scene for scene in self.left_out}
        settings = ProposalSettings(redo=True)
        report = propose(
            self.project, self.world.data.pipe, list(names), settings=settings
        )
        assert not report.failed, report.failed
        name = self.project.classes[self.number].name
        return float(
            np.mean(
                [
                    iou(self.project.load_labels(key) == self.number, scene.mask(name))
                    for key, scene in names.items()
                ]
            )
        )


def worlds(pipe: Any) -> list[World]:
    key = weights_hash(pipe)
    composed = Data(pipe, key, read_scenes(HERE / "scenes.zip"))
    generated = Data(pipe, key, read_scenes(GENERATED))
    return [
        World("composed, its word", composed, PLAIN),
        World("generated, its word", generated, PROGRAM),
        World('composed, "thing"', composed, PLAIN, "thing"),
    ]


def row(title: str, found: dict[int, list[float]], seconds: list[float]) -> str:
    word = np.array(found[0])
    cells = [title, f"{word.mean():.3f}"]
    falls = [np.array(found[count]) - word for count in AFTER]
    cells += [f"{np.mean(found[count]):.3f}" for count in AFTER]
    last = falls[-1]
    cells.append(f"{(last > 0).sum()}, {(last < 0).sum()}")
    cells.append(f"{max(0.0, -min(float(fall.min()) for fall in falls)):.3f}")
    cells.append(f"{np.median(seconds):.1f}, {max(seconds):.1f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--classes", type=int, default=12)
    parser.add_argument("--verbose", action="store_true", help="each class")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pipe = load_pipeline("tiny", device="cpu")
    after = " | ".join(map(str, AFTER))
    print(f"| pictures | 0 | {after} | better, worse | largest fall | s a class |")
    print("|---" * (len(AFTER) + 5) + "|")
    for world in worlds(pipe):
        names = world.data.names[:: len(world.data.names) // arguments.classes]
        found, seconds = defaultdict(list), list[float]()
        for name in names[: arguments.classes]:
            with tempfile.TemporaryDirectory() as folder:
                sequence = Sequence(Path(folder), world, name)
                for count, score in sequence.scores():
                    found[count].append(score)
                seconds += sequence.seconds
            if arguments.verbose:
                print(name, {k: round(v[-1], 3) for k, v in found.items()}, flush=True)
        print(row(world.title, found, seconds), flush=True)


if __name__ == "__main__":
    main()
