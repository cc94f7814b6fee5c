"""Transformers with norms and rotations in their attention, and those for videos."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import small_transformers
import torch
from reference import assert_close
from second_run import SecondRun

from napari_ovam import (
    OptimizationSettings,
    attention_maps,
    encode_phrase,
    load_pipeline,
    load_trace,
    optimize_token,
    phrase_map,
    record,
    save_trace,
    trace_image,
)
from napari_ovam.attention.recipes import _ClassMap
from napari_ovam.diffusion.phrases import text_encoder_hash, text_space
from napari_ovam.diffusion.pipelines import load_text_encoder, pipeline_architecture

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

# How each is called; which row of the batch the prompt's is, and of which calls of the
# model; frames, h and w of its cells.
AS_IT_STANDS = {"clean_caption": False, "use_resolution_binning": False}
FAMILIES = {
    "sana": SimpleNamespace(call=AS_IT_STANDS, row=1, calls=None, cells=(1, 8, 8)),
    "sana_sprint": SimpleNamespace(
        call=AS_IT_STANDS, row=0, calls=None, cells=(1, 8, 8)
    ),
    "hunyuan": SimpleNamespace(
        call={"use_resolution_binning": False, "height": 64, "width": 64},
        row=1,
        calls=None,
        cells=(1, 4, 4),
    ),
    "lumina": SimpleNamespace(
        call={"clean_caption": False, "height": 64, "width": 96},
        row=0,
        calls=None,
        cells=(1, 4, 6),
    ),
    "sana_video": SimpleNamespace(
        call={**AS_IT_STANDS, "height": 32, "width": 64, "frames": 9},
        row=1,
        calls=None,
        cells=(3, 2, 4),
    ),
    "wan": SimpleNamespace(
        call={"height": 32, "width": 48, "num_frames": 9},
        row=0,
        calls=(0, 2),
        cells=(3, 2, 3),
    ),
    "ltx": SimpleNamespace(
        call={"height": 32, "width": 64, "num_frames": 5},
        row=1,
        calls=None,
        cells=(2, 8, 16),
    ),
}
FAMILIES["skyreels"] = FAMILIES["wan"]
VIDEOS = ("sana_video", "wan", "skyreels", "ltx")
SIDES = {"sana": 32, "sana_sprint": 32}


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def pipe(name):
    return small_transformers.make(name)


def draw(pipe, name, prompt="a cat", steps=2, **more):
    side = SIDES.get(name)
    settings = {
        **({"height": side, "width": side} if side else {}),
        **FAMILIES[name].call,
        "num_inference_steps": steps,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "np",
        **more,
    }
    made = pipe(prompt, **settings)
    return np.asarray(made.frames if name in VIDEOS else made.images)


@pytest.fixture(scope="module")
def recorded(pipe, name):
    plain = draw(pipe, name)
    with record(pipe, branch="cond") as recorder:
        image = draw(pipe, name)
    return SimpleNamespace(plain=plain, image=image, traces=recorder.traces)


def as_read(pipe, name, phrase):
    """Return what each layer reads of a phrase, by the pipeline's own encoding."""
    if name == "hunyuan":
        rows, _, mask, _ = pipe.encode_prompt(phrase, text_encoder_index=0)
    elif name in ("wan", "skyreels"):
        (rows, _), mask = pipe.encode_prompt(phrase), None
        count = pipe.tokenizer(phrase, return_tensors="pt")["input_ids"].shape[1]
        mask = torch.arange(rows.shape[1])[None] < count
    elif name == "sana_sprint":
        rows, mask = pipe.encode_prompt(phrase)
    else:
        rows, mask, *_ = pipe.encode_prompt(phrase)
    rows = rows[:, mask[0].bool()].detach()
    model = pipe.transformer
    with torch.no_grad():
        if name.startswith("sana"):
            rows = model.caption_norm(model.caption_projection(rows))
        elif name in ("wan", "skyreels"):
            rows = model.condition_embedder.text_embedder(rows)
        elif name == "ltx":
            rows = model.caption_projection(rows)
        elif name == "lumina":
            return lambda layer: model.get_submodule(
                layer.rpartition(".")[0]
            ).norm1_context(rows)
    return rows


def test_the_image_is_the_same_and_no_hook_stays(pipe, recorded):
    np.testing.assert_array_equal(recorded.image, recorded.plain)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks
        for module in pipe.transformer.modules()
    )
    assert "encode_prompt" not in vars(pipe)


def test_maps_are_those_of_each_layer_run_a_second_time(pipe, name, recorded):
    about = FAMILIES[name]
    phrase = "a red hat"
    with (
        torch.no_grad(),
        SecondRun(pipe.transformer, as_read(pipe, name, phrase)) as run,
    ):
        draw(pipe, name)
    expected = run.maps(about.row, about.cells, about.calls)
    token = encode_phrase(pipe, phrase)
    frames = pipeline_architecture(pipe).frames(pipe)
    assert len(recorded.traces) == 1 + frames * (about.cells[0] - 1)
    for place, wanted in enumerate(expected):
        trace = recorded.traces[max(0, 1 + frames * (place - 1))]
        assert trace.grid == about.cells[1:]
        found = attention_maps(trace, token.embedding)
        assert found.std(dim=(1, 2)).max() > 1e-3  # they show something
        assert_close(found, wanted, tolerance=1e-5)


def test_the_negative_half_is_another(pipe, name, recorded):
    if name == "sana_sprint":
        pytest.skip("it has no guidance")
    with record(pipe, branch="uncond") as recorder:
        draw(pipe, name, negative_prompt="a dog on the sea")
    token = encode_phrase(pipe, "cat")
    a, b = (
        attention_maps(t[0], token.embedding)
        for t in (recorder.traces, recorded.traces)
    )
    assert recorder.traces[0].branch == "uncond"
    assert (a - b).abs().max() > 1e-3


def test_a_trace_file_says_the_same(pipe, recorded, tmp_path):
    trace = recorded.traces[-1]
    again = load_trace(save_trace(trace, tmp_path / "a.safetensors"))
    token = encode_phrase(pipe, "red hat")
    np.testing.assert_array_equal(phrase_map(again, token), phrase_map(trace, token))


def test_gradients_are_finite_differences(pipe, recorded):
    trace = recorded.traces[-1]
    rows = encode_phrase(pipe, "hat").embedding[-2:].clone()
    weights = torch.rand(trace.grid, generator=torch.Generator().manual_seed(1))

    def value(at: torch.Tensor) -> torch.Tensor:
        return (attention_maps(trace, at)[1] * weights).sum()

    at = rows.clone().requires_grad_()
    value(at).backward()
    way = torch.randn(rows.shape, generator=torch.Generator().manual_seed(2))
    step = 1e-2
    expected = (value(rows + step * way) - value(rows - step * way)) / (2 * step)
    assert expected.abs() > 1e-4
    torch.testing.assert_close((at.grad * way).sum(), expected, rtol=2e-2, atol=1e-4)
    again = rows.clone().requires_grad_()
    class_map = _ClassMap(trace, torch.float32)(again)
    torch.testing.assert_close(class_map, attention_maps(trace, rows)[1])
    (class_map * weights).sum().backward()
    torch.testing.assert_close(again.grad, at.grad, rtol=1e-3, atol=1e-5)


def test_a_token_learns(pipe, recorded):
    trace = recorded.traces[0]
    target = np.zeros(trace.image_size, np.uint8)
    target[:, : trace.image_size[1] // 2] = 1
    token = optimize_token(
        trace, encode_phrase(pipe, "cat"), target, OptimizationSettings(iterations=20)
    )
    assert min(token.info["losses"]) < 0.97 * token.info["losses"][0]


@pytest.mark.parametrize("family", ["sana", "hunyuan"])
def test_a_picture_is_looked_at(family):
    pipe = small_transformers.make(family)
    side = SIDES.get(family, 64)
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    made = trace_image(pipe, image, prompt="a cat", noise_seeds=2)
    found = phrase_map(made.trace, encode_phrase(pipe, "cat"))
    assert found.shape == (side, side)
    assert found.std() > 1e-4


@pytest.mark.parametrize("family", ["sana_sprint", "lumina", "wan"])
def test_pictures_that_cannot_be_looked_at_are_refused(family):
    pipe = small_transformers.make(family)
    with pytest.raises(ValueError, match="cannot be traced with"):
        trace_image(pipe, np.zeros((64, 64, 3), np.uint8))


def test_several_prompts_and_calls(pipe, name):
    with record(pipe, branch="cond") as recorder:
        draw(pipe, name, prompt=["a cat", "a dog"], steps=2)
        draw(pipe, name, prompt="a hat", steps=2)
    each = len(recorder.traces) // 3
    assert [len(t.calls) for t in recorder.traces[: 2 * each]] == [2] * 2 * each
    assert recorder.traces[0] is not recorder.traces[each]


def test_the_middle_calls_are_kept_alone_where_that_is_asked_for(pipe, name):
    with record(pipe, branch="cond", calls="quarters", dtype=torch.float16) as recorder:
        draw(pipe, name, steps=8 if name != "sana_sprint" else 2)
    trace = recorder.traces[0]
    assert len(trace.calls) <= 3
    assert {layer.queries.dtype for layer in trace.layers} == {torch.float16}


def test_self_attention_is_recorded_or_refused_by_name(pipe, name):
    if pipeline_architecture(pipe).no_self_maps:
        with pytest.raises(ValueError, match="self-attention of"):
            record(pipe, self_attention=True).__enter__()
        return
    with record(pipe, branch="cond", self_attention=True) as recorder:
        draw(pipe, name)
    trace = recorder.traces[0]
    assert len(trace.self_layers) == len(trace.layers)


def test_it_is_saved_and_loaded_whole_and_its_text_encoder_alone(
    pipe, name, recorded, tmp_path
):
    pipe.save_pretrained(tmp_path)
    whole = load_pipeline(tmp_path, device="cpu")
    np.testing.assert_allclose(draw(whole, name), recorded.plain, atol=1e-5)
    text = load_text_encoder(tmp_path, device="cpu")
    assert getattr(text, "vae", None) is None
    held = [] if text.transformer is None else text.transformer.parameters()
    assert sum(not p.is_meta for p in held) <= 5
    for other in (whole, text):
        assert text_encoder_hash(other) == text_encoder_hash(pipe)
        token, wanted = (encode_phrase(p, "red hat") for p in (other, pipe))
        torch.testing.assert_close(token.embedding, wanted.embedding)
        assert token.pieces == wanted.pieces
        assert token.pieces[0] == "red"
        assert text_space(other).text_dim == token.text_dim
