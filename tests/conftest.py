"""Small random pipelines of the real classes, built in code from a fixed seed."""

from __future__ import annotations

import encodings.utf_8_sig  # noqa: F401 (a failing import would be remembered)
import functools
import itertools
import os
import tempfile
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that asks the hub is a mistake
# no test puts tokens into the library of who runs it
os.environ.setdefault("NAPARI_OVAM_TOKENS", tempfile.mkdtemp(prefix="napari-ovam-"))

import pytest
from word_tokenizer import WORDS as WORDS
from word_tokenizer import make_tokenizer

TEXT_DIM = 32


@pytest.hookimpl(optionalhook=True)  # the readers' environments have no xdist
def pytest_xdist_auto_num_workers() -> int:
    """Return one more than there are cores: tests that wait leave theirs to others."""
    if hasattr(os, "sched_getaffinity"):  # those that this process may use
        return len(os.sched_getaffinity(0)) + 1
    return (os.cpu_count() or 1) + 1


def build_pipeline(
    *,
    seed: int = 0,
    in_channels: int = 4,
    text_dim: int = TEXT_DIM,
    only_cross_attention: bool | tuple[bool, ...] = False,
    small: bool = False,
) -> Any:
    """Return a random pipeline: 8x8 latents, 32x32 pixels, attention at 8, 4 and 2.

    A small one has attention at 8 only, in one block down and one up. Numbers of
    heads differ from block to block. The weights of the queries are enlarged, as random
    ones would give maps that are all but flat.
    """
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = make_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=text_dim,
                intermediate_size=2 * text_dim,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=32,
                projection_dim=text_dim,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        cross = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
        blocks = slice(0, 1 if small else 3)
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=in_channels,
            out_channels=4,
            block_out_channels=(16, 32, 32)[blocks],
            layers_per_block=1,
            down_block_types=(cross[0], cross[0], "DownBlock2D")[blocks],
            up_block_types=(cross[1], cross[1], "UpBlock2D")[blocks][::-1],
            only_cross_attention=only_cross_attention,
            mid_block_only_cross_attention=False,
            cross_attention_dim=text_dim,
            # diffusers takes these as numbers of heads
            attention_head_dim=(2, 4, 4)[blocks],
            norm_num_groups=4,
        )
        vae = AutoencoderKL(
            latent_channels=4,
            block_out_channels=(8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=32,
        )
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if name.endswith("attn2.to_q.weight"):
                weight.mul_(4)
    pipe = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def make_pipe():
    """Return the factory of small pipelines, for tests that change theirs."""
    return build_pipeline


@pytest.fixture(scope="session")
def pipe():
    """Return the small pipeline that all tests share; they leave it as it was."""
    return build_pipeline()


@functools.cache
def _load_tiny(load: Any) -> Any:
    return load("tiny", device="cpu")


@pytest.fixture(scope="session")
def tiny():
    """Return the embedded model that all tests share; they leave it as it was."""
    from napari_ovam.diffusion.pipelines import load_pipeline

    return _load_tiny(load_pipeline)


@pytest.fixture
def loaded_once(monkeypatch):
    """Who loads the embedded model gets the one that all tests share."""
    import napari_ovam
    from napari_ovam.diffusion import pipelines

    load = pipelines.load_pipeline

    def shared(model: Any = "tiny", **how: Any) -> Any:
        return _load_tiny(load) if model == "tiny" else load(model, **how)

    # the package keeps what was asked of it once: its own is put back, too
    for module in (napari_ovam, pipelines):
        monkeypatch.setattr(module, "load_pipeline", shared)


_NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _own_trace_cache(monkeypatch, tmp_path_factory):
    """No test fills the cache of the person who runs it, or finds another's traces."""
    folder = tmp_path_factory.getbasetemp() / "caches" / str(next(_NUMBERS))
    monkeypatch.setenv("NAPARI_OVAM_CACHE", str(folder))  # made when it is used
