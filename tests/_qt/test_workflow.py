"""The whole workflow, clicked through in a real napari window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from project_window import make_project
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QWidget

from napari_ovam._qt.layers.marked import role_of


def exported(folder: str, kind: str) -> list[np.ndarray]:
    files = (Path(folder).expanduser() / "indexed" / kind).glob("*.png")
    files = sorted(files, key=lambda file: file.stem)
    return [np.asarray(Image.open(file)) for file in files]


def test_from_prompt_to_dataset(panel: Any) -> None:
    session = panel.session

    panel.press("generate_button")
    assert [s.name for s in session.samples] == ["a cat and a hat on the grass"]
    image = panel.layer("image")
    assert image.rgb
    assert image.data.shape == (*session.current.shape, 3)

    panel.press("map_button")
    cat, hat = panel.number("cat"), panel.number("hat")
    for number, name in ((cat, "cat"), (hat, "hat")):
        layer = panel.layer("map", number)
        assert layer.name == name
        assert layer.visible
        assert layer.data.shape == session.current.shape
        assert layer.data.max() == 1
    assert panel.find(f"pieces_{cat}").text() == "2 pieces: c · at"

    panel.press("labels_button")
    labels = panel.labels()
    assert labels.visible
    assert set(np.unique(labels.data)) <= {0, cat, hat}
    assert labels.data.any()
    assert "cat" in list(labels.features["name"])
    np.testing.assert_allclose(
        labels.get_color(cat)[:3], np.array(session.classes[cat].color) / 255, atol=1e-3
    )

    painted = panel.other
    stroke = panel.paint(painted)
    assert (labels.data[stroke] == painted).all()

    panel.find("iterations").setValue(10)
    panel.press("optimize_button")
    entry = session.classes[cat]
    assert session.view(entry.id).token is not None
    assert session.view(entry.id).scores is not None
    assert len(panel.find("loss_plot").points) >= 1
    assert "→" in panel.find("scores_text").text()
    assert (panel.labels().data[stroke] == painted).all()
    first = panel.labels().data.copy()

    panel.find("seed").setValue(1)
    panel.press("generate_button")
    assert len(session.samples) == 2
    assert panel.layer("map", cat) is not None
    assert panel.labels() is not None
    assert not panel.layer("image", sample=0).visible
    assert panel.layer("image").visible
    np.testing.assert_array_equal(panel.labels(sample=0).data, first)

    panel.press("export_button")
    assert "Exported 2 images" in panel.status, panel.status
    masks = exported(panel.find("folder").text(), "labels")
    np.testing.assert_array_equal(masks[0], first)
    assert (masks[0][stroke] == painted).all()
    np.testing.assert_array_equal(masks[1], panel.labels().data)
    images = exported(panel.find("folder").text(), "images")
    np.testing.assert_array_equal(images[1], session.samples[1].image)


def test_pressing_only_the_five_buttons_is_enough(panel: Any) -> None:
    panel.find("iterations").setValue(10)  # for the sake of time only
    for name in ("generate", "map", "labels", "optimize"):
        panel.press(f"{name}_button")
        assert session_is_well(panel), panel.status
    assert "exactly the map" in panel.status
    panel.press("export_button")
    assert "Exported 1 image" in panel.status, panel.status
    assert "untouched" in panel.status
    assert len(exported(panel.find("folder").text(), "labels")) == 1


def session_is_well(panel: Any) -> bool:
    return panel.session.message[1] != "error"


def test_switching_samples_shows_one_set_at_a_time(panel: Any) -> None:
    panel.press("generate_button")
    panel.press("map_button")
    panel.layer("map", panel.number("hat")).visible = False
    panel.find("seed").setValue(3)
    panel.press("generate_button")

    cat = panel.number("cat")

    def shown(sample: int) -> set[tuple[str, int]]:
        layers = panel.session.layers.of_sample(panel.session.samples[sample].key)
        return {role_of(layer)[1:] for layer in layers if layer.visible}

    only_cat = {("image", 0), ("map", cat), ("cover", 0)}
    panel.click("previous_sample")
    panel.bot.waitUntil(lambda: shown(0) == only_cat, timeout=60_000)
    assert not shown(1)
    panel.click("next_sample")
    panel.bot.waitUntil(lambda: shown(1) == only_cat, timeout=60_000)
    assert not shown(0)


def test_typing_other_phrases_updates_in_place(panel: Any) -> None:
    panel.press("generate_button")
    panel.press("map_button")
    cat = panel.number("cat")
    layer = panel.layer("map", cat)

    panel.find("phrases").setText("dog\ncat; cat")
    panel.press("map_button")

    assert panel.layer("map", cat) is layer
    maps = [la.name for la in panel.viewer.layers if not getattr(la, "rgb", True)]
    assert sorted(maps) == ["cat", "dog"]
    # An id belongs to its class for good, typed or not.
    assert panel.number("hat") == 2
    assert panel.number("dog") == 3


def test_several_images_follow_the_seed(panel: Any) -> None:
    panel.find("count").setValue(2)
    panel.press("generate_button")
    seeds = [s.settings.seed for s in panel.session.samples]
    assert seeds == [5, 6]
    assert panel.find("sample").count() == 2


def test_cancelled_generation_leaves_the_viewer_as_it_was(panel: Any) -> None:
    panel.press("generate_button")
    before = list(panel.viewer.layers)
    panel.find("steps").setValue(500)
    panel.click("generate_button")
    panel.bot.waitUntil(
        lambda: any(la.name == "preview" for la in panel.viewer.layers), timeout=60_000
    )

    panel.press("cancel_button")

    assert list(panel.viewer.layers) == before
    assert len(panel.session.samples) == 1
    assert "Cancelled" in panel.status
    assert not panel.find("cancel_button").isVisible()


def test_cancelled_optimization_keeps_the_best_token(panel: Any) -> None:
    for name in ("generate", "map", "labels"):
        panel.press(f"{name}_button")
    panel.paint(panel.other)
    panel.find("iterations").setValue(100_000)
    before = panel.layer("map", panel.number("cat")).data.copy()
    panel.click("optimize_button")
    panel.bot.waitUntil(lambda: bool(panel.find("loss_plot").points), timeout=60_000)

    panel.press("cancel_button")

    assert "best token" in panel.status
    assert panel.session.view(panel.number("cat")).token is not None
    after = panel.layer("map", panel.number("cat")).data
    np.testing.assert_array_equal(after, before)


def test_a_closed_panel_can_be_opened_again(panel: Any) -> None:
    from napari_ovam._qt.annotator import AnnotatorWidget

    panel.press("generate_button")
    panel.viewer.window.remove_dock_widget(panel.widget)
    panel.bot.wait(100)

    panel.widget = AnnotatorWidget(panel.viewer)
    panel.viewer.window.add_dock_widget(panel.widget, name="again", area="right")

    assert panel.find("sample").count() == 1
    panel.press("map_button")
    assert panel.layer("map", panel.number("cat")) is not None


def test_running_again_for_exact_maps_keeps_the_image_and_the_strokes(panel: Any):
    panel.press("generate_button")
    panel.press("map_button")
    panel.press("labels_button")
    stroke = panel.paint(panel.other)
    labels = panel.labels().data.copy()
    sample = panel.session.current
    image, before = sample.image.copy(), sample.trace.layers
    assert {q.queries.dtype for q in before} == {torch.float16}

    said: list[str] = []
    panel.session.said.connect(lambda text, _: said.append(text))
    panel.press("exact_button")

    assert any("The maps are exact now" in text for text in said)
    assert panel.session.current is sample
    np.testing.assert_array_equal(sample.image, image)
    assert {q.queries.dtype for q in sample.trace.layers} == {torch.float32}
    np.testing.assert_array_equal(panel.labels().data[stroke], labels[stroke])
    assert not panel.find("exact_button").isEnabled()


def test_a_list_of_phrases_is_pasted_line_by_line(panel: Any):
    panel.press("generate_button")
    panel.find("phrases").setText("cat\nhat\n\n")
    panel.find("phrases").setFocus()
    panel.bot.keyClick(panel.find("phrases"), Qt.Key.Key_Return)
    panel.wait()
    assert [e.name for e in panel.session.classes.active] == ["cat", "hat"]


def test_only_the_selected_images_are_exported(panel: Any, tmp_path: Path):
    panel.find("count").setValue(2)
    panel.find("steps").setValue(2)
    panel.press("generate_button")
    panel.press("map_button")
    panel.press("labels_button")
    panel.find("export_scope").setCurrentText("selected images")
    panel.find("folder").setText(str(tmp_path / "out"))
    panel.press("export_button")
    assert "No image is selected" in panel.status
    panel.find("export_samples").item(1).setCheckState(Qt.CheckState.Checked)
    panel.press("export_button")
    (written,) = (tmp_path / "out" / "indexed" / "labels").iterdir()
    assert written.stem == panel.session.samples[1].key


def test_a_model_that_was_used_is_offered_the_next_time(
    panel: Any, make_napari_viewer: Any
):
    from napari_ovam._qt.annotator import start_session
    from napari_ovam._qt.image.image_section import ImageSection

    panel.find("steps").setValue(2)
    panel.press("generate_button")
    section = ImageSection(start_session(make_napari_viewer()))
    offered = [section.model.itemText(i) for i in range(section.model.count())]
    assert offered[:2] == ["tiny", panel.find("model").currentText()]


def test_the_keys_do_what_the_buttons_do(panel: Any):
    panel.find("steps").setValue(2)
    panel.press("generate_button")

    def key(name: str, layer: Any) -> None:
        panel.viewer.layers.selection.active = layer
        canvas = panel.viewer.window._qt_viewer.canvas.native
        panel.bot.keyClick(canvas, name, Qt.KeyboardModifier.ShiftModifier)
        panel.wait()

    key("m", panel.layer("image"))
    assert set(panel.session.current.maps) == {1, 2}
    key("l", panel.layer("image"))
    assert panel.labels() is not None
    panel.find("iterations").setValue(2)
    key("t", panel.labels())
    assert panel.session.view(1).scores is not None
    key("g", panel.labels())
    assert len(panel.session.samples) == 2


def test_nothing_is_wider_than_the_panel(panel: Any):
    panel.press("generate_button")
    panel.press("map_button")
    panel.press("labels_button")
    scroll = panel.find("sections")
    content = scroll.widget()
    for more in content.findChildren(QAbstractButton, "more_button"):
        more.setChecked(True)
    panel.find("export_scope").setCurrentText("selected images")
    panel.bot.wait(50)
    room = scroll.viewport().width()
    wide = {
        f"{type(each).__name__} {each.objectName()}": each.minimumSizeHint().width()
        for each in content.findChildren(QWidget)
        if each.minimumSizeHint().width() > room - 4
    }
    assert content.minimumSizeHint().width() <= room, sorted(wide.items(), key=str)[
        ::-1
    ]


def test_a_token_of_painted_labels_no_model_looked_at(
    panel: Any, model_folder: Path, tmp_path: Path
):
    """Such as of a photograph in a project, or of imported masks."""
    project = make_project(tmp_path / "pets")
    labels = np.zeros((64, 64), np.uint8)
    labels[20:40, 20:40] = 1
    for name in ("picture-0", "picture-2", "picture-3"):
        about = {"model": str(model_folder)}
        project.save_labels(name, labels, "edited", provenance=about)
    project.save()
    panel.session.projects.open(project.path)
    panel.wait()
    panel.bot.waitUntil(lambda: panel.session.current is not None, timeout=20_000)
    assert panel.session.current.trace is None
    panel.find("iterations").setValue(2)
    panel.find("token_scope").setCurrentIndex(1)
    panel.press("optimize_button")
    assert panel.session.view(1).scores is not None, panel.status
    assert "2 edited images that were not shown lately are left out" in panel.status
