"""What `generate` and `trace_image` keep unless told otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler

from napari_ovam import (
    GenerationSettings,
    TraceSettings,
    generate,
    record,
    trace_image,
)
from napari_ovam.attention.trace import fine_layers
from napari_ovam.attention.trace_settings import quarter_calls

PROMPT = "a cat on the grass"
EVERYTHING = TraceSettings(layers=None, calls=None, dtype=None)


def made(pipe, trace=None, **settings):
    # 32x32 latents: attention on grids of 32, 16 and 8.
    settings = {"height": 128, "width": 128, "steps": 5} | settings
    kept = {} if trace is None else {"trace": trace}
    return generate(pipe, GenerationSettings(PROMPT, **settings), **kept)


@pytest.mark.parametrize(
    ("total", "calls"),
    [
        (1, (0,)),
        (2, (0, 1)),
        (3, (0, 1, 2)),
        (4, (1, 2, 3)),
        (25, (6, 12, 18)),
        (31, (7, 15, 23)),
    ],
)
def test_quarters(total, calls):
    assert quarter_calls(total) == calls


@pytest.mark.parametrize(("steps", "calls"), [(1, (0,)), (5, (1, 2, 3))])
def test_the_default_is_a_part_of_everything(pipe, steps, calls):
    everything, default = made(pipe, EVERYTHING, steps=steps), made(pipe, steps=steps)
    np.testing.assert_array_equal(default.image, everything.image)
    assert everything.trace.calls == tuple(range(steps))
    assert default.trace.calls == calls
    expected = everything.trace.fine().select(calls=calls).layers
    assert len(expected) < len(everything.trace.layers)
    assert {max(layer.grid) for layer in expected} == {16, 32}
    for found, wanted in zip(default.trace.layers, expected, strict=True):
        assert found.name == wanted.name
        assert found.queries.dtype == torch.float16
        torch.testing.assert_close(found.queries, wanted.queries.half())


def test_a_scheduler_that_calls_once_more(make_pipe):
    pipe = make_pipe()
    pipe.scheduler = PNDMScheduler.from_config(
        pipe.scheduler.config, skip_prk_steps=True
    )
    assert len(made(pipe, EVERYTHING, steps=7).trace.calls) == 8
    assert made(pipe, steps=7).trace.calls == (2, 4, 6)


def test_of_small_images_as_much_is_kept(pipe):
    trace = made(pipe, height=32, width=32).trace  # grids of 8, 4 and 2
    large = made(pipe).trace
    assert [la.name for la in trace.layers] == [la.name for la in large.layers]


def test_what_is_coarser_than_a_quarter_of_the_finest_is_left_out():
    grids = {"down_blocks.0": (64, 48), "up_blocks.1": (8, 6), "up_blocks.2": (16, 12)}
    assert fine_layers(grids) == {"up_blocks.2"}
    assert fine_layers({"mid": (4, 4)}) == {"mid"}


def test_a_loaded_image_keeps_all_its_draws(pipe):
    # of the pipeline's own size, so that it is not shown in tiles as well
    image = np.full((32, 32, 3), 90, np.uint8)
    image[10:20, 10:20] = 200
    trace = trace_image(pipe, image).trace
    assert trace.calls == (0, 1, 2)
    assert {la.queries.dtype for la in trace.layers} == {torch.float16}


def test_self_attention_of_the_kept_layers(pipe):
    trace = made(pipe, TraceSettings(self_attention=True)).trace
    names = [la.name.replace("attn2", "attn1") for la in trace.layers]
    assert [la.name for la in trace.self_layers] == names


def test_record_keeps_everything_unless_told(pipe):
    def call():
        return pipe(PROMPT, num_inference_steps=4, output_type="latent")

    with record(pipe) as everything:
        call()
    with record(pipe, layers="fine", calls="quarters") as part:
        call()
    assert everything.traces[0].calls == (0, 1, 2, 3)
    assert part.traces[0].calls == (1, 2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "coarse"}, "layers is 'coarse': give 'fine'"),
        ({"calls": "fine"}, "calls is 'fine': give 'quarters'"),
    ],
)
def test_other_words_are_refused(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        TraceSettings(**options)
    with pytest.raises(ValueError, match=message), record(pipe, **options):
        pass
