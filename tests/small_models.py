"""Small random pipelines of other families than conftest's, of the real classes."""

from __future__ import annotations

from typing import Any

import torch
from conftest import WORDS, make_tokenizer
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

CROSS = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


def _sharpen(model: Any) -> None:
    """Enlarge the queries' weights: random ones give maps that are all but flat."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("attn2.to_q.weight"):
                weight.mul_(4)


def _vae(scaling_factor: float = 0.18215) -> AutoencoderKL:
    return AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=scaling_factor,
    ).eval()


def clip(kind: Any, tokenizer: Any, size: int, projection: int = 40) -> Any:
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size,
            intermediate_size=2 * size,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=32,
            projection_dim=projection,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


XL_UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "attention_head_dim": (2, 4),
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 40,
    "cross_attention_dim": 24 + 40,
    "norm_num_groups": 4,
}


def xl(
    seed: int = 0, *, channels: tuple[int, ...] = (16, 32), **scheduler: Any
) -> StableDiffusionXLPipeline:
    """Return SDXL: 8x8 latents, 32x32 pixels, two encoders of 24 and 40."""
    first, second = make_tokenizer(), make_tokenizer()
    second.pad_token = "!"  # as SDXL's second tokenizer
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            **{**XL_UNET, "block_out_channels": channels},
            out_channels=4,
            down_block_types=("DownBlock2D", CROSS[0]),
            up_block_types=(CROSS[1], CROSS[1]),
        ).eval()
        pipe = StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=clip(CLIPTextModel, first, 24),
            text_encoder_2=clip(CLIPTextModelWithProjection, second, 40),
            tokenizer=first,
            tokenizer_2=second,
            unet=unet,
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                **{"timestep_spacing": "leading", "steps_offset": 1, **scheduler},
            ),
            add_watermarker=False,
        )
    _sharpen(unet)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def xl_controlnet(seed: int = 0) -> ControlNetModel:
    """Return a ControlNet for `xl`, whose output is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ControlNetModel(
            **{k: v for k, v in XL_UNET.items() if k != "sample_size"},
            down_block_types=("DownBlock2D", CROSS[0]),
            conditioning_embedding_out_channels=(8, 16, 16),
        ).eval()
    return _woken(net)


def sd_controlnet(pipe: Any, seed: int = 0) -> ControlNetModel:
    """Return a ControlNet for conftest's pipeline, whose output is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ControlNetModel.from_unet(
            pipe.unet, conditioning_embedding_out_channels=(8, 16, 16)
        )
    return _woken(net.eval())


def _woken(net: ControlNetModel) -> ControlNetModel:
    with torch.no_grad():
        for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            block.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    return net


def lcm(base: Any) -> LatentConsistencyModelPipeline:
    """Return a latent consistency model on conftest's pipeline `base`."""
    config = {k: v for k, v in base.unet.config.items() if not k.startswith("_")}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        unet = UNet2DConditionModel(**{**config, "time_cond_proj_dim": 16}).eval()
    _sharpen(unet)
    pipe = LatentConsistencyModelPipeline(
        **{
            **base.components,
            "unet": unet,
            "scheduler": LCMScheduler.from_config(base.scheduler.config),
        },
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def t5_tokenizer() -> T5Tokenizer:
    """Return a T5 tokenizer that knows WORDS whole and spells all others."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!"
    pieces = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -2.0}
    pieces |= dict.fromkeys(letters, -9.0)
    pieces |= {f"▁{word}": -3.0 for word in WORDS}
    return T5Tokenizer(vocab=list(pieces.items()), extra_ids=0, model_max_length=512)


def pixart(
    kind: str = "alpha", seed: int = 0, sample_size: int = 8, head_dim: int = 8
) -> Any:
    """Return PixArt: 8x8 latents in 4x4 patches, 32x32 pixels."""
    tokenizer = t5_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=16,
                d_kv=4,
                d_ff=32,
                num_layers=2,
                num_heads=4,
            )
        ).eval()
        transformer = PixArtTransformer2DModel(
            sample_size=sample_size,
            num_layers=2,
            patch_size=2,
            attention_head_dim=head_dim,
            num_attention_heads=3,
            caption_channels=16,
            in_channels=4,
            cross_attention_dim=3 * head_dim,
            out_channels=8,
            use_additional_conditions=sample_size == 128,
        ).eval()
        vae = _vae()
    with torch.no_grad():  # the real models have biases that are not zero
        for name, weight in transformer.named_parameters():
            if name.endswith(("to_k.bias", "to_q.bias")):
                weight.normal_(generator=torch.Generator().manual_seed(2))
    _sharpen(transformer)
    pipeline = {"alpha": PixArtAlphaPipeline, "sigma": PixArtSigmaPipeline}[kind]
    pipe = pipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=vae,
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
