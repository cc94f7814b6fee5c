"""Videos: an image with its trace a frame, through the core and the shell."""

from __future__ import annotations

import numpy as np
import pytest
import small_transformers
from typer.testing import CliRunner

from napari_ovam import (
    GenerationSettings,
    ModelError,
    TraceSettings,
    encode_phrase,
    generate,
    generate_video,
    phrase_map,
    record,
)
from napari_ovam.cli import app
from napari_ovam.project import Project

SETTINGS = GenerationSettings("a cat on the grass", steps=2, height=32, width=64)
EXACT = TraceSettings("cond", layers=None, calls=None, dtype=None)


@pytest.fixture(scope="module", params=["sana_video", "wan", "ltx"])
def pipe(request):
    return small_transformers.make(request.param)


def test_each_frame_has_its_map(pipe):
    seen = []
    made = generate_video(
        pipe, SETTINGS, frames=9, trace=EXACT, progress=lambda *d: seen.append(d)
    )
    assert [each.image.shape for each in made] == [(32, 64, 3)] * 9
    assert (seen[0], seen[-1]) == ((0, 2), (2, 2))
    token = encode_phrase(pipe, "cat")
    maps = [phrase_map(each.trace, token) for each in made]
    assert {each.shape for each in maps} == {(32, 64)}
    shared = 9 - len({id(each.trace) for each in made})
    assert shared == 6  # of each four
    assert np.abs(maps[0] - maps[-1]).max() > 1e-3


def test_a_video_of_one_frame(pipe):
    (made,) = generate_video(pipe, SETTINGS, frames=1, trace=EXACT)
    assert phrase_map(made.trace, encode_phrase(pipe, "cat")).shape == (32, 64)
    # what `record` says of it is the same
    how = {"num_frames": 1}
    if "Sana" in type(pipe).__name__:
        how = {"frames": 1, "use_resolution_binning": False}
    with record(pipe, branch="cond") as recorder:
        pipe(
            SETTINGS.prompt,
            **how,
            height=32,
            width=64,
            num_inference_steps=2,
            output_type="latent",
        )
    assert len(recorder.traces) == 1


def test_wrong_numbers_of_frames_are_named(pipe):
    for wrong in (0, -4, 2.5):
        with pytest.raises(ValueError, match="frames is"):
            generate_video(pipe, SETTINGS, frames=wrong)
    with pytest.raises(ValueError, match=r"frames is 4: .* such as 1 or 5"):
        generate_video(pipe, SETTINGS, frames=4)


def test_images_and_videos_are_told_apart(pipe):
    with pytest.raises(ValueError, match="makes videos: use generate_video"):
        generate(pipe, SETTINGS)
    with pytest.raises(ValueError, match="makes images: use generate"):
        generate_video(small_transformers.make("lumina"), SETTINGS)


def test_wan_with_two_transformers_is_refused():
    pipe = small_transformers.make("wan")
    pipe.register_modules(transformer_2=pipe.transformer)
    with pytest.raises(ModelError, match="two transformers"), record(pipe):
        pass


def test_the_shell_makes_a_sample_a_frame_and_labels_each(pipe, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    made = [
        *("generate", "a cat", "--out", "work", "--model", "model", "--frames", "5"),
        *("--steps", "2", "--height", "32", "--width", "64"),
    ]
    for _ in range(2):  # the second time nothing is made twice
        result = CliRunner().invoke(app, made)
        assert result.exit_code == 0, result.output
    project = Project.open(tmp_path / "work")
    names = [sample.name for sample in project.samples]
    assert names == [f"a-cat-0-{number:03}" for number in range(5)]
    files = [project.trace_path(name).stat().st_ino for name in names]
    assert len(set(files)) == 2  # one for the frames that the model saw as one
    words = ["maps", "work", "--phrase", "cat", "--model", "model"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    project = Project.open(tmp_path / "work")
    for name in names:
        assert project.load_labels(name).shape == (32, 64)
        assert (tmp_path / "work/maps" / f"{name}.1-cat.png").is_file()
