"""Guidance of every kind: recorded exactly, or refused by name."""

from __future__ import annotations

import pytest
import torch
from reference import Capture
from small_models import xl
from test_recording import check_parity, draw

from napari_ovam import record
from napari_ovam.diffusion.calls import GuidanceError

PROMPT = "a cat and a hat"


def loop(pipe, show, *, steps=3, images=1, negative=None, guidance=7.5):
    """Denoise by a loop of one's own; `show` calls the model for (u, c) of a step."""
    pipe.scheduler.set_timesteps(steps)
    texts = pipe.encode_prompt(PROMPT, "cpu", images, True, negative)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 4, 8, 8, generator=generator)
    for t in pipe.scheduler.timesteps:
        uncond, cond = show(x, t, texts[1], texts[0])
        guided = uncond + guidance * (cond - uncond)
        x = pipe.scheduler.step(guided, t, x).prev_sample


def one_batch(pipe, order):
    """Show both texts in one batch, in an order of (latents, texts)."""

    def show(x, t, u, c):
        rows = [{"u": u, "c": c}[kind][i] for i, kind in order]
        x = torch.stack([x[i] for i, _ in order])
        out = pipe.unet(x, t, encoder_hidden_states=torch.stack(rows)).sample
        return tuple(
            torch.stack(
                [o for o, (_, kind) in zip(out, order, strict=True) if kind == k]
            )
            for k in "uc"
        )

    return show


def two_calls(pipe, order="uc", step=lambda t: t):
    def show(x, t, u, c):
        texts = {"u": u, "c": c}
        out = {k: pipe.unet(x, step(t), texts[k]).sample for k in order}
        return out["u"], out["c"]

    return show


ORDERS = {
    "as diffusers": [(0, "u"), (1, "u"), (0, "c"), (1, "c")],
    "swapped": [(0, "c"), (1, "c"), (0, "u"), (1, "u")],
    "interleaved": [(0, "u"), (0, "c"), (1, "u"), (1, "c")],
}


@pytest.mark.parametrize("branch", ["uncond", "cond"])
@pytest.mark.parametrize("order", ORDERS)
def test_the_halves_of_a_batch_in_any_order(pipe, order, branch):
    rows = [i for i, (_, kind) in enumerate(ORDERS[order]) if kind == branch[0]]
    recording = record(pipe, branch=branch)
    with torch.no_grad(), Capture(pipe) as captured, recording as recorder:
        loop(pipe, one_batch(pipe, ORDERS[order]), images=2)
    assert [(t.branch, t.calls) for t in recorder.traces] == [(branch, (0, 1, 2))] * 2
    for trace, row in zip(recorder.traces, rows, strict=True):
        check_parity(pipe, trace, captured, row)


@pytest.mark.parametrize("branch", ["uncond", "cond"])
@pytest.mark.parametrize("order", ["uc", "cu"])
@pytest.mark.parametrize(
    "step",
    [lambda t: t, int, lambda t: t.repeat(1), lambda t: torch.tensor([int(t)])],
    ids=["tensor", "int", "vector", "copy"],
)
def test_two_calls_a_step(pipe, branch, order, step):
    recording = record(pipe, branch=branch, calls="quarters")
    with torch.no_grad(), Capture(pipe) as captured, recording as recorder:
        loop(pipe, two_calls(pipe, order, step), negative="a dog", steps=4)
    (trace,) = recorder.traces
    assert (trace.branch, trace.calls) == (branch, (1, 2, 3))
    calls = [2 * call + order.index(branch[0]) for call in trace.calls]
    check_parity(pipe, trace, captured, 0, calls=calls)


def test_texts_of_which_nothing_is_known_are_refused(pipe):
    texts = pipe.encode_prompt(PROMPT, "cpu", 1, True, "a dog")
    x = torch.randn(1, 4, 8, 8)
    message = "Encode the texts inside the block"
    with pytest.raises(GuidanceError, match=message), record(pipe):
        pipe.unet(x.repeat(2, 1, 1, 1), 500, torch.cat(texts))
    with pytest.raises(GuidanceError, match=message), record(pipe):  # noqa: PT012
        pipe.unet(x, 500, texts[0])
        pipe.unet(x, 500, texts[1])


def test_texts_that_are_encoded_one_by_one(pipe):
    x = torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1)

    def show(recording, *texts):
        with torch.no_grad(), recording as recorder:
            rows = [pipe.encode_prompt(text, "cpu", 1, False)[0] for text in texts]
            pipe.unet(x, 500, torch.cat(rows))
        return [trace.branch for trace in recorder.traces]

    assert show(record(pipe), PROMPT, "") == ["uncond"]
    with pytest.raises(GuidanceError, match="not known"):
        show(record(pipe), "a dog", PROMPT)


def test_a_prompt_that_was_the_negative_one_before(pipe):
    with record(pipe) as recorder, Capture(pipe) as captured:
        draw(pipe, "a cat", negative_prompt="a dog")
        draw(pipe, "a dog")
        draw(pipe, "", negative_prompt="a dog")
    assert [trace.branch for trace in recorder.traces] == ["uncond"] * 3
    for run, trace in enumerate(recorder.traces):
        check_parity(pipe, trace, captured, 0, calls=range(2 * run, 2 * run + 2))


@pytest.mark.parametrize("parts", ["ucc", "uuc", "cc"])
def test_perturbed_guidance_is_refused(pipe, parts):
    with torch.no_grad(), pytest.raises(GuidanceError, match="perturbed"), record(pipe):
        loop(pipe, one_batch(pipe, [(0, part) for part in parts]))


def test_a_third_call_a_step_is_refused(pipe):
    texts = [pipe.encode_prompt(t, "cpu", 1, False)[0] for t in ("", PROMPT, "a dog")]

    def show():
        for text in texts:
            pipe.unet(torch.zeros(1, 4, 8, 8), 7, text)

    refused = pytest.raises(GuidanceError, match="more than two parts")
    with torch.no_grad(), refused, record(pipe):
        show()


def test_guidance_in_the_middle_of_a_run_only(pipe):
    def show(x, t, u, c):
        if 200 < t < 600:
            return one_batch(pipe, [(0, "u"), (0, "c")])(x, t, u, c)
        out = pipe.unet(x, t, c).sample
        return out, out

    for branch, calls in (("uncond", (1, 2)), ("cond", (0, 1, 2, 3))):
        with torch.no_grad(), record(pipe, branch=branch) as recorder:
            loop(pipe, show, steps=4)
        assert [(t.branch, t.calls) for t in recorder.traces] == [(branch, calls)]


def test_guidance_whose_prompt_is_the_negative_text(pipe):
    for branch in ("uncond", "cond"):
        with record(pipe, branch=branch) as recorder:
            draw(pipe, "", guidance_scale=5, guidance_rescale=0.7)
        assert [t.branch for t in recorder.traces] == [branch]


def test_one_seed_and_one_step_for_two_prompts_are_two_images(pipe):
    with record(pipe) as recorder:
        for prompt in ("a cat", "a dog"):
            draw(pipe, prompt, steps=1, guidance_scale=1)
    assert [t.calls for t in recorder.traces] == [(0,), (0,)]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # diffusers
def test_quarters_of_a_run_that_ends_early():
    pipe = xl()
    kept = {}
    for end in (None, 0.8, 0.5):
        with record(pipe, branch="cond", calls="quarters") as recorder:
            draw(pipe, steps=20, denoising_end=end, output_type="latent")
        kept[end] = recorder.traces[0].calls
    assert kept == {None: (5, 10, 15), 0.8: (4, 8, 12), 0.5: (2, 5, 7)}


def test_quarters_of_an_interrupted_run(pipe):
    def stop_after(step):
        def stop(pipe, i, t, tensors):
            pipe._interrupt = i == step
            return tensors

        return stop

    with record(pipe, branch="cond", calls="quarters") as recorder:
        draw(pipe, steps=8, callback_on_step_end=stop_after(4))
    assert recorder.traces[0].calls == (2, 4)
    refused = pytest.raises(ValueError, match="stopped after 2 of 8 calls")
    with refused, record(pipe, branch="cond", calls="quarters"):
        draw(pipe, steps=8, callback_on_step_end=stop_after(1))


def test_nothing_stays_on_the_pipeline(pipe):
    before = set(vars(pipe))
    with record(pipe):
        draw(pipe, steps=1)
    assert set(vars(pipe)) == before | {"_num_timesteps"}
