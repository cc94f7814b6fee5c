"""The parts of the embedded model, untrained: tokenizer, text encoder, UNet, VAE."""

from __future__ import annotations

from itertools import pairwise

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from scenes import BACKGROUNDS, OBJECTS
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SIDE = 256  # of the pictures, in pixels
TEXT_LENGTH = 32
TEXT_DIM = 128
LATENT_CHANNELS = 4
_OTHER_WORDS = "a an and , . photo picture drawing of the with two three"
_WORD_END = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer() -> CLIPTokenizer:
    """CLIP-format BPE: every word of the captions is one piece, others are spelled.

    All single bytes are in the vocabulary, so that any text can be encoded. Built by
    hand, as ids must be the same in every run: between pieces of equal count, the
    trainer of `tokenizers` chooses by chance.
    """
    words = set(_OTHER_WORDS.split())
    for text in (*OBJECTS, *BACKGROUNDS.values()):
        words.update(text.split())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # CLIP marks the last piece of a word
    pieces = [*alphabet, *(character + _WORD_END for character in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in sorted(words):
        left = [*word[:-1], word[-1] + _WORD_END]
        while len(left) > 1:
            known = [pair for pair in pairwise(left) if pair in merges]
            pair = min(known, key=merges.index) if known else (left[0], left[1])
            if not known:
                merges.append(pair)
                pieces.append("".join(pair))
            at = list(pairwise(left)).index(pair)
            left[at : at + 2] = ["".join(pair)]
    vocabulary = dict.fromkeys([*pieces, _START, _END])
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(vocabulary)},
        merges=merges,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        unk_token=_END,
        model_max_length=TEXT_LENGTH,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return a CLIP text model of two layers; its hidden states are 128 wide."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_DIM,
            intermediate_size=2 * TEXT_DIM,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            projection_dim=TEXT_DIM,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_unet() -> UNet2DConditionModel:
    """8.7 M weights, cross-attention on 32x32, 16x16 and 8x8 grids (and 4x4, middle).

    At 32x32 the blocks attend to the text only: self-attention there costs a third of
    the training time on a CPU and adds little to pictures this simple. Few heads,
    for the same reason.
    """
    down, up = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(32, 64, 128, 192),
        layers_per_block=1,
        down_block_types=(down, down, down, "DownBlock2D"),
        up_block_types=("UpBlock2D", up, up, up),
        only_cross_attention=(True, False, False, False),
        mid_block_only_cross_attention=False,
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=2,  # diffusers takes this as the number of heads
        norm_num_groups=16,
    )


def make_autoencoder() -> AutoencoderKL:
    """Eight times smaller each way, as Stable Diffusion's: 256x256x3 to 32x32x4."""
    channels = (24, 48, 96, 128)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=4,  # more groups than this erase flat colours
        mid_block_add_attention=False,
        sample_size=SIDE,
    )


def make_scheduler() -> DDIMScheduler:
    """Return the schedule of Stable Diffusion, with v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
