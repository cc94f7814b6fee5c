"""Small random pipelines with joint attention, of the real classes."""

from __future__ import annotations

from typing import Any

import torch
from conftest import make_tokenizer
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from small_models import clip, t5_tokenizer
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel


def _vae(channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        latent_channels=channels,
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=1.5,
        shift_factor=0.1,
    ).eval()


def _livelier(model: Any) -> Any:
    """Enlarge weights, so that nothing is all but zero or flat."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.7)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def _t5(tokenizer: Any, size: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=size,
        d_kv=6,
        d_ff=48,
        num_layers=2,
        num_heads=4,
    )
    return T5EncoderModel(config).eval()


def _ready(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sd3(seed: int = 0, *, dual: tuple[int, ...] = (0, 1)) -> StableDiffusion3Pipeline:
    """Return SD 3.5-medium's kind (dual attention, qk_norm), or 3.0's without `dual`.

    8x8 latents in 2x2 patches: 64x64 pixels; text rows of 32 behind the projection.
    """
    first, second, third = make_tokenizer(), make_tokenizer(), t5_tokenizer()
    second.pad_token = "!"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=5,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=48,
            caption_projection_dim=32,
            pooled_projection_dim=24 + 40,
            pos_embed_max_size=16,
            dual_attention_layers=dual,
            qk_norm="rms_norm" if dual else None,
        )
        pipe = StableDiffusion3Pipeline(
            transformer=_livelier(transformer),
            vae=_vae(16),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            text_encoder=clip(CLIPTextModelWithProjection, first, 12, 24),
            text_encoder_2=clip(CLIPTextModelWithProjection, second, 20, 40),
            text_encoder_3=_t5(third, 48),
            tokenizer=first,
            tokenizer_2=second,
            tokenizer_3=third,
        )
    return _ready(pipe)
