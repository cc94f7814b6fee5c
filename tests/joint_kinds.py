"""How the families with joint attention are run by the tests, each in its own words."""

from __future__ import annotations

from functools import partial
from typing import Any

import joint_models
import torch
from joint_reference import Kind

SIZE = {"height": 64, "width": 64}


def _numbered(model: Any, *kinds: str, attention: str = "attn") -> Any:
    for kind in kinds:
        for i, block in enumerate(getattr(model, kind)):
            yield f"{kind}.{i}.{attention}", block


def _sd3_again(block: Any, args: Any, kwargs: Any, row: int, text: Any) -> Any:
    return block(
        hidden_states=kwargs["hidden_states"][row : row + 1],
        encoder_hidden_states=text,
        temb=kwargs["temb"][row : row + 1],
    )[0]


def _sd3_rows(pipe: Any, prompt: str) -> torch.Tensor:
    rows = pipe.encode_prompt(prompt, None, None, do_classifier_free_guidance=False)[0]
    return pipe.transformer.context_embedder(rows)[0]


def _sd3(**how: Any) -> Kind:
    return Kind(
        partial(joint_models.sd3, **how),
        _sd3_again,
        _sd3_rows,
        lambda model: _numbered(model, "transformer_blocks"),
        row=1,
        text_first=False,
        settings={"guidance_scale": 4.0},
    )


KINDS = {"sd3.5": _sd3(), "sd3.0": _sd3(dual=())}


def _flux_again(block: Any, args: Any, kwargs: Any, row: int, text: Any) -> Any:
    image = kwargs["hidden_states"][row : row + 1]
    none = torch.ones(text.shape[1], 16), torch.zeros(text.shape[1], 16)
    turns = kwargs["image_rotary_emb"]
    return block(
        hidden_states=image,
        encoder_hidden_states=text,
        temb=kwargs["temb"][row : row + 1],
        image_rotary_emb=tuple(
            torch.cat([own, turn[-image.shape[1] :]])
            for own, turn in zip(none, turns, strict=True)
        ),
    )[0]


def _flux_rows(pipe: Any, prompt: str) -> torch.Tensor:
    return pipe.transformer.context_embedder(pipe.encode_prompt(prompt, None)[0])[0]


def _flux(passes: int = 1, guidance: bool = True, **settings: Any) -> Kind:
    return Kind(
        # No two kinds have the same weights: one would answer for the other.
        partial(joint_models.flux, seed=passes, guidance=guidance),
        _flux_again,
        _flux_rows,
        lambda model: _numbered(
            model, "transformer_blocks", "single_transformer_blocks"
        ),
        passes=passes,
        settings={"max_sequence_length": 512, **SIZE, **settings},
    )


def _flux2_again(block: Any, args: Any, kwargs: Any, row: int, text: Any) -> Any:
    count = text.shape[1]
    cos, sin = kwargs["image_rotary_emb"]
    ids = torch.tensor([[0, 0, 0, i] for i in range(count)])
    turns = zip(_of(block).pos_embed(ids), (cos, sin), strict=True)
    given = {"image_rotary_emb": tuple(torch.cat([t, j[-16:]]) for t, j in turns)}
    given |= {k: v for k, v in kwargs.items() if k.startswith("temb_mod")}
    image = kwargs["hidden_states"][row : row + 1, -16:]
    if kwargs["encoder_hidden_states"] is None:
        joint = torch.cat([text, image], 1)
        return block(hidden_states=joint, encoder_hidden_states=None, **given)[
            :, :count
        ]
    return block(hidden_states=image, encoder_hidden_states=text, **given)[0]


_models: dict[int, Any] = {}


def _of(block: Any) -> Any:
    return _models[id(block)]


def _known(model: Any, *kinds: str, attention: str = "attn") -> Any:
    """Yield the blocks, and note whose they are."""
    for name, block in _numbered(model, *kinds, attention=attention):
        _models[id(block)] = model
        yield name, block


def _flux2(passes: int = 1, **how: Any) -> Kind:
    return Kind(
        partial(joint_models.flux2, seed=passes, **how),
        _flux2_again,
        _flux_rows_2,
        lambda model: _known(model, "transformer_blocks", "single_transformer_blocks"),
        passes=passes,
        settings={**SIZE, "guidance_scale": 4.0 if passes > 1 else 1.0},
    )


def _flux_rows_2(pipe: Any, prompt: str) -> torch.Tensor:
    return pipe.transformer.context_embedder(pipe.encode_prompt(prompt)[0])[0]


def _qwen_again(block: Any, args: Any, kwargs: Any, row: int, text: Any) -> Any:
    turns, _ = kwargs["image_rotary_emb"]
    _, own = _of(block).pos_embed(
        [[(1, 4, 4)]], max_txt_seq_len=text.shape[1], device=text.device
    )
    return block(
        hidden_states=kwargs["hidden_states"][row : row + 1],
        encoder_hidden_states=text,
        encoder_hidden_states_mask=None,
        temb=kwargs["temb"][row : row + 1],
        image_rotary_emb=(turns, own),
    )[0]


def _qwen_rows(pipe: Any, prompt: str) -> torch.Tensor:
    model = pipe.transformer
    return model.txt_in(model.txt_norm(pipe.encode_prompt(prompt)[0]))[0]


def _z_again(block: Any, args: Any, kwargs: Any, row: int, text: Any) -> Any:
    states, _, turns, modulation = args[:4]
    ids = [[1 + i, 0, 0] for i in range(text.shape[1])]
    own = _of(block).rope_embedder(torch.tensor(ids, dtype=torch.int32))[None]
    joint = torch.cat([states[row : row + 1, :32], text], 1)
    turns = torch.cat([turns[row : row + 1, :32], own], 1)
    return block(joint, None, turns, modulation[row : row + 1])[:, 32:]


def _z_rows(pipe: Any, prompt: str) -> torch.Tensor:
    """Take them where they enter the first layer, in a call of the model."""
    found = []
    hook = pipe.transformer.context_refiner[-1].register_forward_hook(
        lambda _module, _args, output: found.append(output[0])
    )
    pipe(
        prompt, num_inference_steps=1, guidance_scale=0.0, output_type="latent", **SIZE
    )
    hook.remove()
    return found[0]


KINDS |= {
    "flux dev": _flux(guidance_scale=3.5),
    "flux schnell": _flux(guidance=False),
    "flux true cfg": _flux(passes=2, negative_prompt="a dog", true_cfg_scale=3.0),
    "flux.2 klein": _flux2(),
    "flux.2 klein base": _flux2(passes=2, distilled=False),
    "qwen": Kind(
        joint_models.qwen_image,
        _qwen_again,
        _qwen_rows,
        lambda model: _known(model, "transformer_blocks"),
        passes=2,
        settings={**SIZE, "negative_prompt": " ", "true_cfg_scale": 3.0},
    ),
    "z-image": Kind(
        joint_models.z_image,
        _z_again,
        _z_rows,
        lambda model: _known(model, "layers", attention="attention"),
        text_first=False,
        settings={**SIZE, "guidance_scale": 3.0},
    ),
}
