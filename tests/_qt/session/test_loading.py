"""The loader hands over what it reads, and gives back memory as it goes."""

from __future__ import annotations

from napari_ovam._qt.session import background


def test_all_results_come_and_memory_is_given_back(qtbot, monkeypatch):
    trimmed = []
    trim = background._trim
    monkeypatch.setattr(background, "_trim", lambda: trimmed.append(trim()))
    loader = background.Loader()
    found = {}
    loader.loaded.connect(found.__setitem__)

    def broken():
        raise OSError("no such file")

    count = 2 * background._TRIM_AFTER
    for number in range(count - 1):
        loader.load(str(number), lambda number=number: number)
    loader.load("broken", broken)
    qtbot.waitUntil(lambda: len(found) == count)
    qtbot.waitUntil(lambda: len(trimmed) == 2)
    loader.close()
    assert [found[str(number)] for number in range(count - 1)] == [*range(count - 1)]
    assert isinstance(found["broken"], OSError)
