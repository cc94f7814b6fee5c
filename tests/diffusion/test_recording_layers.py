"""Layers that keep, move or compute things otherwise: exact, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.hooks import apply_layerwise_casting
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from reference import Capture, assert_close
from test_recording import check_parity, draw, text
from torch.nn import functional

from napari_ovam import attention_maps, encode_phrase, record


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch._dynamo.reset()


@pytest.mark.parametrize("how", ["wrapped", "in place", "blocks", "a part", "forward"])
def test_a_compiled_model_that_has_run(make_pipe, how):
    pipe = make_pipe(small=True)
    with record(pipe) as recorder:
        draw(pipe)
    unet = pipe.unet
    if how == "wrapped":
        pipe.unet = torch.compile(unet, backend="eager")
        pipe.text_encoder = torch.compile(pipe.text_encoder, backend="eager")
    elif how == "in place":
        unet.compile(backend="eager")
    elif how == "blocks":
        unet.compile_repeated_blocks(backend="eager")
    elif how == "a part":
        attention = unet.up_blocks[0].attentions[0]
        block = attention.transformer_blocks[0]
        attention.transformer_blocks[0] = torch.compile(block, backend="eager")
        unet.mid_block = torch.compile(unet.mid_block, backend="eager")
    else:
        unet.forward = torch.compile(unet.forward, backend="eager")
    draw(pipe)
    with record(pipe) as after:
        draw(pipe)
    assert [la.name for la in after.traces[0].layers] == [
        la.name for la in recorder.traces[0].layers
    ]
    rows = encode_phrase(pipe, "cat").embedding
    assert_close(*(attention_maps(r.traces[0], rows) for r in (after, recorder)))


def test_a_deep_shrink_and_cached_blocks_are_said(make_pipe):
    pipe = make_pipe()
    block, calls = pipe.unet.down_blocks[1], []

    def shrink(module, args, kwargs):
        calls.append(1)
        if len(calls) > 1:
            return None
        small = functional.interpolate(kwargs["hidden_states"], scale_factor=0.5)
        return args, {**kwargs, "hidden_states": small}

    def grow(module, args, out):
        if len(calls) > 1:
            return None
        return tuple(
            functional.interpolate(x, scale_factor=2.0)
            if isinstance(x, torch.Tensor)
            else tuple(functional.interpolate(y, scale_factor=2.0) for y in x)
            for x in out
        )

    handles = [
        block.register_forward_pre_hook(shrink, with_kwargs=True),
        block.register_forward_hook(grow),
    ]
    with pytest.raises(ValueError, match="deep shrink"), record(pipe):
        draw(pipe)
    calls.clear()
    with record(pipe, calls=[1]) as recorder:
        draw(pipe)
    assert recorder.traces[0].calls == (1,)
    for handle in handles:
        handle.remove()

    kept, old = {}, pipe.unet.mid_block.forward

    def cached(*args, **kwargs):
        if "out" not in kept:
            kept["out"] = old(*args, **kwargs)
        return kept["out"]

    pipe.unet.mid_block.forward = cached
    refused = pytest.raises(ValueError, match=r"mid_block.* call 1.*cached")
    with refused, record(pipe, middle=True):
        draw(pipe)


def test_fused_projections(make_pipe):
    pipe = make_pipe()
    pipe.fuse_qkv_projections()
    with torch.no_grad():  # the fused weights are those that count now
        for block in pipe.unet.attn_processors:
            if "attn2" in block:
                pipe.unet.get_submodule(
                    block.removesuffix(".processor")
                ).to_k.weight.zero_()
    with record(pipe) as recorder:
        draw(pipe)
    for layer in recorder.traces[0].layers:
        fused = pipe.unet.get_submodule(layer.name).to_kv.weight
        assert torch.equal(layer.key_weight, fused[: len(fused) // 2])
    refused = pytest.raises(ValueError, match="unfuse_qkv_projections")
    with refused, record(pipe, self_attention=True):
        draw(pipe)


class _Watching(AttnProcessor2_0):
    """Attention, and nothing else: of another name."""


class _Louder(AttnProcessor):
    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kw):
        return super().__call__(
            attn, 3 * hidden_states, encoder_hidden_states, *args, **kw
        )


class _OwnKeys(torch.nn.Module):
    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kw):
        query = attn.to_q(hidden_states)
        return attn.to_out[0](query)


class _InPieces(AttnProcessor2_0):
    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kw):
        if encoder_hidden_states is None:
            return super().__call__(attn, hidden_states)
        pairs = zip(hidden_states, encoder_hidden_states, strict=True)
        return torch.cat(
            [super(_InPieces, self).__call__(attn, h[None], e[None]) for h, e in pairs]
        )


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (_Watching, None),
        (_Louder, "something else than attention.*_Louder"),
        (_OwnKeys, "something else than attention|otherwise than by its to_k"),
        (_InPieces, "works on"),
    ],
)
def test_processors_of_others(make_pipe, processor, message):
    pipe = make_pipe()
    pipe.unet.set_attn_processor(processor())
    if message is None:
        with Capture(pipe) as captured, record(pipe) as recorder:
            draw(pipe)
        check_parity(pipe, recorder.traces[0], captured, 0)
        return
    with pytest.raises(ValueError, match=message), record(pipe):
        draw(pipe)


def test_weights_in_fp8(make_pipe):
    pipe = make_pipe()
    token = encode_phrase(pipe, "cat")
    for part in (pipe.unet, pipe.text_encoder):
        apply_layerwise_casting(
            part,
            storage_dtype=torch.float8_e4m3fn,
            compute_dtype=torch.float32,
            skip_modules_pattern=["norm", "embed", "conv_in", "conv_out"],
        )
    low = encode_phrase(pipe, "cat")
    assert low.model == token.model  # tokens go on to fit
    with Capture(pipe) as captured, record(pipe) as recorder:
        draw(pipe)
    check_parity(pipe, recorder.traces[0], captured, 0)


def test_weights_that_are_brought_for_each_layer(make_pipe):
    """As sequential offloading does, from the CPU to the CPU."""
    from accelerate import cpu_offload

    pipe = make_pipe()
    with record(pipe) as recorder:
        draw(pipe)
    cpu_offload(pipe.unet, torch.device("cpu"))
    assert pipe.unet.up_blocks[1].attentions[0].proj_in.weight.is_meta
    with record(pipe) as offloaded:
        draw(pipe)
    maps = [attention_maps(r.traces[0], text(pipe)) for r in (recorder, offloaded)]
    np.testing.assert_allclose(*maps, rtol=1e-4)
