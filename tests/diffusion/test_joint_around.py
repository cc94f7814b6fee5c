"""What stands around a model with joint attention: exact, or refused by name."""

from __future__ import annotations

import joint_models
import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import DiffusionPipeline, FirstBlockCacheConfig
from joint_kinds import KINDS
from joint_reference import Reference
from probing import draw
from test_joint import PROMPT, close, hooks, phrases

from napari_ovam import (
    TraceSettings,
    attention_maps,
    encode_phrase,
    phrase_map,
    record,
)
from napari_ovam.attention.trace import ModelMismatchError
from napari_ovam.attention.trace_cache import trace_bytes

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning"),
]
FLUX = KINDS["flux dev"]


def recorded(pipe, kind=FLUX, **how):
    with record(pipe, branch="cond", **how) as recorder:
        draw(pipe, PROMPT, **kind.settings)
    return recorder.traces[0]


def test_the_kind_of_map_is_a_setting():
    pipe = FLUX.make()
    token = encode_phrase(pipe, "cat")
    published = recorded(pipe)
    assert published.stream.meeting == "outputs"
    assert published.layers[0].shape[1] == 1
    keys = recorded(pipe, meeting="keys")
    np.testing.assert_array_equal(
        phrase_map(published.with_meeting("keys"), token), phrase_map(keys, token)
    )
    assert not np.allclose(phrase_map(published, token), phrase_map(keys, token), 1e-2)
    assert recorded(KINDS["qwen"].make(), KINDS["qwen"]).stream.meeting == "keys"
    with pytest.raises(ValueError, match="meeting is 'both'"):
        TraceSettings(meeting="both")


def test_other_models_have_keys_only(pipe):
    with (
        pytest.raises(ValueError, match="no joint attention"),
        record(pipe, meeting="outputs"),
    ):
        pass
    with record(pipe, meeting="keys") as recorder:
        draw(pipe)
    with pytest.raises(ValueError, match="only 'keys'"):
        recorder.traces[0].with_meeting("outputs")


def check(pipe, kind=FLUX, tolerance=1e-5):
    """Compare the maps of a pipeline as it stands with the slow reference."""
    rows = phrases(pipe)
    trace = recorded(pipe, kind)
    with Reference(kind, pipe, rows) as reference, torch.no_grad():
        draw(pipe, PROMPT, **kind.settings)
    maps = attention_maps(trace.with_meeting("keys"), rows[0])
    close(maps.flatten(1), reference.maps("keys", 0), tolerance)
    assert hooks(pipe.transformer) == 0
    return trace


@pytest.mark.parametrize("name", ["flux dev", "sd3.0"])
def test_fused_projections(name):
    pipe = KINDS[name].make()
    pipe.transformer.fuse_qkv_projections()
    check(pipe, KINDS[name])


def test_weights_that_are_stored_in_less_than_they_are_used():
    pipe = FLUX.make()
    pipe.transformer.enable_layerwise_casting(torch.bfloat16, torch.float32)
    check(pipe)


def test_a_compiled_model_runs_as_it_was():
    pipe = FLUX.make()
    token = encode_phrase(pipe, "cat")
    expected = phrase_map(recorded(pipe), token)
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    np.testing.assert_allclose(phrase_map(recorded(pipe), token), expected, atol=1e-6)
    pipe = FLUX.make()
    for block in pipe.transformer.transformer_blocks:
        block.compile(backend="eager")
    np.testing.assert_allclose(phrase_map(recorded(pipe), token), expected, atol=1e-6)


def lora(pipe, seed=0):
    from peft import LoraConfig

    config = LoraConfig(r=2, target_modules=["to_q", "to_v", "add_k_proj"])
    pipe.transformer.add_adapter(config, f"own{seed}")
    with torch.no_grad():
        for name, weight in pipe.transformer.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5, generator=torch.Generator().manual_seed(seed))


def test_a_lora_that_is_there_is_in_the_maps():
    pipe = FLUX.make()
    plain = phrase_map(recorded(pipe), encode_phrase(pipe, "cat"))
    lora(pipe)
    trace = recorded(pipe)
    token = encode_phrase(pipe, "cat")
    expected = phrase_map(trace, token)
    assert not np.allclose(expected, plain, atol=1e-3)
    rows = phrases(pipe)
    with Reference(FLUX, pipe, rows) as reference, torch.no_grad():
        draw(pipe, PROMPT, **FLUX.settings)
    maps = attention_maps(trace.with_meeting("keys"), rows[0])
    close(maps.flatten(1), reference.maps("keys", 0))


def test_a_lora_that_came_or_was_switched_off_since_is_refused():
    pipe = joint_models.flux(seed=7)
    trace = recorded(pipe)
    token = encode_phrase(pipe, "cat")
    expected = phrase_map(trace, token)
    lora(pipe)
    with pytest.raises(ModelMismatchError, match="a LoRA added or scaled"):
        phrase_map(trace, token)
    after = recorded(pipe)
    with_lora = phrase_map(after, token)
    pipe.transformer.disable_adapters()
    np.testing.assert_allclose(phrase_map(trace, token), expected, atol=1e-6)
    with pytest.raises(ModelMismatchError, match="a LoRA added or scaled"):
        phrase_map(after, token)
    pipe.transformer.enable_adapters()
    np.testing.assert_array_equal(phrase_map(after, token), with_lora)


def test_a_lora_with_a_scale_of_its_own_is_refused():
    pipe = FLUX.make()
    with pytest.raises(ValueError, match=r"joint_attention_kwargs.*LoRA"), record(pipe):
        draw(pipe, joint_attention_kwargs={"scale": 0.5}, **FLUX.settings)


def test_a_block_cache_is_refused():
    pipe = FLUX.make()
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
    with pytest.raises(ValueError, match="disable_cache"), record(pipe):
        pass
    pipe.transformer.disable_cache()
    check(pipe)


def test_attention_that_cannot_be_seen_is_refused():
    pipe = FLUX.make()
    processor = pipe.transformer.transformer_blocks[0].attn.processor
    processor._attention_backend = "flash"
    with pytest.raises(ValueError, match=r"'flash'.*set_attention_backend\('native'"):
        recorded(pipe)
    processor._attention_backend = "_native_math"
    check(pipe)

    class Own:
        """A processor that computes attention in its own way."""

        def __call__(
            self, attn, hidden_states, encoder_hidden_states=None, *_, **_more
        ):
            return hidden_states, encoder_hidden_states

    pipe.transformer.transformer_blocks[0].attn.processor = Own()
    trace = recorded(pipe)
    with pytest.raises(ValueError, match=r"blocks\.0\.attn was not seen"):
        phrase_map(trace, encode_phrase(pipe, "cat"))


def test_skip_layer_guidance_is_refused():
    kind = KINDS["sd3.5"]
    pipe = kind.make()
    how = {"skip_guidance_layers": [1], "skip_layer_guidance_start": 0.0}
    how |= {"skip_layer_guidance_stop": 1.0, "num_inference_steps": 4}
    with pytest.raises(ValueError, match="given skip_layers"), record(pipe):
        draw(pipe, **how, **kind.settings)


def offload(pipe, how):
    """Offload as from a GPU; here from the CPU to the CPU."""
    if how == "model":
        DiffusionPipeline.enable_model_cpu_offload(pipe, device="cpu:0")
    elif how == "group":
        cpu = torch.device("cpu")
        pipe.transformer.enable_group_offload(cpu, cpu, offload_type="leaf_level")
    else:
        cpu_offload(pipe.transformer, torch.device("cpu"))


@pytest.mark.parametrize("how", ["model", "group"])
@pytest.mark.parametrize("name", ["flux dev", "z-image"])
def test_offloading_changes_nothing(name, how):
    kind = KINDS[name]
    pipe = kind.make()
    token = encode_phrase(pipe, "cat")
    before = recorded(pipe, kind)
    expected = phrase_map(before, token)
    offload(pipe, how)
    for trace in (before, recorded(pipe, kind)):
        np.testing.assert_array_equal(phrase_map(trace, token), expected)


def test_weights_that_are_brought_for_each_layer_are_refused():
    pipe = FLUX.make()
    offload(pipe, "sequential")
    with pytest.raises(ValueError, match="enable_model_cpu_offload"):
        recorded(pipe)


@pytest.mark.parametrize("name", KINDS)
def test_half_precision(name):
    kind = KINDS[name]
    pipe = kind.make()
    token = encode_phrase(pipe, "cat")
    # The first call: later ones see another image, as roundings add up.
    how = {"calls": [0], "meeting": "keys"}
    whole = phrase_map(recorded(pipe, kind, **how), token, normalize="probability")
    pipe.to(torch.bfloat16)
    halved = phrase_map(recorded(pipe, kind, **how), token, normalize="probability")
    assert np.abs(halved - whole).max() < 0.1 * whole.max()


def test_several_images_and_several_calls():
    pipe = FLUX.make()
    with record(pipe, branch="cond") as recorder:
        draw(pipe, ["a cat", "a dog"], **FLUX.settings)
        draw(pipe, "a dog", **FLUX.settings)
    assert [len(trace.calls) for trace in recorder.traces] == [2, 2, 2]
    token = encode_phrase(pipe, "dog")
    maps = [phrase_map(trace, token) for trace in recorder.traces]
    assert not np.allclose(maps[0], maps[1], atol=1e-3)


def test_two_runs_at_once_do_not_see_one_another():
    import threading

    pipe = FLUX.make()
    token = encode_phrase(pipe, "cat")
    trace = recorded(pipe)
    expected = phrase_map(trace, token)
    errors = []

    def ask():
        try:
            for _ in range(4):
                trace.stream.shown._state = None  # shown again each time
                np.testing.assert_array_equal(phrase_map(trace, token), expected)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    others = [recorded(pipe) for _ in range(3)]
    thread.join()
    assert not errors
    for other in others:
        assert len(other.calls) == 2
        np.testing.assert_allclose(phrase_map(other, token), expected, atol=1e-5)


def test_a_trace_is_small():
    """What is kept of Flux at 1024 x 1024, counted: below 10 MB in 16 bits."""
    pipe = FLUX.make()
    trace = recorded(pipe, calls=[0], dtype=torch.float16)
    shapes = {name: tensor.shape for name, tensor in trace.stream.tensors.items()}
    assert shapes["encoder_hidden_states"][1] == 512
    assert set(shapes) == {
        *("hidden_states", "timestep", "guidance", "pooled_projections"),
        *("encoder_hidden_states", "txt_ids", "img_ids", "probe"),
    }
    # Three calls: latents, text, places of cells in 32 bits, and the probe.
    cells, text = 4096, 512
    real = 2 * (3 * cells * 64 + text * 4096) + 4 * 3 * (cells + text + 32 * 1024)
    assert real < 10e6
    assert trace_bytes(trace) == sum(t.nbytes for t in trace.stream.tensors.values())
