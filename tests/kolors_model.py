"""A small random Kolors of the real classes, but for the SentencePiece below them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from conftest import WORDS
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.pipelines.kolors import tokenizer as module
from diffusers.pipelines.kolors.pipeline_kolors import KolorsPipeline
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from small_models import _sharpen, _vae

if TYPE_CHECKING:
    from pathlib import Path


class Pieces:
    """In place of diffusers' SPTokenizer: WORDS whole, all others by their letters."""

    def __init__(self, _path: str) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.pieces = ["<unk>", "<s>", "</s>", "▁", *letters]
        self.pieces += [f"▁{word}" for word in WORDS]
        special = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
        first = len(self.pieces)
        self.special_tokens = {name: first + i for i, name in enumerate(special)}
        self.pieces += special
        self.n_words = len(self.pieces)
        self.pad_id, self.bos_id, self.eos_id = range(3)

    def tokenize(self, text: str, **_: Any) -> list[str]:
        found: list[str] = []
        for word in text.split():
            whole = f"▁{word}"
            found += [whole] if whole in self.pieces else ["▁", *word]
        return found

    def convert_token_to_id(self, token: str) -> int:
        return self.pieces.index(token) if token in self.pieces else 0

    def convert_id_to_token(self, index: int) -> str:
        return self.pieces[index]


def kolors(folder: Path, monkeypatch: Any, seed: int = 0) -> KolorsPipeline:
    """Return Kolors: 8x8 latents, 32x32 pixels."""
    monkeypatch.setattr(module, "SPTokenizer", Pieces)
    (folder / "tokenizer.model").write_bytes(b"")
    tokenizer = module.ChatGLMTokenizer(str(folder / "tokenizer.model"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = ChatGLMModel(
            ChatGLMConfig(
                num_layers=2,
                padded_vocab_size=tokenizer.vocab_size,
                hidden_size=32,
                ffn_hidden_size=32,
                kv_channels=8,
                num_attention_heads=4,
                seq_length=256,
                multi_query_attention=True,
                multi_query_group_num=2,
                add_qkv_bias=True,
                original_rope=True,
            )
        ).eval()
        for weight in encoder.parameters():  # it leaves them as the memory was
            torch.nn.init.normal_(weight, 1.0 if weight.ndim == 1 else 0.0, 0.1)
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 32),
            layers_per_block=1,
            attention_head_dim=(2, 4),
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
            cross_attention_dim=24,
            encoder_hid_dim=32,
            encoder_hid_dim_type="text_proj",
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        ).eval()
        pipe = KolorsPipeline(
            vae=_vae(),
            text_encoder=encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=EulerDiscreteScheduler(
                beta_schedule="scaled_linear", timestep_spacing="leading"
            ),
        )
    _sharpen(unet)
    pipe.set_progress_bar_config(disable=True)
    return pipe
