"""Generating and tracing images with a small random pipeline of the real classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline

from napari_ovam.attention.trace_settings import TraceSettings
from napari_ovam.base.generation_settings import GenerationSettings
from napari_ovam.base.progress import Cancelled
from napari_ovam.diffusion import generation as diffusion
from napari_ovam.diffusion.devices import OutOfMemory
from napari_ovam.diffusion.generation import GenerationError, generate, resolve_settings
from napari_ovam.diffusion.pipelines import load_pipeline, model_defaults

SETTINGS = GenerationSettings("a cat", seed=3, steps=3, guidance_scale=4.0)
LONGER = dataclasses.replace(SETTINGS, steps=6)
KEEP_ALL = TraceSettings(
    branch="uncond", layers=None, calls=None, dtype=torch.float32, middle=False
)


def hooks(pipe) -> int:
    modules = (*pipe.unet.modules(), *pipe.vae.modules(), *pipe.text_encoder.modules())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def same_trace(a, b) -> bool:
    return len(a.layers) == len(b.layers) and all(
        torch.equal(x.queries, y.queries)
        for x, y in zip(a.layers, b.layers, strict=True)
    )


def cancel_at(count):
    """Return a progress callback that cancels when it has been called `count` times."""
    calls = []

    def progress(done, total):
        calls.append((done, total))
        if len(calls) == count:
            raise Cancelled

    return progress, calls


def test_a_seed_gives_one_image_bit_for_bit(pipe):
    first = generate(pipe, SETTINGS, trace=KEEP_ALL)
    again = generate(pipe, SETTINGS, trace=KEEP_ALL)
    other = generate(pipe, dataclasses.replace(SETTINGS, seed=4), trace=KEEP_ALL)
    np.testing.assert_array_equal(first.image, again.image)
    assert same_trace(first.trace, again.trace)
    assert (first.image != other.image).any()
    assert first.image.dtype == np.uint8
    assert first.image.shape[:2] == first.trace.image_size


def test_recording_and_previewing_change_no_pixel(pipe):
    expected = pipe(
        SETTINGS.prompt,
        num_inference_steps=SETTINGS.steps,
        guidance_scale=SETTINGS.guidance_scale,
        generator=torch.Generator().manual_seed(SETTINGS.seed),
    ).images[0]
    got = generate(pipe, SETTINGS, trace=KEEP_ALL, preview=lambda *_: None)
    np.testing.assert_array_equal(got.image, np.asarray(expected))


def test_the_models_defaults_are_filled_in_and_reproduce(pipe):
    settings = dataclasses.replace(SETTINGS, guidance_scale=None)
    done = generate(pipe, settings, trace=KEEP_ALL).settings
    defaults = model_defaults(pipe)
    assert (done.height, done.width) == (defaults.height, defaults.width)
    assert (done.steps, done.guidance_scale) == (3, defaults.guidance_scale)


def test_progress_counts_every_call_of_the_scheduler(pipe):
    counts = []
    generate(
        pipe,
        SETTINGS,
        trace=KEEP_ALL,
        progress=lambda done, total: counts.append((done, total)),
    )
    total = pipe.num_timesteps  # PNDM runs one more than the steps asked for
    assert counts == sorted(counts)
    assert set(counts) == {(i, total) for i in range(total + 1)}


@pytest.mark.parametrize("count", [1, 3, 10])
def test_cancelling_stops_at_once_and_leaves_the_pipeline_usable(pipe, count):
    before, expected = hooks(pipe), generate(pipe, SETTINGS, trace=KEEP_ALL).image
    progress, calls = cancel_at(count)
    with pytest.raises(Cancelled):
        generate(pipe, SETTINGS, trace=KEEP_ALL, progress=progress)
    assert len(calls) == count
    assert hooks(pipe) == before
    again = generate(pipe, SETTINGS, trace=KEEP_ALL)
    np.testing.assert_array_equal(again.image, expected)


def test_cancel_is_checked_within_a_step(pipe):
    progress, calls = cancel_at(2)
    with pytest.raises(Cancelled):
        generate(pipe, SETTINGS, trace=KEEP_ALL, progress=progress)
    assert [done for done, _ in calls] == [0, 0]  # the first step was not finished


def test_previews_arrive_on_the_way_and_end_in_the_image(pipe):
    seen = []
    made = generate(
        pipe,
        LONGER,
        trace=KEEP_ALL,
        preview=lambda step, rgb: seen.append((step, rgb)),
    )
    assert [step for step, _ in seen] == [4, 6]
    for _, rgb in seen:
        assert rgb.dtype == np.uint8
        assert rgb.shape == made.image.shape
    np.testing.assert_allclose(seen[-1][1].astype(int), made.image.astype(int), atol=1)


def test_previews_of_a_large_autoencoder_are_linear_in_the_latents(pipe, monkeypatch):
    monkeypatch.setattr(diffusion, "_SMALL_VAE_PARAMETERS", 0)
    seen = []
    expected = generate(pipe, LONGER, trace=KEEP_ALL).image
    made = generate(
        pipe, LONGER, trace=KEEP_ALL, preview=lambda _, rgb: seen.append(rgb)
    )
    height, width = made.image.shape[:2]
    factor = pipe.vae_scale_factor
    assert {rgb.shape for rgb in seen} == {(height // factor, width // factor, 3)}
    assert (seen[0] != seen[-1]).any()
    np.testing.assert_array_equal(made.image, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": "a K\udce4fer"}, r"prompt 'a K\\udce4fer'.*no UTF-8"),
        ({"negative_prompt": "K\udce4fer"}, "negative prompt .*no UTF-8"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, r"steps is 2\.5"),
        ({"steps": 1001}, "steps is 1001"),
        ({"guidance_scale": -1.0}, r"guidance_scale is -1\.0"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": "7"}, "guidance_scale is '7'"),
        ({"width": 64.5}, r"width is 64\.5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, f"seed is {2**63}"),
        ({"height": 0}, "height is 0"),
        ({"width": 67}, r"width is 67.*nearest is \d+"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_runs(pipe, change, message):
    with pytest.raises(ValueError, match=message):
        generate(pipe, dataclasses.replace(SETTINGS, **change))


def test_the_nearest_size_that_is_offered_works(pipe):
    with pytest.raises(ValueError, match="nearest is") as caught:
        resolve_settings(pipe, dataclasses.replace(SETTINGS, height=41))
    nearest = int(str(caught.value).split()[-1])
    made = generate(
        pipe, dataclasses.replace(SETTINGS, height=nearest, steps=1), trace=KEEP_ALL
    )
    assert made.image.shape[0] == nearest
    assert abs(nearest - 41) <= pipe.vae_scale_factor


def test_other_pipelines_are_told_what_to_use(pipe):
    with pytest.raises(ValueError, match=r"StableDiffusionPipeline\.from_pipe"):
        generate(StableDiffusionImg2ImgPipeline(**pipe.components), SETTINGS)


@pytest.fixture
def own_pipe(pipe, tmp_path):
    """Return a copy of the pipeline that a test may break."""
    pipe.save_pretrained(tmp_path)
    return load_pipeline(tmp_path, device="cpu")


def test_numbers_that_are_no_image_are_an_error(own_pipe):
    with torch.no_grad():
        own_pipe.unet.conv_out.bias.fill_(torch.nan)
    with pytest.raises(GenerationError, match=r"NaNs.*conv_out\.bias of the unet"):
        generate(own_pipe, SETTINGS, trace=KEEP_ALL)


def test_out_of_memory_says_how_to_fit(own_pipe):
    def full(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    handle = own_pipe.unet.mid_block.register_forward_hook(full)
    before = hooks(own_pipe)
    with pytest.raises(OutOfMemory, match="smaller size"):
        generate(own_pipe, SETTINGS, trace=KEEP_ALL)
    assert hooks(own_pipe) == before
    handle.remove()
