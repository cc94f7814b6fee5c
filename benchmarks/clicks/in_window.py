"""Clicks in napari's window: how long an answer takes, and a session of 20 pictures.

    python benchmarks/clicks/in_window.py            # both
    python benchmarks/clicks/in_window.py --only answers
    python benchmarks/clicks/in_window.py --only session

*Answers*: in a picture of 512 pixels a side an object is clicked and then corrected,
with the mouse; from the press of the button until the mask is drawn, by the clock and
by what the process computed meanwhile, and the longest time that the window could take
no event. Every other time the mouse rested for 0.3 seconds before, which is when the
panel looks at the place; a person rests as well, to aim.

*Session*: 20 generated test pictures of a project, with their prompts; the first is
painted, Propose labels is pressed,
and each of the others is accepted with a key as soon as all its objects have the IoU
that is wanted: before that, clicks in the middle of the largest error correct them.
Beside it stands the brush alone, up to the same IoU: for each object the largest round
brush that reaches it, along its border and inwards, or along its border and with one
fill.

A person's seconds are those of the keystroke-level model (Card, Moran & Newell 1980):
1.1 to point, 0.2 for a click, 0.28 for a key, 1.35 to look (once a picture and before
each click or stroke), and 300 pixels of the screen a second while the button is held,
in a picture that is shown 800 pixels high.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.measure import find_contours

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / name) for name in ("panel", "quality")]
sys.path.insert(0, str(HERE.parents[1] / "docs" / "screenshots"))

from data import GENERATED, read_scenes  # noqa: E402
from window import Window, display  # noqa: E402

from napari_ovam import GenerationSettings, iou, load_pipeline  # noqa: E402
from napari_ovam.diffusion.generation import resolve_settings  # noqa: E402
from napari_ovam.project import Project  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

    from data import Scene
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

SIDE, ANSWERS = 512, 20
PICTURES, WANTED, MOST = 20, 0.9, 10
POINT, CLICK, KEY, LOOK, SPEED, HIGH = 1.1, 0.2, 0.28, 1.35, 300.0, 800.0


def middle(mask: Mask) -> tuple[int, int, float]:
    """Return the pixel that is deepest in a mask, and how deep."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column), float(depth.max())


class Hand:
    """A mouse and a keyboard in the window, which count what they do."""

    def __init__(self, shown: Window) -> None:
        from film import Film

        self.shown, self.session = shown, shown.session
        self.film = Film(shown)
        self.done: Counter[str] = Counter()

    @property
    def layer(self) -> Any:
        return self.session.layers.labels(self.session.current.key)

    def click(
        self, row: int, column: int, positive: bool = True, rest: float = 0.3
    ) -> tuple[float, ...]:
        """Click, and return the seconds until its answer is drawn.

        By the clock, that the process computed, and that its window's thread did. The
        mouse has been there for so many seconds before.
        """
        from film import LEFT, RIGHT
        from qtpy.QtTest import QTest
        from qtpy.QtWidgets import QApplication

        tool = self.session.clicks
        at, canvas = self.film.on_picture(row, column), self.film._canvas
        QTest.mouseMove(canvas, at)
        if rest:
            self.shown.pump(rest)
        clocks = time.perf_counter, time.process_time, time.thread_time
        start = [clock() for clock in clocks]
        QTest.mouseClick(canvas, LEFT if positive else RIGHT, pos=at)
        while tool.busy:
            QApplication.processEvents()
            time.sleep(0.0005)
        QApplication.processEvents()
        self.done["click"] += 1
        return tuple(clock() - then for clock, then in zip(clocks, start, strict=True))

    def key(self, text: str, count: bool = True) -> None:
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        QTest.keyClick(self.film._canvas, getattr(Qt.Key, f"Key_{text}"))
        self.shown.pump(0.1)
        self.done["key"] += count


# -- answers -------------------------------------------------------------------------


def measure_answers(home: Path) -> None:
    """Click objects in a picture of 512², and correct them."""
    from watch import Watch

    scenes = read_scenes(HERE.parent / "quality" / "scenes.zip")
    scene = next(s for s in scenes if s.split == "test" and len(s.classes) == 2)
    size = SIDE, SIDE
    image = np.array(
        Image.fromarray(scene.image).resize(size, Image.Resampling.BICUBIC)
    )
    labels = np.array(
        Image.fromarray(scene.labels).resize(size, Image.Resampling.NEAREST)
    )
    project = Project.create(home / "one")
    project.classes.add("thing")
    project.add_sample(image, name="one")
    project.save()
    shown = Window(home, project.path)
    shown.press("click_button")
    shown.press("look_button")
    shown.viewer.reset_view()
    shown.pump(2)
    hand, watch = Hand(shown), Watch()
    random = np.random.default_rng(0)
    times: dict[str, list[Any]] = {}
    for number in range(-1, 2 * ANSWERS):  # the first one warms up
        rest, how = (0.3, "rested 0.3 s") if number % 2 else (0, "came just now")
        exact = labels == random.choice(list(scene.classes.values()))
        inside = np.argwhere(distance_transform_edt(exact) > 6)
        place, positive = random.choice(inside), True
        for kind in ("first click", "correction"):
            watch.begin("answer")
            seconds = hand.click(*place, positive, rest)
            watch.begin("")
            if number >= 0:
                times.setdefault(f"{kind}, the mouse {how}", []).append(seconds)
            answer = shown.session.clicks._answer
            error = exact ^ answer.found.mask
            row, column, _ = middle(error)
            place, positive = (row, column), bool(exact[row, column])
        hand.key("Escape")
    print("| click | press to mask, ms | 90 % | computed | by the window's thread |")
    print("|---|---|---|---|---|")
    for kind, found in times.items():
        (clock, computed, ours), late = np.median(found, 0), np.quantile(found, 0.9, 0)
        cells = " | ".join(f"{1e3 * c:.0f}" for c in (clock, late[0], computed, ours))
        print(f"| {kind} | {cells} |")
    blocks = [1e3 * block.wall for block in watch.blocks]
    worst = max(watch.blocks, key=lambda block: block.wall, default=None)
    print(f"longest block {max(blocks, default=0):.0f} ms", end="")
    print(f", in {worst.seen}" if worst else "", flush=True)
    shown.session.close()
    shown.viewer.close()


# -- a session -----------------------------------------------------------------------


def choose(scenes: Iterable[Scene]) -> list[Scene]:
    """Return test scenes of as few classes as there are 20 of."""
    test = [s for s in scenes if s.split == "test"]
    count = Counter(name for s in test for name in s.classes)
    names: set[str] = set()
    for name, _ in count.most_common():
        names.add(name)
        found = [s for s in test if set(s.classes) <= names]
        if len(found) >= PICTURES:
            return found[:PICTURES]
    return test[:PICTURES]


def brush(exact: Mask, wanted: float) -> tuple[float, int, float]:
    """Return seconds, strokes and path (pixels) of a brush up to an IoU."""
    depth = distance_transform_edt(np.pad(exact, 1))
    for radius in np.arange(depth.max() - 0.5, 0.4, -0.5):
        painted = distance_transform_edt(depth < radius) <= radius
        if radius <= 1 or iou(painted[1:-1, 1:-1], exact.astype(np.uint8)) >= wanted:
            break
    screen = HIGH / exact.shape[0]
    loops, lengths = [], []
    for level in np.arange(radius, depth.max(), 2 * radius):
        found = find_contours(depth, level)
        loops.append(max(1, len(found)))
        lengths.append(sum(np.hypot(*np.diff(c, axis=0).T).sum() for c in found))
    each = LOOK + POINT + CLICK
    whole = sum(loops) * each + sum(lengths) * screen / SPEED
    filled = 2 * loops[0] * each + lengths[0] * screen / SPEED
    if filled < whole:
        return filled, 2 * loops[0], lengths[0]
    return whole, sum(loops), sum(lengths)


def worst_class(labels: Any, exact: Any, ids: list[int]) -> tuple[float, int]:
    """Return the lowest IoU of the classes that are or should be there, and its id."""
    there = [i for i in ids if (labels == i).any() or (exact == i).any()]
    return min((iou(labels == i, (exact == i).astype(np.uint8)), i) for i in there)


def measure_session(home: Path) -> None:
    """Work through 20 pictures with accept and clicks."""
    scenes, pipe = choose(read_scenes(GENERATED)), load_pipeline("tiny", device="cpu")
    names = sorted({name for s in scenes for name in s.classes})
    project = Project.create(home / "twenty")
    numbers = {name: project.classes.add(name).id for name in names}
    exacts = []
    for number, scene in enumerate(scenes):
        made = resolve_settings(pipe, GenerationSettings(scene.prompt, seed=scene.seed))
        project.add_sample(
            scene.image, {"model": "tiny", **asdict(made)}, f"picture-{number:02}"
        )
        exact = np.zeros(scene.labels.shape, np.uint8)
        for name in scene.classes:
            exact[scene.mask(name) == 1] = numbers[name]
        exacts.append(exact)
    project.save()
    shown = Window(home, project.path)
    shown.dock("OVAM project")
    shown.viewer.reset_view()
    hand, session = Hand(shown), shown.session
    layer = hand.layer
    with layer.block_history():  # what a brush would have painted
        places = np.nonzero(exacts[0])
        layer.data_setitem(places, exacts[0][places].astype(layer.data.dtype))
    session.do("accept")
    shown.wait(1)
    start = time.monotonic()
    session.proposing.propose(session.projects.keys)
    shown.wait(1)
    print(f"proposed in {time.monotonic() - start:.0f} s; classes {names}", flush=True)
    rows = []
    for number in range(1, len(scenes)):
        key, exact = f"picture-{number:02}", exacts[number]
        session.select(key)
        while session.current.key != key:
            shown.pump(0.1)
        shown.wait(0.3)
        rows.append(review(hand, exact, sorted(numbers.values())))
        print(f"{key}: {rows[-1]}", flush=True)
    table = np.array(rows, float)
    ours = table[:, 0] * (LOOK + POINT + CLICK) + table[:, 1] * KEY + LOOK + table[:, 2]
    print("\n| | accepted at once | clicks | keys | waiting, s | seconds | mean IoU |")
    print("|---|---|---|---|---|---|---|")
    untouched = int((table[:, 0] == 0).sum())
    cells = [f"{x:.1f}" for x in (*table[:, :3].mean(0), ours.mean())]
    print(
        f"| accept or click | {untouched} of {len(rows)} | {' | '.join(cells)} | "
        f"{table[:, 3].mean():.3f} |"
    )
    print(
        f"| brush alone | – | {table[:, 5].mean():.1f} strokes, "
        f"{table[:, 6].mean():.0f} px | – | – | {table[:, 4].mean() + LOOK:.1f} | "
        f"{table[:, 3].mean():.3f} |",
        flush=True,
    )
    session.close()
    shown.viewer.close()


def review(hand: Hand, exact: Any, ids: list[int]) -> tuple[float, ...]:
    """Correct the picture that is shown by clicks, and accept it.

    Returns
    -------
    Clicks, keys, seconds of waiting for answers, mean IoU of the objects; and seconds,
    strokes and path of a brush up to the same.
    """
    session, done = hand.session, Counter(hand.done)
    waited = 0.0
    session.clicks.set_on(True)
    clicks = 0
    while clicks < MOST:
        score, number = worst_class(hand.layer.data, exact, ids)
        if score >= WANTED:
            break
        hand.layer.selected_label = number
        hand.done["key"] += 1  # of the class
        mask = hand.layer.data == number
        while clicks < MOST and iou(mask, (exact == number).astype(np.uint8)) < WANTED:
            row, column, _ = middle(mask ^ (exact == number))
            positive = bool(exact[row, column] == number)
            waited += hand.click(row, column, positive)[0]
            clicks += 1
            mask = session.clicks._answer.found.mask
        hand.key("Return")
    session.take_edits(session.current)
    labels = hand.layer.data.copy()
    there = [i for i in ids if (exact == i).any()]
    scores = {i: iou(labels == i, (exact == i).astype(np.uint8)) for i in there}
    brushed = np.sum([brush(exact == i, scores[i]) for i in there], 0)
    session.do("accept")
    hand.done["key"] += 1
    hand.shown.wait(0.3)
    counted = hand.done - done
    score = float(np.mean(list(scores.values())))
    return counted["click"], counted["key"], waited, score, *brushed.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=("answers", "session"))
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with display() as home:
        if arguments.only != "session":
            measure_answers(home)
        if arguments.only != "answers":
            measure_session(home)
    print(f"load {os.getloadavg()[1]:.1f}, {time.strftime('%F')}", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
