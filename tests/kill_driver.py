"""Run many short lives of the program and kill each: see test_kill.py.

    python kill_driver.py {edit|model|real} FOLDER SEED LIVES

A warm parent without threads forks a life, which paints, saves, exports, and with
"model" proposes labels and stores tokens, until it is killed (SIGKILL): at a random
time, or right before a random one of its file operations. What it had done is in
shared memory. After each kill the parent opens the project and compares. One project
lives through all of it; with "real" each life has its own, they run side by side, and
the autosave has the program's own delay. Prints a JSON report.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import time
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pycocotools.coco import COCO

from napari_ovam.base.folder_lock import WRITING
from napari_ovam.datasets.exporters import export_dataset
from napari_ovam.project import Project
from napari_ovam.project.autosave import Autosave
from napari_ovam.segmentation.instances.files import load_instances, save_instances
from napari_ovam.segmentation.instances.relabel import find_instances

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (96, 128)
SCALED = 0.1, 0.3  # seconds: the delay of the autosave, and the age of what is safe
REAL = 1.0, 3.0
# Writes that an edit may have to wait for: two batches of the autosave. What a slow or
# busy machine takes for them is added to the age of what is safe, up to REAL's.
WRITES = 6
ROOM = 200_000  # entries of the log
PAINT, RENAME, IMAGE = 1, 2, 3  # what an entry of the log tells
ENTRY = np.dtype([("time", "f8"), ("kind", "i4"), ("sample", "i4"), ("place", "i4")])
HEAD = struct.Struct("qddd")  # entries, longest pause, start of a write, time of death
FORMATS = ("indexed", "coco", "voc")
LOOK = {"noise_seeds": 1, "max_tiles": 1}


class Log:
    """What a life did and when, in memory that outlasts it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, HEAD.size + ROOM * ENTRY.itemsize)
        self.entries = np.frombuffer(self.memory, ENTRY, offset=HEAD.size)
        self.head = np.frombuffer(self.memory, "f8", count=4)
        self.clear()

    def clear(self) -> None:
        HEAD.pack_into(self.memory, 0, 0, 0.0, 0.0, 0.0)

    @property
    def count(self) -> int:
        return HEAD.unpack_from(self.memory)[0]

    def add(self, kind: int, sample: int, place: int) -> None:
        count = self.count
        self.entries[count] = time.monotonic(), kind, sample, place
        struct.pack_into("q", self.memory, 0, count + 1)

    def pause(self, seconds: float) -> None:
        if seconds > self.head[1]:
            self.head[1] = seconds

    def writing(self, since: float) -> None:
        self.head[2] = since

    def died(self) -> None:
        self.head[3] = time.monotonic()


@dataclass
class Known:
    """What was on the disk after the last kill, and must stay there."""

    painted: dict[int, int] = field(default_factory=dict)  # strokes by sample
    name: int = 0  # of class 1
    images: set[str] = field(default_factory=set)


@dataclass
class Life:
    """How long to live, and what to do."""

    number: int
    seconds: float
    steps: int  # file operations to live for; 0 for no limit
    delay: float
    limit: float


def value(place: int) -> int:
    return 1 + place % 3


def sample_name(number: int) -> str:
    return f"sample-{number}"


# -- a life ------------------------------------------------------------------------


def live(folder: Path, life: Life, log: Log, known: Known, pipe: object) -> None:
    """Paint, save and export until the end, which comes from outside or by a step."""
    if life.steps:
        left = life.steps

        def step(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.link"):
                return
            if event == "open" and arguments[1] in ("r", "rb", None):
                return
            if not str(arguments[0]).startswith(str(folder)):
                return
            left -= 1
            if left == 0:
                log.died()
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(step)
    threading.excepthook = failed
    project = Project.open(folder / "project")
    for name in ("save_labels", "add_sample", "save"):
        setattr(project, name, timed(getattr(project, name), log))
    autosave = Autosave(project, delay=life.delay)
    threading.Thread(
        target=export_on_and_on, args=(folder, life, project), daemon=True
    ).start()
    if pipe is not None:
        threading.Thread(
            target=model_on_and_on, args=(folder, project, pipe), daemon=True
        ).start()
    paint_on_and_on(project, autosave, life, log, known)


def timed(write: Callable[..., object], log: Log) -> Callable[..., object]:
    """Tell the log how long writing takes: a slow disk is not the program's fault."""

    def timed_write(*arguments: object, **options: object) -> object:
        outer, start = log.head[2], time.monotonic()
        log.writing(outer or start)
        result = write(*arguments, **options)
        log.writing(outer)
        log.pause(time.monotonic() - start)
        return result

    return timed_write


def failed(what: threading.ExceptHookArgs) -> None:
    """End a life that went wrong by itself."""
    sys.__excepthook__(what.exc_type, what.exc_value or Exception(), what.exc_traceback)
    sys.stderr.flush()
    os._exit(3)


def paint_on_and_on(
    project: Project, autosave: Autosave, life: Life, log: Log, known: Known
) -> None:
    """Make an edit every few milliseconds."""
    choose = random.Random(life.number)  # noqa: S311
    count, name = 3, known.name
    labels = {}
    strokes = {}
    for i in range(count):
        found = project.load_labels(sample_name(i))
        labels[i] = np.zeros(SHAPE, np.uint8) if found is None else found.copy()
        strokes[i] = known.painted.get(i, 0)
        labels[i].flat[strokes[i] :] = 0
    last = time.monotonic()
    while True:
        time.sleep(0.004)
        now = time.monotonic()
        log.pause(now - last - 0.004)
        last = now
        what = choose.random()
        if what < 0.9:
            i = choose.randrange(count)
            place = strokes[i]
            log.add(PAINT, i, place)
            labels[i].flat[place] = value(place)
            strokes[i] += 1
            autosave.save_labels(
                sample_name(i), labels[i], "edited", painted=labels[i] > 0
            )
        elif what < 0.97:
            name += 1
            log.add(RENAME, 0, name)
            project.classes.change(1, name=f"name {name}")
            autosave.save_index()
        elif len(project.samples) < 60:
            number = len(known.images) + log.count
            log.add(IMAGE, number, 0)
            picture = np.full((*SHAPE, 3), number % 256, np.uint8)
            autosave.add_sample(picture, {"prompt": "made"}, f"made-{number}")


def export_on_and_on(folder: Path, life: Life, project: Project) -> None:
    """Export to new folders, and again over an old one."""
    number = 0
    while True:
        number += 1
        out = (
            folder / "exports" / ("again" if number % 2 else f"{life.number}-{number}")
        )
        items = project.items([sample_name(i) for i in range(3)])
        try:
            export_dataset(
                items, project.label_classes(), out, FORMATS, overwrite=number % 2 == 1
            )
        except ValueError:
            time.sleep(0.01)  # nothing is labelled yet
            continue
        labels = project.load_labels(sample_name(0))
        if labels is not None:
            save_instances(project.path, sample_name(0), find_instances(labels))
        time.sleep(0.02)


def model_on_and_on(folder: Path, project: Project, pipe: object) -> None:
    """Propose labels anew and anew, with tokens that change meanwhile."""
    import torch

    from napari_ovam.diffusion.phrases import encode_phrase
    from napari_ovam.project.token_library import TokenLibrary
    from napari_ovam.workflows.proposals import ProposalSettings, propose

    library = TokenLibrary(folder / "library")
    settings = ProposalSettings(redo=True, keep_traces=True)
    names = [s.name for s in project.samples]
    random.shuffle(names)
    start = encode_phrase(pipe, "cat")
    number = 0
    while True:
        for name in names:
            number += 1
            rows = start.embedding[:2] + 0.01 * torch.randn(2, start.text_dim)
            token = type(start)("cat", start.model, rows, info={"number": number})
            project.save_token(2, token)
            project.classes.change(2, source="token")
            if number % 5 == 0:
                library.add(token, preview=np.zeros((8, 8, 3), np.uint8))
            propose(project, pipe, [name], classes=[2, 3], settings=settings)


# -- after its death -----------------------------------------------------------------


def check(folder: Path, life: Life, log: Log, known: Known) -> dict[str, object]:
    """Compare what is on the disk with what was done; raise AssertionError."""
    _, pause, writing, died = HEAD.unpack_from(log.memory)
    done = log.entries[: log.count]
    if writing:
        pause = max(pause, died - writing)
    limit = min(REAL[1], max(life.limit, life.delay + WRITES * pause))
    safe = done[done["time"] < died - limit]
    temporary = check_files(folder)
    project = Project.open(folder / "project")
    assert not any("missing" in note for note in project.notes), project.notes
    names = {sample.name for sample in project.samples}
    assert known.images <= names
    for i in range(3):
        check_strokes(project, i, done, safe, known)
    on_disk = int(project.classes[1].name.split()[-1])
    wanted = safe["place"][safe["kind"] == RENAME].max(initial=known.name)
    assert on_disk >= wanted, f"class 1 is name {on_disk}, name {wanted} was made"
    known.name = on_disk
    for number in safe["sample"][safe["kind"] == IMAGE].tolist():
        assert f"made-{number}" in names
    for name in names - {sample_name(i) for i in range(3)}:
        labels = project.load_labels(name)
        status = project.sample(name).status
        assert status in ("new", "proposed")
        assert status == "new" or labels is not None
    known.images = names
    for entry in project.classes:
        if entry.token is not None:
            assert project.load_token(entry.id) is not None
    instances = load_instances(project.path, sample_name(0))
    labels = project.load_labels(sample_name(0))
    if instances is not None and labels is not None:
        followed = load_instances(project.path, sample_name(0), labels)
        np.testing.assert_array_equal(followed.labels(), labels)
    return {
        "edits": len(done),
        "checked": len(safe),
        "limit": round(limit, 2),
        "temporary": temporary,
        "proposed": sum(s.status == "proposed" for s in project.samples),
        "tokens": sum(entry.token is not None for entry in project.classes)
        + len(list(folder.glob("library/*.safetensors"))),
        "exports": len(list(folder.glob("exports/*"))),
    }


def check_strokes(
    project: Project, i: int, done: np.ndarray, safe: np.ndarray, known: Known
) -> None:
    """What is on the disk is all that was painted up to some moment."""
    labels, painted = (
        project.load_labels(sample_name(i)),
        project.load_painted(sample_name(i)),
    )
    mine = done[(done["kind"] == PAINT) & (done["sample"] == i)]["place"]
    sure = safe[(safe["kind"] == PAINT) & (safe["sample"] == i)]["place"]
    least = int(sure.max(initial=known.painted.get(i, 0) - 1)) + 1
    most = int(mine.max(initial=known.painted.get(i, 0) - 1)) + 1
    flat = np.zeros(SHAPE, np.uint8).ravel() if labels is None else labels.ravel()
    if least:
        assert project.sample(sample_name(i)).status == "edited"
    elif project.sample(sample_name(i)).status != "edited":
        known.painted[i] = 0  # only proposals, if anything
        return
    found = int(np.count_nonzero(flat))
    assert least <= found <= most, f"{found} strokes of {least} to {most} are there"
    expected = np.zeros(flat.shape, np.uint8)
    expected[:found] = [value(place) for place in range(found)]
    np.testing.assert_array_equal(flat, expected)
    if found:
        assert painted is not None
        assert painted.ravel()[:found].all()
    known.painted[i] = found


def check_files(folder: Path) -> int:
    """Read every file that is no temporary one; return how many of those are left."""
    temporary = 0
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        inside = path.relative_to(folder).parts
        if any(part.startswith(".") for part in inside):
            temporary += 1
            staging = any(part.startswith(".napari-ovam-export-") for part in inside)
            in_library = inside[0] == "library" and path.suffix == ".safetensors"
            lock = path.name == WRITING
            assert staging or in_library or lock or path.suffix == ".tmp", path
            path.unlink()
            continue
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix in (".json", ".bak"):
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                for key in file.keys():  # noqa: SIM118 (it is no dictionary)
                    file.get_tensor(key)
        elif path.suffix == ".jpg":
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix == ".jsonl":  # what a kill cut off is a line's end
            ends = path.read_bytes().split(b"\n")
            assert all(json.loads(line)["by"] for line in ends[:1] if len(ends) > 1)
        else:
            assert path.suffix in (".txt", ".md"), path
    for out in (folder / "exports").glob("*/coco/annotations.json"):
        content = json.loads(out.read_text(encoding="utf-8"))
        images = {i["file_name"] for i in content["images"]}
        assert images == {p.name for p in (out.parent / "images").iterdir()}
        with redirect_stdout(StringIO()):
            read = COCO(out)
        for annotation in read.loadAnns(read.getAnnIds())[:3]:
            assert read.annToMask(annotation).sum() == annotation["area"]
    return temporary


# -- births and deaths ---------------------------------------------------------------


def fork(folder: Path, life: Life, log: Log, known: Known, pipe: object) -> int:
    child = os.fork()
    if child == 0:
        try:
            live(folder, life, log, known, pipe)
        except BaseException as error:  # noqa: BLE001 (the life ends with it)
            print(f"life {life.number}: {error!r}", file=sys.stderr, flush=True)
            os._exit(3)
        os._exit(4)
    return child


def kill(child: int, life: Life, log: Log) -> None:
    """Wait for the moment, then kill; or wait until it has killed itself."""
    end = time.monotonic() + life.seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.WIFSIGNALED(status), f"life {life.number} failed: {status}"
            return
        time.sleep(min(0.002, max(0.0, end - time.monotonic())))
    if not log.head[3]:
        log.died()
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"life {life.number} failed: {status}"


def start_project(folder: Path) -> None:
    project = Project.create(folder / "project")
    project.classes.add("name 0", phrase="cat")
    project.classes.add("two", phrase="dog")
    project.classes.add("three", phrase="hat")
    for i in range(3):
        picture = np.random.default_rng(i).integers(0, 255, (*SHAPE, 3), np.uint8)
        project.add_sample(picture, {"prompt": "a cat"}, sample_name(i))
        # what nobody paints, so that labels are proposed for it
        project.add_sample(picture[:32, :32].copy(), name=f"wild-{i}")
    for sample in project.samples:  # one look at each, and not at its tiles
        project.change_sample(sample.name, provenance=LOOK)


def time_a_proposal(pipe: object) -> float:
    """Return the seconds that labels for one image take, once all is warm."""
    from napari_ovam.workflows.proposals import propose

    with tempfile.TemporaryDirectory() as folder:
        start_project(Path(folder))
        project = Project.open(Path(folder) / "project")
        for name in ("wild-0", "wild-1"):
            start = time.monotonic()
            propose(project, pipe, [name])
    return time.monotonic() - start


def main() -> None:
    what, folder, seed, lives = sys.argv[1:]
    folder = Path(folder)
    moments = random.Random(int(seed))  # noqa: S311
    pipe = None
    if what == "model":
        from conftest import build_pipeline

        pipe = build_pipeline()
    start_project(folder)
    # A life is long enough for proposals, however busy the machine is.
    longest = 0.9 if pipe is None else max(1.5, 6 * time_a_proposal(pipe))
    known, log, reports = Known(), Log(), []
    for number in range(int(lives)):
        by_step = moments.random() < 0.4
        seconds = longest if by_step else moments.uniform(0.02, longest)
        steps = moments.randint(1, 120) if by_step else 0
        life = Life(number, seconds, steps, *SCALED)
        log.clear()
        kill(fork(folder, life, log, known, pipe), life, log)
        reports.append(_checked(folder, life, log, known))
    json.dump(reports, sys.stdout)


def real() -> None:
    """A few lives with the program's own delay, side by side."""
    folder, seed, lives = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    moments = random.Random(seed)  # noqa: S311
    running = []
    for number in range(lives):
        place = folder / f"life-{number}"
        start_project(place)
        life = Life(number, moments.uniform(3.5, 6.0), 0, *REAL)
        known, log = Known(), Log()
        child = fork(place, life, log, known, None)
        running.append(
            (life.seconds + time.monotonic(), place, life, log, known, child)
        )
    reports = []
    for end, place, life, log, known, child in sorted(running, key=lambda r: r[0]):
        life.seconds = max(0.0, end - time.monotonic())
        kill(child, life, log)
        reports.append((place, life, log, known))
    json.dump([_checked(*each) for each in reports], sys.stdout)


def _checked(folder: Path, life: Life, log: Log, known: Known) -> dict[str, object]:
    try:
        return check(folder, life, log, known)
    except Exception as error:
        raise AssertionError(f"after the kill of {life}: {error!r}") from error


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    real() if sys.argv[1] == "real" else main()
