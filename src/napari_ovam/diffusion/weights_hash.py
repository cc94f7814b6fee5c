"""Fingerprints of weights, which neither precision nor device change."""

from __future__ import annotations

import hashlib
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from napari_ovam.diffusion.architectures import pipeline_architecture

_hashes: WeakKeyDictionary[torch.nn.Module, tuple[Any, str]] = WeakKeyDictionary()


def text_encoder_hash(pipe: Any) -> str:
    """Return a fingerprint of a pipeline's text encoder, "" if it has none at hand.

    Of several encoders (Stable Diffusion XL) all count, and of PixArt the projection
    behind its encoder. It is taken of the signs of all weights, which neither half
    precision, bfloat16 nor the device changes, while any training flips many. It is
    kept per module and taken anew when weights were replaced or changed in place.
    """
    modules = pipeline_architecture(pipe).text_modules(pipe)
    if any(p.is_meta for module in modules for p in module.parameters()):
        return ""
    hashes = [weights_hash(module) for module in modules]
    if len(hashes) < 2:
        return "".join(hashes)
    return hashlib.blake2b("".join(hashes).encode(), digest_size=16).hexdigest()


def model_hash(pipe: Any) -> str:
    """Return a fingerprint of all weights of a pipeline and of its scheduler.

    As `text_encoder_hash`, neither precision nor device change it.
    """
    parts = sorted(
        (name, weights_hash(part))
        for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module)
    )
    scheduler = sorted((k, v) for k, v in pipe.scheduler.config.items() if k[0] != "_")
    about = f"{type(pipe).__name__} {parts} {type(pipe.scheduler).__name__} {scheduler}"
    return hashlib.blake2b(about.encode(), digest_size=16).hexdigest()


def weights_hash(module: torch.nn.Module) -> str:
    """Return a fingerprint of the weights of a module, as `text_encoder_hash`."""
    state = tuple((p.data_ptr(), p._version) for p in module.parameters())
    known = _hashes.get(module)
    if known is None or known[0] != state:
        # Sorted, as libraries rename and reorder the parts of a model.
        digests = sorted(_signs(p.detach()) for p in module.parameters())
        known = state, hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()
        _hashes[module] = known
    return known[1]


def _signs(weight: Tensor) -> bytes:
    if type(weight) is not Tensor:  # quantised, by a class of its own
        weight = weight.dequantize()
    if not weight.is_floating_point():  # packed numbers, whose signs say nothing
        bits = weight.contiguous().cpu().view(torch.uint8).numpy()
    else:
        if weight.dtype.itemsize == 1:  # of which torch knows no signs
            weight = weight.to(torch.float16)
        bits = np.packbits(torch.signbit(weight).cpu().numpy())
    shape = repr(tuple(weight.shape)).encode()
    return hashlib.blake2b(shape + bits.tobytes(), digest_size=16).digest()
