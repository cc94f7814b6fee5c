"""Follow docs/guide.md in the panel, by its buttons, and assert what each step made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from window import Window

PROMPTS = ("a cat on the grass", "a hat in the snow", "a cat and a hat in the desert")
EACH = 4  # images of a prompt; the guide has 12


def photograph_guide(out: Path, home: Path) -> None:
    """Go from an empty folder to a dataset and a trained network."""
    shown = Window(out)
    shown.dock("OVAM project")
    session = shown.session
    session.projects.create(home / "pets")
    shown.wait()
    shown.find("count").setValue(EACH)
    for prompt in PROMPTS:
        shown.find("prompt").setText(prompt)
        shown.press("generate_button")
    keys = list(session.projects.keys)
    assert len(keys) == EACH * len(PROMPTS)
    shown.find("phrases").setText("cat, hat")
    for name in ("map_button", "labels_button", "uncertain_button"):
        shown.press(name)
    shown.photograph("guide-doubt", whole=False)
    shown.press("optimize_button")
    assert any(view.token for view in session.views.values()), session.message
    session.proposing.propose(keys, redo=True)
    shown.wait()
    shown.photograph("guide-proposed")
    session.select(keys[0])
    shown.wait()
    for _ in keys:
        session.review.accept()
        shown.wait()
    statuses = [session.projects.status(key) for key in keys]
    assert statuses.count("accepted") >= len(keys) - 2, statuses
    shown.find("export_scope").setCurrentText("accepted images")
    shown.find("split").setText("0.75, 0.25")
    shown.find("folder").setText(str(home / "dataset"))
    shown.press("export_button")
    session.close()
    script = Path(__file__).parents[2] / "examples" / "train_segmentation.py"
    command = [sys.executable, str(script), "dataset/indexed", "--steps", "100"]
    subprocess.run(command, cwd=home, check=True)  # noqa: S603
    assert (home / "predictions.png").is_file()
