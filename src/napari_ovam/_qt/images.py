"""Images as the model takes them: RGB of 8 bits, from layers and from disk."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_ovam.diffusion import GenerationSettings


def rgb_of_layer(layer: Image) -> NDArray[np.uint8]:
    """Return a layer's pixels as (H, W, 3) uint8, as its contrast limits show them.

    Raises
    ------
    ValueError
        If the layer is not one plain 2D image.
    """
    if layer.multiscale:
        raise ValueError(
            f"the layer {layer.name!r} is a pyramid: load one level of it, or a crop"
        )
    data = np.asarray(layer.data)
    limits = None if layer.rgb else tuple(layer.contrast_limits)
    return to_rgb(data, layer.name, rgb=layer.rgb, limits=limits)


def to_rgb(
    data: NDArray[Any],
    name: str,
    *,
    rgb: bool,
    limits: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Convert grey, RGB or RGBA pixels of any type to (H, W, 3) uint8.

    Parameters
    ----------
    data
        (H, W), or (H, W, 3 or 4) where `rgb`.
    name
        Whose pixels they are, for the message.
    rgb
        Whether the last axis is colour.
    limits
        The values of black and white; those of the type where None (0 and 1 for
        floats).

    Raises
    ------
    ValueError
        If there are other axes, or values that are not finite.
    """
    if data.ndim != (3 if rgb else 2):
        raise ValueError(
            f"{name!r} has the shape {data.shape}: only one 2D image, grey or colour, "
            "can be annotated; slice a stack or choose one channel first"
        )
    if 0 in data.shape:
        raise ValueError(f"{name!r} has no pixels: {data.shape}")
    if limits is None:
        integer = np.issubdtype(data.dtype, np.integer)
        limits = (0.0, float(np.iinfo(data.dtype).max) if integer else 1.0)
    if data.dtype != np.uint8 or limits != (0.0, 255.0):
        low, high = limits
        values = data.astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"{name!r} holds NaN or infinite values: replace them")
        scaled = (values - low) / ((high - low) or 1.0)
        data = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    if not rgb:
        return np.repeat(data[..., None], 3, axis=-1)
    if data.shape[-1] == 4:
        # Transparent parts become white, as image viewers show them.
        alpha = data[..., 3:].astype(np.float32) / 255
        mixed = data[..., :3] * alpha + 255 * (1 - alpha)
        return mixed.round().astype(np.uint8)
    return np.ascontiguousarray(data[..., :3])


def read_image(
    path: Path,
) -> tuple[NDArray[np.uint8], GenerationSettings | None]:
    """Read an image file, and its settings where napari-ovam made it.

    Raises
    ------
    ValueError
        If the file is no image, or broken.
    """
    from PIL import Image, UnidentifiedImageError

    from napari_ovam.png import read_png_settings

    try:
        with Image.open(path) as picture:
            frames = getattr(picture, "n_frames", 1)
            if frames > 1:
                raise ValueError(
                    f"the file {path.name} holds {frames} images: extract one of them "
                    "first"
                )
            if picture.mode in ("I;16", "I", "F"):
                data = np.asarray(picture)
                top = float(data.max()) or 1.0
                return to_rgb(data, path.name, rgb=False, limits=(0.0, top)), None
            data = np.asarray(picture.convert("RGBA"))
    except UnidentifiedImageError as error:
        raise ValueError(
            f"the file {path.name} is no image that can be read here"
        ) from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"the file {path.name} cannot be read: {error}") from error
    return to_rgb(data, path.name, rgb=True), as_settings(read_png_settings(path))


def as_settings(found: Mapping[str, Any] | None) -> GenerationSettings | None:
    """Return how napari-ovam made an image, of what its PNG says, if it does."""
    from napari_ovam.diffusion import GenerationSettings

    if found is None:
        return None
    known = {field.name for field in fields(GenerationSettings)}
    return GenerationSettings(**{k: v for k, v in found.items() if k in known})
