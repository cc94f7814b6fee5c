"""Work beside the window: the newest request wins, errors are said, one at a time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

pytest.importorskip("pytestqt")

from napari_ovam._qt.session.background import Background, IdleBackground
from napari_ovam._qt.session.jobs import JobRunner


def test_the_newest_request_wins(qtbot: Any) -> None:
    runner = JobRunner()
    background = Background(runner, "Work")
    go, done = threading.Event(), list[Any]()
    background.ask("a", lambda: (lambda _: go.wait(10), lambda _: done.append("first")))
    for number in range(5):
        work = (lambda _, n=number: n), done.append
        background.ask("a", lambda work=work: work)
    background.ask("b", lambda: (lambda _: "other", done.append))
    assert background.busy
    go.set()
    qtbot.waitUntil(lambda: not background.busy, timeout=10_000)
    assert done == ["first", 4, "other"]


def test_what_is_not_wanted_any_more_is_not_done(qtbot: Any) -> None:
    runner = JobRunner()
    background = Background(runner, "Work")
    background.ask("a", lambda: None)
    assert background.job is None
    assert not background.busy


def test_errors_are_said_and_the_next_goes_on(qtbot: Any) -> None:
    runner = JobRunner()
    background = Background(runner, "Work")
    done: list[Any] = []

    def fail(_: Any) -> None:
        raise ValueError("there is no cat")

    def refuse(_: Any) -> None:
        raise ValueError("it cannot be shown")

    background.ask("a", lambda: (fail, done.append))
    qtbot.waitUntil(lambda: not background.busy, timeout=10_000)
    assert runner.message == ("There is no cat.", "error")
    background.ask("b", lambda: (lambda _: 1, refuse))
    background.ask("c", lambda: (lambda _: 2, done.append))
    qtbot.waitUntil(lambda: not background.busy, timeout=10_000)
    assert done == [2]
    assert "cannot be shown" in runner.message[0]


def test_nothing_is_handed_over_once_the_window_is_closed(qtbot: Any) -> None:
    runner = JobRunner()
    background = Background(runner, "Work")
    go, done = threading.Event(), list[Any]()
    background.ask("a", lambda: (lambda _: go.wait(10), done.append))
    job = background.job
    assert job is not None
    runner.close()
    background.close()
    with qtbot.waitSignal(job.finished, timeout=10_000):
        go.set()
    qtbot.wait(50)
    assert not done


def test_long_tasks_wait_for_their_turn(qtbot: Any) -> None:
    runner = JobRunner()
    go, done = threading.Event(), list[Any]()
    runner.start("First", lambda _: go.wait(10), returned=done.append)
    for number in (1, 2):
        runner.in_turn(
            lambda n=number: runner.start("Next", lambda _: n, returned=done.append)
        )
    assert done == []
    go.set()
    qtbot.waitUntil(lambda: done == [True, 1, 2], timeout=10_000)


def test_trouble_is_part_of_every_message_until_it_is_over(qtbot: Any) -> None:
    runner = JobRunner()
    runner.trouble = "Not saved yet: the disk is full."
    runner.say("Mapped.")
    assert runner.message == ("Mapped. Not saved yet: the disk is full.", "error")
    runner.trouble = ""
    runner.say("Mapped.")
    assert runner.message == ("Mapped.", "info")


def test_what_nobody_waits_for_gives_way(qtbot: Any) -> None:
    runner = JobRunner()
    idle, quick = IdleBackground(runner, "Idle"), Background(runner, "Quick")
    order, tries, go = list[str](), list[int](), threading.Event()

    def work(job: Any) -> str:
        tries.append(1)
        while len(tries) < 2:  # at first until it is stopped
            idle.give_way(job)
        return "idle"

    idle.ask("a", lambda: (work, order.append))
    qtbot.waitUntil(lambda: len(tries) == 1, timeout=10_000)

    def long(_: Any) -> str:
        assert not runner.giving_way.locked(), "both run at once"
        go.wait(10)
        return "long"

    runner.start("Long", long, returned=order.append)
    quick.ask("b", lambda: (lambda _: "quick", order.append))
    qtbot.waitUntil(lambda: order == ["quick"], timeout=10_000)
    assert len(tries) == 1
    go.set()
    qtbot.waitUntil(lambda: order == ["quick", "long", "idle"], timeout=10_000)
    assert not idle.busy


def test_small_tasks_go_before_what_nobody_waits_for(qtbot: Any) -> None:
    runner = JobRunner()
    idle, quick = IdleBackground(runner, "Idle"), Background(runner, "Quick")
    go, begun, done = threading.Event(), threading.Event(), list[str]()

    def work(job: Any) -> str:
        begun.wait(10)
        idle.give_way(job)
        return "idle"

    idle.ask("a", lambda: (work, done.append))
    quick.ask("b", lambda: (lambda _: go.wait(10) and "quick", done.append))
    begun.set()
    qtbot.wait(100)
    assert not done
    go.set()
    qtbot.waitUntil(lambda: len(done) == 2, timeout=10_000)
    assert sorted(done) == ["idle", "quick"]


def test_what_gives_way_is_not_begun_again_once_it_was_dropped(qtbot: Any) -> None:
    runner = JobRunner()
    idle, tries = IdleBackground(runner, "Idle"), list[int]()

    def work(job: Any) -> None:
        tries.append(1)
        while True:
            idle.give_way(job)

    idle.ask("a", lambda: (work, tries.append))
    qtbot.waitUntil(lambda: bool(tries), timeout=10_000)
    idle.close()
    qtbot.waitUntil(lambda: not idle.busy, timeout=10_000)
    qtbot.wait(50)
    assert tries == [1]
