"""Workers, scheduler and driver are killed at random moments: nothing is lost.

A real scheduler and its workers, in processes of their own. NAPARI_OVAM_KILL_SEED draws
other moments.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fast_items import load_fast, load_small, make_plan, start

from napari_ovam import GenerationSettings
from napari_ovam.base.progress import no_progress
from napari_ovam.project import Project
from napari_ovam.project.verify import verify
from napari_ovam.workflows.dataset import cluster
from napari_ovam.workflows.dataset.cluster import ClusterError, Workers
from napari_ovam.workflows.dataset.plan import PlanError
from napari_ovam.workflows.dataset.planning import plan_prompts, start_folder
from napari_ovam.workflows.dataset.prompts import fill_templates
from napari_ovam.workflows.dataset.running import Inline, run
from napari_ovam.workflows.dataset.shards import Shard, read_records

pytest.importorskip("distributed")
TESTS = Path(__file__).parents[1]
SEED = int(os.environ.get("NAPARI_OVAM_KILL_SEED", "0"))
ITEMS, PATIENCE = 160, 120.0
PLACES = ["on the grass", "in the snow", "at night", "at the sea"]


class Processes:
    """Programs of Dask and of ours; what is left of them ends with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.all = folder, list[psutil.Popen]()
        self.log = (folder / "log.txt").open("wb")

    def begin(self, *words: str, output: int | None = None) -> psutil.Popen:
        path = os.pathsep.join([str(TESTS), *sys.path])
        process = psutil.Popen(
            [sys.executable, *words],
            stdout=self.log,
            stderr=output or self.log,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        self.all.append(process)
        return process

    def cluster(self, name: str) -> tuple[psutil.Popen, psutil.Popen, str]:
        """Start a scheduler, and two workers with their nannies."""
        file = str(self.folder / name)
        local = ("--host", "127.0.0.1", "--scheduler-file", file, "--no-dashboard")
        scheduler = self.begin(
            "-m", "distributed.cli.dask_scheduler", "--port", "0", *local
        )
        workers = self.begin(
            *("-m", "distributed.cli.dask_worker", "--nworkers", "2"),
            *("--nthreads", "1", "--death-timeout", "60", *local),
        )
        wait(lambda: Path(file).is_file())
        return scheduler, workers, file

    def end(self) -> None:
        for process in self.all:
            if process.is_running():
                for child in (*process.children(recursive=True), process):
                    child.kill()
                process.wait()
        self.log.close()


def wait(until: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


@pytest.fixture
def processes(tmp_path):
    found = Processes(tmp_path)
    yield found
    found.end()


def held(folder: Path, plan) -> tuple[dict[str, bytes], dict[int, str]]:
    """Return the bytes of all images and labels, and the hashes of all shards."""
    files = [*folder.glob("images/*.png"), *folder.glob("labels/*.png")]
    return (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in files},
        {r["shard"]: r["sha256"] for r in read_records(folder, plan)},
    )


def test_kills_of_worker_driver_and_scheduler_change_nothing(tmp_path, processes):
    moments = random.Random(SEED)  # noqa: S311
    plan = make_plan(ITEMS, seconds=0.02)
    folder, calm = tmp_path / "night", tmp_path / "calm"
    start(plan, folder)
    scheduler, workers, file = processes.cluster("first.json")

    def drive(of: str) -> psutil.Popen:
        words = (str(TESTS / "fast_items.py"), str(folder), of)
        return processes.begin(*words, output=subprocess.PIPE)

    def count() -> int:
        return len(list(folder.glob("shards/*.json")))

    def at(least: int, most: int, driver: psutil.Popen) -> None:
        """Wait for a random number of shards, and a random moment after it."""
        wanted = moments.randint(least, most)
        wait(lambda: count() >= wanted or driver.poll() is not None)
        assert driver.poll() is None, driver.stderr.read().decode()
        time.sleep(moments.uniform(0, 0.05))

    driver = drive(file)
    at(2, 6, driver)
    nannied = [p for p in workers.children() if "spawn_main" in " ".join(p.cmdline())]
    moments.choice(nannied).send_signal(signal.SIGKILL)
    at(8, 14, driver)
    driver.kill()
    driver.wait()
    driver = drive(file)
    at(count() + 2, count() + 8, driver)
    scheduler.kill()
    _, said = driver.communicate(timeout=PATIENCE)
    assert b"the scheduler went away" in said
    assert count() < ITEMS / 4  # there is something left to do
    ending = [*workers.children(recursive=True), workers]
    workers.terminate()
    # a shard that one of them still writes would come after the last look
    assert not psutil.wait_procs(ending, timeout=PATIENCE)[1]
    # What is left is made here, by the one who would have asked the workers.
    start(plan, calm)
    for place in (folder, calm):
        with Inline(place, plan, load=load_fast) as engine:
            report = run(Project.open(place), engine)
        assert (report.made, list(report.failed)) == (ITEMS - 1, [5])
        assert not verify(place).problems
    assert held(folder, plan) == held(calm, plan)
    mine, theirs = (
        {s.name: (s.status, s.sha256) for s in Project.open(place).samples}
        for place in (folder, calm)
    )
    assert mine == theirs
    assert len(mine) == ITEMS - 1
    items = [n for r in read_records(folder, plan) for n in r["items"]]
    assert sorted(items) == list(range(ITEMS))
    assert not [p for p in (folder / "shards").iterdir() if p.is_dir()]


def test_two_workers_make_the_bytes_of_one_process(tmp_path, pipe):
    source = Project.create(tmp_path / "source")
    source.classes.add("cat")
    prompts = fill_templates(["a {class} {place}"], {"class": ["cat"], "place": PLACES})
    plan = plan_prompts(
        source,
        pipe,
        prompts,
        GenerationSettings("", steps=2),
        model="small",
        dtype="auto",
        shard=1,
    )
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        start_folder(plan, source, folder)
    with Inline(one, plan, load=load_small) as engine:
        run(Project.open(one), engine)
    with Workers(two, plan, workers=2, load=load_small) as engine:
        assert engine.dashboard.startswith("http://127.0.0.1")
        assert not engine.warning
        run(Project.open(two), engine)
        assert held(one, plan) == held(two, plan)
        assert len(held(two, plan)[0]) == 2 * len(PLACES)
        (two / "plan.json").rename(two / "away.json")
        with pytest.raises(PlanError, match="on a disk that all workers see"):
            list(engine.make([Shard(9, (0,))], no_progress))


def test_a_scheduler_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.2)
    with pytest.raises(ClusterError, match="no scheduler answers at 'tcp://127"):
        Workers(tmp_path, make_plan(), scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ClusterError, match=r"no scheduler answers at 'gone\.json'"):
        Workers(tmp_path, make_plan(), scheduler="gone.json")


def test_only_the_own_computer_and_tls_are_safe():
    assert cluster.is_safe("tcp://127.0.0.1:8786")
    assert cluster.is_safe("tls://10.0.0.7:8786")
    assert not cluster.is_safe("tcp://10.0.0.7:8786")
    assert not cluster.is_safe("ws://cluster:8786")
