"""Models whose text changes with every layer: any phrase is replayed, exactly."""

from __future__ import annotations

import functools
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from joint_kinds import KINDS
from joint_reference import Reference
from PIL import Image
from probing import draw

from napari_ovam import (
    GenerationSettings,
    OptimizationSettings,
    TraceSettings,
    attention_maps,
    encode_phrase,
    generate,
    load_pipeline,
    load_trace,
    optimize_token,
    phrase_map,
    record,
    save_trace,
    trace_image,
)
from napari_ovam.attention.shown_calls import ShownCalls
from napari_ovam.attention.trace import ModelMismatchError
from napari_ovam.diffusion.architectures import pipeline_architecture

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
PROMPT = "a cat on the grass"
EXACT = TraceSettings("cond", layers=None, calls=None, dtype=None)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return KINDS[request.param]


@functools.cache
def small(name):
    """Return a pipeline, a trace of it, and how it is run."""
    kind = KINDS[name]
    pipe = kind.make()
    with record(pipe, branch="cond") as recorder:
        image = draw(pipe, PROMPT, **kind.settings)
    return kind, pipe, recorder.traces[0], image


@pytest.fixture(params=KINDS)
def made(request):
    return small(request.param)


def phrases(pipe, count=3):
    """Return two phrases of `count` random rows, as large as the model's own."""
    rows = encode_phrase(pipe, "cat").embedding
    generator = torch.Generator().manual_seed(9)
    return torch.randn(2, count, rows.shape[1], generator=generator) * rows.std()


def close(actual, expected, tolerance=1e-5):
    difference = (actual.double() - expected).abs().max() / expected.abs().max()
    assert difference <= tolerance, float(difference)


def hooks(model):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()
    )


def test_the_image_is_the_same_and_no_hook_stays(made):
    kind, pipe, trace, recorded = made
    phrase_map(trace, encode_phrase(pipe, "cat"))
    plain = draw(pipe, PROMPT, **kind.settings)
    np.testing.assert_array_equal(recorded, plain)
    assert hooks(pipe.transformer) == 0
    assert all(p.requires_grad for p in pipe.transformer.parameters())
    assert (trace.branch, trace.calls) == ("cond", (0, 1))


@pytest.mark.parametrize("meeting", ["keys", "outputs"])
def test_maps_equal_the_reference_inside_the_pipeline(made, meeting):
    kind, pipe, trace, recorded = made
    rows = phrases(pipe)
    with Reference(kind, pipe, rows) as reference, torch.no_grad():
        image = draw(pipe, PROMPT, **kind.settings)
    np.testing.assert_array_equal(recorded, image)
    trace = trace.with_meeting(meeting)
    assert [layer.name for layer in trace.layers] == list(reference.calls[0])
    for phrase in range(len(rows)):
        maps = attention_maps(trace, rows[phrase])
        close(maps.flatten(1), reference.maps(meeting, phrase))
    for layer, keys in trace.keys([rows]):
        for call in range(len(trace.calls)):
            for phrase in range(len(rows)):
                own = keys[0][call].unflatten(1, rows.shape[:2])[:, phrase]
                scores = own @ layer.queries[call].transpose(-1, -2)
                close(scores, reference.scores(meeting, call, layer.name, phrase))


def test_the_prompt_itself_becomes_what_it_became_in_the_run(made):
    kind, pipe, trace, _ = made
    own = kind.own_rows(pipe, PROMPT).detach()
    with Reference(kind, pipe, own[None, :1]) as reference, torch.no_grad():
        draw(pipe, PROMPT, **kind.settings)
    for meeting, part in (("keys", "own key"), ("outputs", "own out")):
        for layer, (found,) in trace.with_meeting(meeting).keys([own[None]]):
            for call, blocks in enumerate(reference.calls):
                text = reference._text(blocks[layer.name][part], len(own))[0]
                if meeting == "outputs":
                    text = text.transpose(0, 1).flatten(1)[None]
                close(found[call], text.double() * layer.scale)


def test_gradients_equal_finite_differences(made):
    _, pipe, trace, _ = made
    pipe = pipe.to(torch.float64)
    try:
        trace = trace.to(None, torch.float64)
        rows = phrases(pipe)[0].double()
        weights = torch.randn(
            3, *trace.grid, generator=torch.Generator().manual_seed(1)
        ).double()

        def loss(rows):
            total = 0
            for layer, (keys,) in trace.keys([rows[None]]):
                scores = keys @ layer.queries.transpose(-1, -2)
                maps = scores.softmax(-2).sum((0, 1)).unflatten(-1, layer.grid)
                total = total + (maps * weights).sum()
            return total

        start = rows.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(start), start)
        for seed in range(3):
            way = torch.randn(
                rows.shape, generator=torch.Generator().manual_seed(seed)
            ).double()
            way, step = way / way.norm(), 4e-3
            one, two = (
                loss(rows + s * way) - loss(rows - s * way) for s in (step, 2 * step)
            )
            numeric = (8 * one - two) / (12 * step)  # five points: RoPE is in float32
            error = (numeric - (gradient * way).sum()).abs() / gradient.norm()
            assert error < 1e-4
        assert all(p.grad is None for p in pipe.transformer.parameters())
    finally:
        pipe.to(torch.float32)


def test_a_phrase_maps_the_same_alone_and_beside_others(made):
    _, pipe, trace, _ = made
    one, other = (encode_phrase(pipe, p) for p in ("cat", "red hat on the snow"))
    from napari_ovam.attention.maps import phrase_maps

    both = phrase_maps(trace, [one, other, one])
    np.testing.assert_allclose(both[0], phrase_map(trace, one), atol=1e-6)
    np.testing.assert_allclose(both[1], phrase_map(trace, other), atol=1e-6)
    assert not np.allclose(both[0], both[1], atol=1e-4)


def test_a_file_keeps_what_was_shown_and_no_queries(made, tmp_path):
    _, pipe, trace, _ = made
    token = encode_phrase(pipe, "cat")
    path = save_trace(trace, tmp_path / "cat.safetensors")
    assert path.stat().st_size < sum(la.queries.nbytes for la in trace.layers) + 10**6
    again = load_trace(path)
    np.testing.assert_array_equal(phrase_map(again, token), phrase_map(trace, token))
    some = [trace.layers[1].name, trace.layers[-1].name]
    parts = (
        load_trace(path, layers=some).select(calls=[1]),
        load_trace(save_trace(trace.select(layers=some, calls=[-1]), path)),
    )
    for part in parts:
        assert [layer.name for layer in part.layers] == some
        assert part.calls == (1,)
        np.testing.assert_allclose(
            phrase_map(part, token),
            phrase_map(trace.select(layers=some, calls=[1]), token),
            atol=1e-6,
        )


def test_a_trace_in_half_precision_maps_all_but_the_same(made):
    kind, pipe, trace, _ = made
    with record(pipe, branch="cond", dtype=torch.float16) as recorder:
        draw(pipe, PROMPT, **kind.settings)
    token = encode_phrase(pipe, "red cat")
    halved = recorder.traces[0]
    assert halved.layers[0].queries.dtype == torch.float16
    np.testing.assert_allclose(
        phrase_map(halved, token), phrase_map(trace, token), atol=5e-3
    )


def test_what_is_not_held_is_shown_again(made, monkeypatch):
    _, pipe, trace, _ = made
    token = encode_phrase(pipe, "cat")
    expected = phrase_map(trace, token)
    monkeypatch.setattr("napari_ovam.attention.shown_calls.MEMORY", 0)
    fresh = trace.to(None)  # of the same calls
    fresh.stream.shown._state = None
    np.testing.assert_array_equal(phrase_map(fresh, token), expected)


def test_the_other_half_of_the_guidance_is_another_trace(made):
    kind, pipe, trace, _ = made
    if kind.row == 0 and kind.passes == 1:
        pytest.skip("no guidance")
    with record(pipe, branch="uncond") as recorder:
        draw(pipe, PROMPT, **kind.settings)
    other = recorder.traces[0]
    assert other.branch == "uncond"
    token = encode_phrase(pipe, "cat")
    assert not np.allclose(phrase_map(other, token), phrase_map(trace, token), 1e-3)


def tampered(trace, **inputs):
    """Return a trace that says that the model was shown something else."""
    shown = trace.stream.shown
    stream = replace(
        trace.stream,
        shown=ShownCalls(
            shown.kind,
            shown.model,
            {**shown.inputs, **inputs},
            shown.last,
            shown.probe,
        ),
    )
    return replace(trace, layers=stream.layers, stream=stream)


def test_the_wrong_half_is_refused(made):
    kind, pipe, trace, _ = made
    with record(pipe, branch="cond") as recorder:
        draw(pipe, "the sea at night", **kind.settings)
    other = recorder.traces[0].stream.shown.inputs
    token = encode_phrase(pipe, "cat")
    name = next(n for n in ("encoder_hidden_states", "cap_feats") if n in other)
    with pytest.raises(ModelMismatchError, match="does not see what was recorded"):
        phrase_map(tampered(trace, **{name: other[name]}), token)


def test_wrong_positions_are_refused(made):
    _, pipe, trace, _ = made
    shown = trace.stream.shown.inputs
    token = encode_phrase(pipe, "cat")
    wrong = {
        # Where cells and pieces of the text are: rows and columns the other way round.
        "img_ids": lambda ids: torch.cat([ids[..., :1], ids[..., 1:].flip(-1)], -1),
        "txt_ids": lambda ids: ids + 3,
        "img_shapes": lambda shapes: shapes * torch.tensor([2, 4, 1]) // 2,
    }
    found = {
        name: change(shown[name]) for name, change in wrong.items() if name in shown
    }
    if not found:  # they follow from the picture's sides
        name = next(n for n in ("hidden_states", "x") if n in shown)
        found[name] = shown[name].transpose(-1, -2).contiguous()
    for name, tensor in found.items():
        if not torch.equal(tensor, shown[name]):
            with pytest.raises(ModelMismatchError, match="does not see what was"):
                phrase_map(tampered(trace, **{name: tensor}), token)


def test_other_weights_are_refused_and_the_right_ones_found_again(made):
    _, pipe, trace, _ = made
    token = encode_phrase(pipe, "cat")
    expected = phrase_map(trace, token)
    name = next(n for n, _ in pipe.transformer.named_parameters() if "to_v" in n)
    weight = pipe.transformer.get_parameter(name)
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(-1)
    try:
        with pytest.raises(ModelMismatchError, match="LoRA"):
            phrase_map(trace, token)
    finally:
        with torch.no_grad():
            weight.copy_(before)
    np.testing.assert_array_equal(phrase_map(trace, token), expected)


def test_without_its_model_a_trace_says_so(kind, tmp_path):
    pipe = kind.make()
    with torch.no_grad():  # no other test has this one
        encoder = pipeline_architecture(pipe).text_modules(pipe)[0]
        encoder.get_input_embeddings().weight.neg_()
    token = encode_phrase(pipe, "cat")
    trace = generate(pipe, GenerationSettings("a cat", steps=2)).trace
    path = save_trace(trace, tmp_path / "cat.safetensors")
    expected = phrase_map(trace, token)
    pipe.save_pretrained(tmp_path / "model")
    del pipe
    for lost in (trace, load_trace(path)):
        with pytest.raises(ModelMismatchError, match=r"not at hand.*load"):
            phrase_map(lost, token)
    load_pipeline(tmp_path / "model", device="cpu")
    again = load_pipeline(tmp_path / "model", device="cpu")
    # queries are kept in half precision: a last bit of theirs may fall otherwise
    np.testing.assert_allclose(phrase_map(load_trace(path), token), expected, atol=1e-4)
    assert again is not None


def test_generating_looking_and_optimizing(kind):
    pipe = kind.make()
    made = generate(pipe, GenerationSettings(PROMPT, steps=4), trace=EXACT)
    token = encode_phrase(pipe, "red cat")
    assert phrase_map(made.trace, token).shape == made.image.shape[:2]
    seen = trace_image(pipe, made.image[:40], prompt=PROMPT, noise_seeds=2, flip=True)
    assert len(seen.trace.calls) == 4
    assert phrase_map(seen.trace, token).shape == (40, made.image.shape[1])
    target = np.zeros(made.image.shape[:2], np.uint8)
    target[: len(target) // 2] = 1
    learned = optimize_token(
        [made.trace], token, [target], OptimizationSettings(iterations=8)
    )
    losses = learned.info["losses"]
    assert losses[-1] < losses[0]
    assert tuple(learned.embedding.shape) == (2, token.text_dim)
    assert all(p.grad is None for p in pipe.transformer.parameters())


def test_a_mirrored_look_is_turned_back(kind):
    pipe = kind.make()
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    how = {"noise_seeds": 1, "noise_level": 0, "trace": EXACT}
    plain = trace_image(pipe, image, **how).trace
    turned = trace_image(pipe, image[:, ::-1], flip=True, **how).trace
    token = encode_phrase(pipe, "cat")
    np.testing.assert_allclose(
        phrase_map(turned.select(calls=[1]), token)[:, ::-1],
        phrase_map(plain, token),
        atol=1e-4,
    )


CLASSES = [
    (name, other)
    for name, kind in KINDS.items()
    for other in pipeline_architecture(kind.make()).family.pipelines[1:]
]


@pytest.mark.parametrize(("name", "other"), CLASSES)
def test_every_pipeline_of_a_family_is_recorded(name, other):
    kind, base, _, _ = small(name)
    pipe = getattr(diffusers, other)(**base.components)
    pipe.set_progress_bar_config(disable=True)
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)))
    how = {"image": ramp.convert("RGB"), "strength": 0.7, "num_inference_steps": 4}
    how |= kind.settings | ({"mask_image": ramp} if "Inpaint" in other else {})
    plain = draw(pipe, PROMPT, **how)
    with record(pipe, branch="cond") as recorder:
        recorded = draw(pipe, PROMPT, **how)
    np.testing.assert_array_equal(recorded, plain)
    (trace,) = recorder.traces
    assert len(trace.calls) == 3
    assert phrase_map(trace, encode_phrase(pipe, "cat")).shape == (64, 64)


def test_self_attention_and_caches_are_refused(kind):
    pipe = kind.make()
    with (
        pytest.raises(ValueError, match="no self-attention"),
        record(pipe, self_attention=True),
    ):
        pass
