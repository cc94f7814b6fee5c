"""Small random pipelines of one transformer on patches, of the real classes."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
    SCMScheduler,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    VQModel,
    WanPipeline,
    WanTransformer3DModel,
)
from small_models import t5_tokenizer
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)
from word_tokenizer import WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

DIM = 32


def _woken(model: Any) -> Any:
    """Give what is initialised with zeros or ones other values, and sharpen queries."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.numel() and (weight == weight.flatten()[0]).all():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
            if name.endswith("attn2.to_q.weight"):
                weight.mul_(4)
    return model.eval()


def _gemma() -> dict[str, Any]:
    letters = "abcdefghijklmnopqrstuvwxyz.,'-:>ABCDEFGHIJKLMNOPQRSTUVWXYZ\n"
    pieces = {p: i for i, p in enumerate(("<pad>", "<eos>", "<bos>", "<unk>"))}
    for letter in ("▁", *letters):
        pieces[letter] = len(pieces)
    merges = []
    for word in WORDS:
        for first in ("", "▁"):
            left = (first + word)[0]
            for letter in (first + word)[1:]:
                if left + letter not in pieces:
                    merges.append((left, letter))
                    pieces[left + letter] = len(pieces)
                left += letter
    tokenizer = GemmaTokenizer(
        vocab=pieces, merges=merges, model_max_length=512, add_bos_token=True
    )
    encoder = Gemma2Model(
        Gemma2Config(
            vocab_size=len(tokenizer) + 1,
            hidden_size=DIM,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            pad_token_id=0,
            query_pre_attn_scalar=8,
            attn_implementation="eager",
        )
    )
    return {"tokenizer": tokenizer, "text_encoder": encoder.eval()}


def _t5(config: Any = T5Config, model: Any = T5EncoderModel) -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    encoder = model(
        config(
            vocab_size=len(tokenizer),
            d_model=DIM,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=4,
        )
    )
    return {"tokenizer": tokenizer, "text_encoder": encoder.eval()}


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
    ).eval()


def _sana_parts(**more: Any) -> dict[str, Any]:
    transformer = SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=4,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=DIM,
        caption_channels=DIM,
        sample_size=8,
        **more,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock", "ResBlock"),
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.4,
    )
    return {"vae": vae.eval(), "transformer": _woken(transformer), **_gemma()}


def sana() -> SanaPipeline:
    """Return Sana: 8x8 latents, 32x32 pixels."""
    parts = _sana_parts()
    return SanaPipeline(**parts, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))


def sana_sprint() -> SanaSprintPipeline:
    """Return Sana-Sprint, whose queries and keys are normalised (so is Sana 1.5's)."""
    parts = _sana_parts(qk_norm="rms_norm_across_heads", guidance_embeds=True)
    return SanaSprintPipeline(**parts, scheduler=SCMScheduler())


def hunyuan() -> HunyuanDiTPipeline:
    """Return HunyuanDiT: 8x8 latents, 64x64 pixels, BERT of 32 and T5."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    pieces += [
        mark + letter
        for letter in "abcdefghijklmnopqrstuvwxyz"
        for mark in ("", "##")
        if mark + letter not in pieces
    ]
    bert = BertTokenizer(
        vocab={p: i for i, p in enumerate(pieces)}, model_max_length=77
    )
    encoder = BertModel(
        BertConfig(
            vocab_size=len(pieces),
            hidden_size=DIM,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=80,
        )
    )
    t5 = _t5()
    transformer = HunyuanDiT2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=4,
        num_attention_heads=2,
        attention_head_dim=16,
        hidden_size=DIM,
        mlp_ratio=2.0,
        cross_attention_dim=DIM,
        cross_attention_dim_t5=DIM,
        pooled_projection_dim=16,
        text_len=77,
        text_len_t5=256,
        activation_fn="gelu-approximate",
    )
    return HunyuanDiTPipeline(
        vae=_vae(),
        text_encoder=encoder.eval(),
        tokenizer=bert,
        text_encoder_2=t5["text_encoder"],
        tokenizer_2=t5["tokenizer"],
        transformer=_woken(transformer),
        scheduler=DDPMScheduler(prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def lumina() -> LuminaPipeline:
    """Return Lumina-Next: 8x8 latents, 64x64 pixels; two heads share their keys."""
    transformer = LuminaNextDiT2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=64,
        num_layers=2,
        num_attention_heads=4,
        num_kv_heads=2,
        multiple_of=16,
        ffn_dim_multiplier=1.0,
        cross_attention_dim=DIM,
    )
    with torch.no_grad():
        transformer.pad_token.zero_()
    return LuminaPipeline(
        transformer=_woken(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(),
        **_gemma(),
    )


def kandinsky() -> Kandinsky3Pipeline:
    """Return Kandinsky 3: text attention at 8, 4 and 2 of 16x16 latents."""
    unet = Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=16,
        groups=2,
        attention_head_dim=8,
        layers_per_block=2,
        block_out_channels=(16, 16, 32, 32),
        cross_attention_dim=DIM,
        encoder_hid_dim=DIM,
    )
    movq = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        num_vq_embeddings=8,
        norm_num_groups=4,
    )
    return Kandinsky3Pipeline(
        **_t5(), unet=_woken(unet), scheduler=DDPMScheduler(), movq=movq.eval()
    )


def sana_video() -> SanaVideoPipeline:
    """Return Sana-Video: a frame of 32x32 pixels in 4x4 latents, four in one."""
    transformer = SanaVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=DIM,
        caption_channels=DIM,
        sample_size=8,
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1])
    return SanaVideoPipeline(
        **_gemma(),
        vae=vae.eval(),
        transformer=_woken(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def wan(
    pipeline: Any = WanPipeline, transformer: Any = WanTransformer3DModel
) -> WanPipeline:
    """Return Wan: a frame of 32x32 pixels in 4x4 latents, four frames in one."""
    denoiser = transformer(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=16,
        out_channels=16,
        text_dim=DIM,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1])
    return pipeline(
        **_t5(UMT5Config, UMT5EncoderModel),
        vae=vae.eval(),
        transformer=_woken(denoiser),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def skyreels() -> SkyReelsV2Pipeline:
    """Return SkyReels-V2, as Wan; a stand-in for ftfy where that is not installed."""
    module = sys.modules[SkyReelsV2Pipeline.__module__]
    if not hasattr(module, "ftfy"):
        module.ftfy = SimpleNamespace(fix_text=str)
    return wan(SkyReelsV2Pipeline, SkyReelsV2Transformer3DModel)


def ltx() -> LTXPipeline:
    """Return LTX-Video: a frame of 32x32 pixels in 8x8 latents, four frames in one."""
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=DIM,
        num_layers=2,
        caption_channels=DIM,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        patch_size=1,
        patch_size_t=1,
    )
    return LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae.eval(),
        transformer=_woken(transformer),
        **_t5(),
    )


MAKERS: dict[str, Callable[[], Any]] = {
    made.__name__: made
    for made in (
        *(sana, sana_sprint, hunyuan, lumina, kandinsky),
        *(sana_video, wan, skyreels, ltx),
    )
}


def make(name: str, seed: int = 0) -> Any:
    """Return a small pipeline by the name of its maker."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe = MAKERS[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe
