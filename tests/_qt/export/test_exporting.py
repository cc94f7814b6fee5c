"""Export with a split, in several formats at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def labelled(panel: Any, tmp_path: Path) -> Any:
    panel.find("count").setValue(3)
    panel.press("generate_button")
    panel.find("phrases").setText("cat, hat")
    panel.press("map_button")
    for sample in panel.session.samples:
        panel.session.select(sample.key)
        panel.press("map_button")
        panel.press("labels_button")
    panel.find("folder").setText(str(tmp_path / "out"))
    return panel


def test_several_formats_and_a_split(labelled: Any, tmp_path: Path) -> None:
    labelled.find("also_as").setText("voc, coco-polygons")
    labelled.find("split").setText("0.7, 0.3")
    labelled.press("export_button")
    assert labelled.status.startswith("Exported 3 images"), labelled.status
    assert "coco-polygons: the polygons' lowest IoU is " in labelled.status
    folders = {path.name for path in (tmp_path / "out").iterdir()}
    assert folders == {"indexed", "voc", "coco-polygons"}
    splits = tmp_path / "out" / "indexed" / "splits"
    names = [
        name
        for split in ("train", "val")
        if (splits / f"{split}.txt").is_file()
        for name in (splits / f"{split}.txt").read_text().split()
    ]
    assert len(set(names)) == len(names) == 3


def test_what_is_not_possible_is_named(labelled: Any, tmp_path: Path) -> None:
    for field, text, word in (
        ("also_as", "png", "png"),
        ("split", "0.9, 0.9", "0.9"),
        ("split", "all", "all"),
    ):
        labelled.find(field).setText(text)
        labelled.press("export_button")
        assert labelled.session.message[1] == "error"
        assert word in labelled.status
        assert not (tmp_path / "out").exists()
        labelled.find(field).setText("")
