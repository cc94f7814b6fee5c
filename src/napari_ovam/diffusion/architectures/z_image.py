"""Z-Image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from napari_ovam.diffusion.architectures.joint import ChatArchitecture
from napari_ovam.hub import families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ovam.attention.shown_calls import Block

_UNIT = 32  # tokens of image and text, each filled up to a multiple


class ZImage(ChatArchitecture):
    """Z-Image: one sequence of image and text, both refined before they meet."""

    family = families.Z_IMAGE
    steps = 9
    guidance_scale = 0.0
    blocks = ("layers",)
    attention = "attention"
    latents_place = (0, "x")
    step_place = (1, "t")
    text_place = (2, "cap_feats")
    text_first = False
    thinks = True
    text_parts = ("cap_embedder", "context_refiner")

    def heads(self, model: Any) -> tuple[int, int]:
        """Return the heads of the attention, and the size of each."""
        return model.config.n_heads, model.config.dim // model.config.n_heads

    def shown(self, sample: Any, step: Any, text: Any) -> tuple[Any, Any, Any]:
        """Return lists as tensors, and the step, which rises, as one that falls."""
        return torch.stack(list(sample)), -step, _filled(text)

    def encoded_sides(self, encoded: Any) -> tuple[Tensor | None, Tensor | None]:
        """Return prompts and negative texts as tensors."""
        prompts, negatives = (_filled(side) if side else None for side in encoded)
        return prompts, negatives

    def rows_of(self, pipe: Any, text: str) -> Tensor:
        """Return the rows of a text, filled up, projected and refined."""
        (rows,), _ = type(pipe).encode_prompt(
            pipe, text, do_classifier_free_guidance=False
        )
        model = self.denoiser(pipe)
        states = model.cap_embedder(rows.to(model.dtype))
        lacking = -len(states) % _UNIT
        states = torch.cat([states, model.cap_pad_token.expand(lacking, -1)])[None]
        turns = _turns(model, states.shape[1], states.device)
        for layer in model.context_refiner:
            states = layer(states, None, turns)
        refined: Tensor = states[0]
        return refined

    def show(self, model: Any, inputs: Mapping[str, Tensor]) -> None:
        """Show the model a call again, of one image."""
        model([inputs["x"]], inputs["t"][None], [inputs["cap_feats"]])

    def image_part(
        self, grid: tuple[int, int], seen: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the image's part; text attends to what fills it up as well."""
        cells = grid[0] * grid[1]
        whole = cells + -cells % _UNIT
        ends = {"key": whole, "value": whole}
        return {n: t[:, :, : ends.get(n, cells)] for n, t in seen.items()}

    def advance(
        self, model: Any, module: Any, texts: Tensor, block: Block
    ) -> Tensor | None:
        """Call a block with one cell of no image and texts, as one sequence."""
        dummy = texts.new_zeros(len(texts), 1, texts.shape[-1])
        turns = _turns(model, texts.shape[1], texts.device)
        turns = torch.cat([turns[:, :1], turns], 1).expand(len(texts), -1, -1)
        joint: Tensor = module(
            torch.cat([dummy, texts], 1), None, turns, block.arguments["adaln_input"]
        )
        return joint[:, 1:]

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return the text."""
        del size
        texts, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
        return {"cap_feats": texts, "encoder_hidden_states": _filled(texts)}

    def predict(
        self, pipe: Any, latents: Tensor, timestep: int, conditions: Mapping[str, Any]
    ) -> Tensor:
        """Show latents to the transformer once, and return its output."""
        step = torch.tensor([1 - timestep / 1000], device=latents.device).to(latents)
        shown = list(latents[:, :, None])
        return torch.stack(
            pipe.transformer(shown, step, conditions["cap_feats"]).sample
        )


def _turns(model: Any, count: int, device: Any) -> Tensor:
    """Return rotations of text, (1, count, d), whose places are (1 + i, 0, 0)."""
    ids = torch.zeros(count, 3, dtype=torch.int32, device=device)
    ids[:, 0] = 1 + torch.arange(count)
    turns: Tensor = model.rope_embedder(ids)[None]
    return turns


def _filled(texts: Any) -> Tensor:
    """Return texts of different lengths as one tensor, all of one length."""
    full = texts[0].new_zeros(512, texts[0].shape[-1])
    return pad_sequence([full, *texts], batch_first=True)[1:]
