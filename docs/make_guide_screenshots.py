"""Follow docs/guide.md in the panel, by its buttons, and photograph it.

    python docs/make_guide_screenshots.py          # a few minutes on two cores

Writes docs/images/guide-STEP.png, and asserts what each step should have made.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from make_screenshots import OUT, start_display

SIZE = (1400, 900)
PROMPTS = ("a cat on the grass", "a hat in the snow", "a cat and a hat in the desert")
EACH = 4  # images of a prompt; the guide has 12
PATIENCE = 600


def main(folder: Path) -> None:
    """Go from an empty folder to a dataset and a trained network."""
    import diffusers.pipelines.stable_diffusion  # noqa: F401 (as the launcher does)
    import napari
    from PIL import Image
    from qtpy.QtWidgets import QApplication, QWidget

    viewer = napari.Viewer(title="napari", show=False)
    window: Any = viewer.window._qt_window
    window.setGeometry(0, 0, *SIZE)
    window.show()
    _, panel = viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM annotator")
    _, dock = viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM project")
    session: Any = dock.session

    def pump(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def wait() -> None:
        end = time.monotonic() + PATIENCE
        pump(0.3)
        while session.busy or session.labels.job is not None:
            assert time.monotonic() < end, session.message
            pump(0.1)
        pump(0.5)

    def find(name: str) -> Any:
        found = panel.findChild(QWidget, name) or dock.findChild(QWidget, name)
        assert found is not None, name
        return found

    def press(name: str) -> None:
        find(name).click()
        wait()
        print(f"{name}: {session.message[0]}", flush=True)
        assert session.message[1] != "error", session.message

    def photograph(step: str) -> None:
        pump(1)
        path = OUT / f"guide-{step}.png"
        window.grab().save(str(path))
        picture = Image.open(path).convert("RGB").quantize(256)
        picture.save(path, optimize=True)

    pump(2)
    session.projects.create(folder / "pets")
    wait()
    find("count").setValue(EACH)
    for prompt in PROMPTS:
        find("prompt").setText(prompt)
        press("generate_button")
    assert len(session.projects.keys) == EACH * len(PROMPTS)
    find("phrases").setText("cat, hat")
    press("map_button")
    press("labels_button")
    press("doubt_button")
    photograph("doubt")
    press("optimize_button")
    tokens = [entry.name for entry in session.classes if entry.token is not None]
    assert tokens, session.message
    session.proposing.propose(list(session.projects.keys), redo=True)
    wait()
    print(session.message[0])
    photograph("proposed")
    session.select(session.projects.keys[0])
    wait()
    for _ in range(EACH * len(PROMPTS)):
        session.review.accept()
        wait()
    statuses = [session.projects.status(key) for key in session.projects.keys]
    print(statuses)
    assert statuses.count("accepted") >= EACH * len(PROMPTS) - 2
    find("export_scope").setCurrentText("accepted images")
    find("split").setText("0.75, 0.25")
    find("folder").setText(str(folder / "dataset"))
    press("export_button")
    session.close()
    script = Path(__file__).parents[1] / "examples" / "train_segmentation.py"
    command = [sys.executable, str(script), "dataset/indexed", "--steps", "100"]
    subprocess.run(command, cwd=folder, check=True)  # noqa: S603
    assert (folder / "predictions.png").is_file()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        server = start_display(home)
        try:
            main(Path(home))
        finally:
            server.terminate()
