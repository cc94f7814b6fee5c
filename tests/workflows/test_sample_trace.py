"""Where the trace of a sample comes from: saved, cached, made again, or by a look."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from napari_ovam import (
    GenerationSettings,
    Trace,
    TraceSettings,
    generate,
    trace_image,
)
from napari_ovam.attention.trace_cache import TraceCache
from napari_ovam.project import Project
from napari_ovam.workflows import sample_trace as module
from napari_ovam.workflows.sample_trace import (
    load_for_traces,
    sample_trace,
    saved_trace,
)

EXACT = TraceSettings(layers=None, calls=None, dtype=None, self_attention=True)
SETTINGS = GenerationSettings("a cat and a hat on the grass", seed=3, steps=3)


@pytest.fixture
def made(pipe):
    return generate(pipe, SETTINGS, trace=EXACT)


@pytest.fixture
def project(tmp_path, made) -> Project:
    project = Project.create(tmp_path / "project")
    project.add_sample(made.image, {"model": "tiny", **asdict(made.settings)}, "made")
    photo = np.ascontiguousarray(made.image[:, :24])
    about = {"prompt": "a hat", "seed": 2, "noise_seeds": 2, "flip": True}
    project.add_sample(photo, None, "photo", provenance=about)
    return project


@pytest.fixture
def work(monkeypatch) -> list[str]:
    """What was done to get traces, in order."""
    done: list[str] = []

    def count(name: str, do) -> None:
        def counted(*values, **options):
            done.append(name)
            return do(*values, **options)

        monkeypatch.setattr(module, name, counted)

    count("generate", generate)
    count("trace_image", trace_image)
    return done


def assert_same(a: Trace, b: Trace) -> None:
    assert (a.calls, a.model, a.branch) == (b.calls, b.model, b.branch)
    for one, other in zip(a.layers, b.layers, strict=True):
        assert torch.equal(one.queries, other.queries)
    for one, other in zip(a.self_layers, b.self_layers, strict=True):
        assert torch.equal(one.queries, other.queries)
        assert torch.equal(one.keys, other.keys)


def test_a_generated_image_is_traced_again_exactly_and_once(project, pipe, made, work):
    assert_same(sample_trace(project, "made", pipe, trace=EXACT), made.trace)
    assert_same(sample_trace(project, "made", pipe, trace=EXACT), made.trace)
    assert work == ["generate"]
    assert TraceCache().usage().traces == 1
    assert not project.trace_path("made").exists()
    sample_trace(project, "made", pipe)  # other calls and layers
    assert work == ["generate", "generate"]


def test_a_loaded_image_is_looked_at_as_it_was(project, pipe, work):
    photo, about = project.load_image("photo"), project.sample("photo").provenance
    how = {key: about[key] for key in ("prompt", "seed", "noise_seeds", "flip")}
    first = trace_image(pipe, photo, trace=EXACT, **how).trace
    assert_same(sample_trace(project, "photo", pipe, trace=EXACT), first)
    assert work == ["trace_image"]


def test_what_is_saved_and_fits_comes_first(project, pipe, made, work):
    few = made.trace.select(calls=made.trace.calls[:2])
    project.save_trace("made", few)
    assert_same(sample_trace(project, "made", pipe, trace=EXACT), few)
    assert work == []


@pytest.mark.parametrize("damage", [b"damaged", "another size", "another model"])
def test_what_is_saved_and_does_not_fit_stays_and_is_not_used(
    project, pipe, made, make_pipe, damage
):
    if damage == "another size":
        project.save_trace("made", trace_image(pipe, made.image[:16]).trace)
    elif damage == "another model":
        project.save_trace("made", trace_image(make_pipe(seed=1), made.image).trace)
    else:
        project.save_trace("made", made.trace).write_bytes(damage)
    before = project.trace_path("made").read_bytes()
    found = sample_trace(project, "made", pipe, trace=EXACT, keep=True)
    assert_same(found, made.trace)
    assert project.trace_path("made").read_bytes() == before


def test_a_trace_is_kept_where_that_is_asked_for(project, pipe, made):
    sample_trace(project, "made", pipe, trace=EXACT, keep=True)
    found = saved_trace(project, "made")
    assert found is not None
    assert_same(found, made.trace)


def test_settings_that_make_another_image_are_looked_at_once(project, pipe, work):
    project.add_sample(
        np.zeros((32, 32, 3), np.uint8), {"prompt": "a cat", "seed": 1, "steps": 2}, "x"
    )
    first = sample_trace(project, "x", pipe)
    assert work == ["generate", "trace_image"]
    assert first.branch == "cond"
    assert_same(sample_trace(project, "x", pipe), first)
    assert work == ["generate", "trace_image"]


@pytest.mark.parametrize(
    "settings", [{"seed": 1}, {"prompt": "", "seed": -1}, {"prompt": 3, "seed": "x"}]
)
def test_strange_settings_do_not_keep_an_image_from_its_trace(project, pipe, settings):
    project.add_sample(np.zeros((32, 32, 3), np.uint8), settings, "x")
    assert sample_trace(project, "x", pipe).image_size == (32, 32)


def test_models_with_one_text_encoder_are_told_apart(project, make_pipe, work):
    first, other = make_pipe(), make_pipe()
    with torch.no_grad():
        next(other.unet.parameters()).add_(0.1)
    sample_trace(project, "photo", first)
    sample_trace(project, "photo", other)
    sample_trace(project, "photo", first)
    assert work == ["trace_image", "trace_image"]


def test_words_on_saved_traces_load_the_text_encoder_alone(
    project, pipe, made, tmp_path
):
    pipe.save_pretrained(tmp_path / "model")
    project.save_trace("made", made.trace)
    model = str(tmp_path / "model")
    text = load_for_traces(project, ["made"], model, device="cpu")
    assert text.unet is None
    assert_same(sample_trace(project, "made", text), made.trace)
    whole = load_for_traces(project, ["made", "photo"], model, device="cpu")
    assert whole.unet is not None
