"""Recording around calls of real pipelines: what is kept, and that nothing stays."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
)
from PIL import Image
from reference import Capture, assert_close

from napari_ovam import Cancelled, attention_maps, record
from napari_ovam.diffusion.weights_hash import text_encoder_hash

LAYERS = 6  # in the down and up blocks of the small pipeline


def draw(pipe, prompt="a cat", seed=0, steps=2, **settings):
    settings = {"output_type": "np", **settings}
    generator = torch.Generator().manual_seed(seed)
    out = pipe(prompt, num_inference_steps=steps, generator=generator, **settings)
    return np.asarray(out.images)


def text(pipe, words="a cat and a hat") -> torch.Tensor:
    ids = pipe.tokenizer(words, return_tensors="pt").input_ids
    with torch.no_grad():
        return pipe.text_encoder(ids).last_hidden_state[0]


def hooks(pipe) -> int:
    modules = [m for p in (pipe.unet, pipe.vae, pipe.text_encoder) for m in p.modules()]
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    kinds += ("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    return sum(len(getattr(m, kind)) for m in modules for kind in kinds)


def check_parity(pipe, trace, captured, row, **chosen):
    expected = captured.row(row, **chosen)
    assert [la.name for la in trace.layers] == [la.name for la in expected.layers]
    assert [la.grid for la in trace.layers] == [la.grid for la in expected.layers]
    embedding = text(pipe)
    assert_close(attention_maps(trace, embedding), reference.maps(expected, embedding))


@pytest.mark.parametrize("branch", ["uncond", "cond"])
@pytest.mark.parametrize("size", [(32, 32), (32, 64), (48, 16)])
def test_parity_with_guidance(pipe, branch, size):
    with Capture(pipe) as captured, record(pipe, branch=branch) as recorder:
        draw(pipe, height=size[0], width=size[1], guidance_scale=5)
    (trace,) = recorder.traces
    assert trace.image_size == size
    assert trace.grid == (size[0] // 4, size[1] // 4)
    assert (trace.branch, trace.calls) == (branch, (0, 1))
    assert trace.model == text_encoder_hash(pipe)
    assert len(trace.layers) == LAYERS
    check_parity(pipe, trace, captured, 0 if branch == "uncond" else 1)


def test_parity_without_guidance(pipe):
    with Capture(pipe) as captured, record(pipe) as recorder:
        draw(pipe, guidance_scale=1)
    (trace,) = recorder.traces
    assert trace.branch == "cond"
    check_parity(pipe, trace, captured, 0)


def test_parity_with_the_middle_block(pipe):
    blocks = ("down", "mid", "up")
    with Capture(pipe, blocks) as captured, record(pipe, middle=True) as recorder:
        draw(pipe)
    assert len(recorder.traces[0].layers) == LAYERS + 1
    check_parity(pipe, recorder.traces[0], captured, 0)


@pytest.mark.parametrize("branch", ["uncond", "cond"])
def test_several_images_a_call(pipe, branch):
    with Capture(pipe) as captured, record(pipe, branch=branch) as recorder:
        draw(pipe, ["a cat", "a red house"], num_images_per_prompt=2)
    assert len(recorder.traces) == 4
    for image, trace in enumerate(recorder.traces):
        check_parity(pipe, trace, captured, image + 4 * (branch == "cond"))


def test_several_images_without_guidance_that_start_alike(pipe):
    with record(pipe) as recorder:
        latents = torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1)
        draw(pipe, ["a cat", "a dog"], guidance_scale=1, latents=latents)
    assert [trace.branch for trace in recorder.traces] == ["cond", "cond"]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # diffusers
@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        (None, {}),
        (PNDMScheduler, {"skip_prk_steps": True}),
        (HeunDiscreteScheduler, {}),
    ],
    ids=["DDIM", "PNDM", "Heun"],
)
def test_several_calls_in_one_block(make_pipe, scheduler, options):
    pipe = make_pipe()
    if scheduler is not None:
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **options)
    with Capture(pipe) as captured, record(pipe) as recorder:
        draw(pipe, steps=3)
        first = pipe.num_timesteps
        draw(pipe, "a dog", seed=1, steps=1, guidance_scale=1)
        draw(pipe, "a dog", seed=2, steps=1, guidance_scale=1)
        draw(pipe, ["a cat", "a dog"], steps=2)
    counts = [len(trace.calls) for trace in recorder.traces]
    one, two = counts[1], counts[3]
    assert counts == [first, one, one, two, two]
    assert [t.branch for t in recorder.traces] == [
        "uncond",
        *["cond"] * 2,
        *["uncond"] * 2,
    ]
    starts = [0, first, first + one, first + 2 * one, first + 2 * one]
    for trace, start, row in zip(recorder.traces, starts, [0, 0, 0, 0, 1], strict=True):
        calls = range(start, start + len(trace.calls))
        check_parity(pipe, trace, captured, row, calls=calls)


def test_a_call_after_a_cancelled_one_is_another(pipe):
    image = Image.new("RGB", (32, 32), "red")
    other = AutoPipelineForImage2Image.from_pipe(pipe)

    def stop(*args):
        raise Cancelled

    with record(other) as recorder:
        with pytest.raises(Cancelled):
            draw(other, image=image, strength=1.0, steps=4, callback_on_step_end=stop)
        draw(other, image=image, strength=0.5, steps=4)  # its time steps go on falling
    assert [trace.calls for trace in recorder.traces] == [(0,), (0, 1)]


def test_image_to_image(pipe):
    other = AutoPipelineForImage2Image.from_pipe(pipe)
    image = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1)))
    settings = {"image": image.convert("RGB"), "strength": 0.6, "steps": 5}
    plain = draw(other, **settings)
    with Capture(pipe) as captured, record(other) as recorder:
        drawn = draw(other, **settings)
    np.testing.assert_array_equal(drawn, plain)
    assert recorder.traces[0].calls == (0, 1, 2)
    check_parity(pipe, recorder.traces[0], captured, 0)


@pytest.mark.parametrize("channels", [4, 9])
def test_inpainting(make_pipe, pipe, channels):
    if channels == 9:
        other = StableDiffusionInpaintPipeline(
            **make_pipe(in_channels=9).components, requires_safety_checker=False
        )
        other.set_progress_bar_config(disable=True)
    else:
        other = AutoPipelineForInpainting.from_pipe(pipe)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 4:16] = 255
    settings = {
        "image": Image.new("RGB", (32, 32), "green"),
        "mask_image": Image.fromarray(mask),
        "height": 32,
        "width": 32,
        "steps": 3,
        "strength": 1.0,
    }
    plain = draw(other, **settings)
    with Capture(other) as captured, record(other) as recorder:
        drawn = draw(other, **settings)
    np.testing.assert_array_equal(drawn, plain)
    (trace,) = recorder.traces
    assert (trace.branch, trace.image_size) == ("uncond", (32, 32))
    check_parity(other, trace, captured, 0)


@pytest.mark.parametrize("guidance", [1, 5])
def test_recording_changes_no_pixel(pipe, guidance):
    plain = draw(pipe, guidance_scale=guidance)
    everything = {"middle": True, "self_attention": True, "dtype": torch.float16}
    with record(pipe, **everything):
        recorded = draw(pipe, guidance_scale=guidance)
    np.testing.assert_array_equal(recorded, plain)


def test_no_hook_stays_behind(pipe):
    before = hooks(pipe)
    with record(pipe, self_attention=True):
        assert hooks(pipe) > before
        draw(pipe, steps=1)
    assert hooks(pipe) == before
    for error in (RuntimeError, Cancelled, KeyboardInterrupt):
        with pytest.raises(error), record(pipe) as recorder:  # noqa: PT012
            draw(pipe, steps=1)
            raise error
        assert hooks(pipe) == before
        assert recorder.traces == []


def test_check_ends_a_call_in_every_layer(pipe):
    before, plain = hooks(pipe), draw(pipe)
    counts = []

    def count():
        counts.append(1)

    with record(pipe, check=count):
        draw(pipe, steps=1)
    assert len(counts) > 2 * LAYERS
    for stop in range(1, len(counts) + 1, 3):
        asked = iter(range(len(counts)))

        def check(stop=stop, asked=asked):
            if next(asked) + 1 == stop:
                raise Cancelled

        with pytest.raises(Cancelled), record(pipe, check=check):
            draw(pipe, steps=1)
        assert hooks(pipe) == before
    np.testing.assert_array_equal(draw(pipe), plain)


@pytest.mark.parametrize(
    ("calls", "kept"),
    [((0,), (0,)), ((3, 1), (1, 3)), ((-1,), (4,)), ((-3, 0), (0, 2)), ((-5, 0), (0,))],
)
def test_chosen_calls(pipe, calls, kept):
    with Capture(pipe) as captured, record(pipe, calls=calls) as recorder:
        draw(pipe, steps=5)
    assert recorder.traces[0].calls == kept
    check_parity(pipe, recorder.traces[0], captured, 0, calls=kept)


def test_chosen_layers(pipe):
    name = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
    both = {"layers": [8, name], "self_attention": True}
    with Capture(pipe) as captured, record(pipe, **both) as recorder:
        draw(pipe)
    (trace,) = recorder.traces
    names = [layer.name for layer in trace.layers]
    assert sorted(layer.grid for layer in trace.layers) == [(4, 4), *[(8, 8)] * 3]
    assert [la.name for la in trace.self_layers] == [n[:-1] + "1" for n in names]
    check_parity(pipe, trace, captured, 0, names=names)


def test_self_attention_is_what_the_layer_computes(make_pipe):
    pipe = make_pipe(only_cross_attention=(True, False, False))
    seen = {}

    def keep(module, args, kwargs):
        seen["hidden"] = (args[0] if args else kwargs["hidden_states"]).detach()

    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    attention = pipe.unet.get_submodule(name)
    handle = attention.register_forward_pre_hook(keep, with_kwargs=True)
    with record(pipe, branch="cond", self_attention=True) as recorder:
        draw(pipe, steps=1)
    handle.remove()
    trace = recorder.traces[0]
    # Where the blocks attend to the text only, attn1 is no self-attention.
    assert {layer.grid for layer in trace.self_layers} == {(4, 4)}
    (layer,) = [layer for layer in trace.self_layers if layer.name == name]
    heads = attention.heads
    for part in ("queries", "keys"):
        weight = getattr(attention, {"queries": "to_q", "keys": "to_k"}[part]).weight
        expected = (seen["hidden"][1] @ weight.T).detach()
        split = expected.reshape(16, heads, -1).transpose(0, 1)
        torch.testing.assert_close(getattr(layer, part)[0], split)
    assert len(trace.layers) == LAYERS


def test_half_storage_changes_maps_little(pipe):
    traces = []
    for dtype in (None, torch.float16):
        with record(pipe, dtype=dtype) as recorder:
            draw(pipe)
        traces += recorder.traces
    kinds = [{la.queries.dtype for la in trace.layers} for trace in traces]
    assert kinds == [{torch.float32}, {torch.float16}]
    whole, half = (attention_maps(trace, text(pipe)) for trace in traces)
    assert_close(half, whole, 2e-3)


def test_one_half_is_kept_without_the_other(pipe):
    with record(pipe) as recorder:
        draw(pipe, ["a cat"] * 2)
    for layer in recorder.traces[0].layers:
        assert layer.queries.untyped_storage().nbytes() == layer.queries.nbytes


def test_the_unet_alone_is_recorded(pipe):
    draw(pipe)  # leaves its guidance set
    with record(pipe) as recorder, torch.no_grad():
        for step in (100, 100, torch.tensor(100)):
            pipe.unet(torch.randn(1, 4, 8, 8), step, text(pipe)[None])
    assert [(t.branch, t.calls) for t in recorder.traces] == [("cond", (0,))] * 3


def test_guidance_that_is_switched_off_half_way(pipe):
    def off(pipe, step, timestep, tensors):
        if step == 1:
            pipe._guidance_scale = 1.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[1]
        return tensors

    inputs = ["latents", "prompt_embeds"]
    settings = {"callback_on_step_end_tensor_inputs": inputs, "steps": 4}
    kept = {}
    for branch in ("uncond", "cond"):
        with record(pipe, branch=branch) as recorder:
            draw(pipe, callback_on_step_end=off, **settings)
        (trace,) = recorder.traces
        kept[trace.branch] = trace.calls
    assert kept == {"uncond": (0, 1), "cond": (0, 1, 2, 3)}


def test_a_block_without_a_call_gives_no_trace(pipe):
    with record(pipe) as recorder:
        pass
    assert recorder.traces == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branch": "both"}, "'both'"),
        ({"layers": ["mid_block.x"]}, "'mid_block.x'.*middle=True"),
        ({"layers": []}, "layers is empty"),
        ({"calls": []}, "calls is empty"),
        ({"layers": [5]}, r"no layer 5.*\[4, 8\]"),
        ({"calls": [2]}, "call 2 .*makes 2"),
        ({"calls": [-3]}, "call -3 .*makes 2"),
    ],
)
def test_what_cannot_be_recorded_is_said_before_the_last_step(pipe, options, message):
    before, steps = hooks(pipe), []

    def count(pipe, step, timestep, tensors):
        steps.append(step)
        return tensors

    with pytest.raises(ValueError, match=message), record(pipe, **options):
        draw(pipe, callback_on_step_end=count)
    assert steps == []
    assert hooks(pipe) == before
