"""The objects of an image are carried on to those that follow it."""

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_ovam import iou
from napari_ovam.base.progress import Cancelled
from napari_ovam.cli import app
from napari_ovam.project import Project
from napari_ovam.workflows.carrying_on import carry_on
from napari_ovam.workflows.proposals import ProposalError


def place(number: int) -> np.ndarray:
    rows, columns = np.mgrid[:64, :64]
    return (rows - 14 - 5 * number) ** 2 + (columns - 16 - 4 * number) ** 2 < 64


@pytest.fixture
def project(tmp_path):
    """A film of six pictures, of which the first is labelled."""
    made = Project.create(tmp_path / "film")
    for name in ("ball", "egg"):
        made.classes.add(name)
    noise = np.random.default_rng(0).integers(-8, 8, (64, 64, 3))
    for number in range(6):
        image = np.where(place(number)[..., None], (200, 60, 50), (90, 120, 80)) + noise
        made.add_sample(image.astype(np.uint8), name=f"t{number}")
    made.save_labels("t0", place(0).astype(np.uint8), "accepted")
    return made


def agreement(project, number: int) -> float:
    labels = project.load_labels(f"t{number}")
    return iou(labels == 1, place(number).astype(np.uint8))


def test_it_is_followed_and_the_work_of_a_person_is_not_touched(project):
    own = np.zeros((64, 64), np.uint8)
    own[place(2)] = 2
    project.save_labels("t2", own, "edited")
    names = []
    report = carry_on(project, "t0", written=names.append)
    assert report.proposed == ("t1", "t3", "t4", "t5") == tuple(names)
    assert report.kept == {"t2": "edited"}
    np.testing.assert_array_equal(project.load_labels("t2"), own)
    assert agreement(project, 1) > 0.9
    # it went on from the edited one
    assert iou(project.load_labels("t4") == 2, place(4).astype(np.uint8)) > 0.9
    assert project.sample("t1").status == "proposed"
    told = project.load_history("t3").at(29, 28, 2)
    assert told.startswith("carried on from t2, ")
    assert carry_on(project, "t0", ["t1"]).proposed == ("t1",)


def test_it_is_cancelled_between_images_and_asks_for_labels(project):
    def progress(done: int, _: int) -> None:
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        carry_on(project, "t0", progress=progress)
    assert [s.status for s in project.samples][1:4] == ["proposed", "proposed", "new"]
    with pytest.raises(ProposalError, match="t3 has no labels"):
        carry_on(project, "t3")


def test_the_shell_carries_on(project):
    words = ["propose", str(project.path), "--carry", "t0"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "5 proposed" in result.output
    assert agreement(Project.open(project.path), 5) > 0.85
    result = CliRunner().invoke(app, [*words, "--class", "ball"])
    assert result.exit_code == 1
    assert "--carry takes all objects" in result.output
