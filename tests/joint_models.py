"""Small random pipelines with joint attention, of the real classes."""

from __future__ import annotations

from typing import Any

import torch
from conftest import WORDS, make_tokenizer
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from small_models import clip, t5_tokenizer
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)


def _vae(channels: int = 4, kind: Any = AutoencoderKL) -> Any:
    more = {"scaling_factor": 1.5, "shift_factor": 0.1} if kind is AutoencoderKL else {}
    return kind(
        latent_channels=channels,
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        **more,
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


def flux(seed: int = 0, *, guidance: bool = True) -> FluxPipeline:
    """Return Flux.1 dev, or schnell without `guidance`: 64x64 pixels, 4x4 tokens."""
    first, second = make_tokenizer(), t5_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=3,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=12,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 6, 6),
        )
        pipe = FluxPipeline(
            transformer=_livelier(transformer),
            vae=_vae(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            text_encoder=clip(CLIPTextModel, first, 12, 12),
            text_encoder_2=_t5(second, 24),
            tokenizer=first,
            tokenizer_2=second,
        )
    pipe.default_sample_size = 8
    return _ready(pipe)


_QWEN: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Return a tokenizer of Qwen's kind that knows WORDS whole and spells all else."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {letter: i for i, letter in enumerate(alphabet)}
    merges = []
    for word in WORDS:
        for start in ("", "Ġ"):
            left = start or word[0]
            for letter in word[0 if start else 1 :]:
                if left + letter not in pieces:
                    merges.append((left, letter))
                    pieces[left + letter] = len(pieces)
                left += letter
    tokenizer = Qwen2Tokenizer(
        vocab=pieces | {"<|endoftext|>": len(pieces)}, merges=merges
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
    )
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _qwen3(kind: Any, tokenizer: Any, layers: int) -> Any:
    config = Qwen3Config(
        vocab_size=len(tokenizer), num_hidden_layers=layers, head_dim=8, **_QWEN
    )
    return kind(config).eval()


def flux2(seed: int = 0, *, distilled: bool = True) -> Flux2KleinPipeline:
    """Return Flux.2 Klein: 64x64 pixels, 4x4 tokens."""
    tokenizer = qwen_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = Flux2Transformer2DModel(
            in_channels=16,
            num_layers=3,
            num_single_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * 16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        vae = _vae(kind=AutoencoderKLFlux2)
        with torch.no_grad():
            vae.bn.running_mean.normal_()
            vae.bn.running_var.uniform_(0.5, 2)
        pipe = Flux2KleinPipeline(
            transformer=_livelier(transformer),
            vae=vae,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            text_encoder=_qwen3(Qwen3ForCausalLM, tokenizer, 28),
            tokenizer=tokenizer,
            is_distilled=distilled,
        )
    pipe.default_sample_size = 8
    return _ready(pipe)


def qwen_image(seed: int = 0) -> QwenImagePipeline:
    """Return Qwen-Image: 64x64 pixels, 4x4 tokens."""
    tokenizer = qwen_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(
                text_config={
                    **_QWEN,
                    "vocab_size": len(tokenizer),
                    "num_hidden_layers": 2,
                    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
                },
                vision_config={
                    "depth": 1,
                    "hidden_size": 16,
                    "intermediate_size": 16,
                    "num_heads": 2,
                    "out_hidden_size": 16,
                },
            )
        ).eval()
        transformer = QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=4,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 6, 6),
        )
        vae = AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.1, -0.2, 0.0, 0.3],
            latents_std=[1.0, 2.0, 0.5, 1.5],
        ).eval()
        pipe = QwenImagePipeline(
            transformer=_livelier(transformer),
            vae=vae,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            text_encoder=encoder,
            tokenizer=tokenizer,
        )
    pipe.prompt_template_encode = "<|im_start|>a photo\n{}<|im_end|>\n<|im_start|>"
    head = tokenizer("<|im_start|>a photo\n")["input_ids"]
    pipe.prompt_template_encode_start_idx = len(head)
    pipe.default_sample_size = 8
    return _ready(pipe)


def z_image(seed: int = 0) -> ZImagePipeline:
    """Return Z-Image: 64x64 pixels, 4x4 tokens filled up to 32."""
    tokenizer = qwen_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = ZImageTransformer2DModel(
            in_channels=4,
            dim=48,
            n_layers=4,
            n_refiner_layers=1,
            n_heads=3,
            n_kv_heads=3,
            cap_feat_dim=16,
            axes_dims=[4, 6, 6],
            axes_lens=[512, 32, 32],
        )
        pipe = ZImagePipeline(
            transformer=_livelier(transformer),
            vae=_vae(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            text_encoder=_qwen3(Qwen3Model, tokenizer, 3),
            tokenizer=tokenizer,
        )
    pipe.default_sample_size = 8
    return _ready(pipe)
