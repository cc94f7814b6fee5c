"""A job ends with exactly one of returned, aborted and errored."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import QCoreApplication, QEvent

from napari_ovam._qt.session.worker import Job
from napari_ovam.base.progress import Cancelled


def endings(job: Job, qtbot: Any) -> list[Any]:
    seen: list[Any] = []
    job.returned.connect(lambda value: seen.append(("returned", value)))
    job.aborted.connect(lambda: seen.append("aborted"))
    job.errored.connect(lambda error: seen.append(("errored", str(error))))
    with qtbot.waitSignal(job.finished):
        job.start()
    return seen


def test_a_job_that_ends_well(qtbot: Any) -> None:
    def task(job: Job) -> int:
        for done in range(3):
            job.progress(done, 3)
        return 7

    job = Job(task)
    progress: list[Any] = []
    job.progressed.connect(lambda *each: progress.append(each))
    assert endings(job, qtbot) == [("returned", 7)]
    assert progress == [(0, 3), (1, 3), (2, 3)]


def test_a_cancelled_job(qtbot: Any) -> None:
    def task(job: Job) -> None:
        job.quit()
        job.progress(1, 2)
        pytest.fail("the cancel was not noticed")

    assert endings(Job(task), qtbot) == ["aborted"]


def test_a_cancelled_job_that_has_a_result(qtbot: Any) -> None:
    def task(job: Job) -> str:
        job.quit()
        try:
            job.progress(1, 2)
        except Cancelled:
            return "the best so far"
        return "all of it"

    assert endings(Job(task), qtbot) == [("returned", "the best so far")]


def test_a_failing_job(qtbot: Any) -> None:
    def task(_: Job) -> None:
        raise RuntimeError("broken")

    assert endings(Job(task), qtbot) == [("errored", "broken")]


def test_a_job_that_outlives_its_signals_ends_in_silence(qtbot: Any) -> None:
    """As in a process that ends while a model loads; PyQt would abort it."""

    def task(job: Job) -> None:
        job.signals.deleteLater()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        raise Cancelled

    Job(task).run()
