"""What the token library does in a thread: without Qt, napari and the session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_ovam.project.token_library import TokenLibrary

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam import Token
    from napari_ovam._qt.session.models import Models
    from napari_ovam._qt.session.state import LiveSample, ModelChoice
    from napari_ovam.attention.trace import Trace
    from napari_ovam.project.token_library.entry import TokenEntry


def read_entries(
    models: Models,
    choice: ModelChoice,
    trace: Trace | None,
    wanted: Mapping[str, Any],
) -> tuple[list[TokenEntry], str]:
    entries, pipe = TokenLibrary().entries(**wanted), models.loaded(choice)
    if pipe is None:
        return entries, "" if trace is None else trace.model
    from napari_ovam.diffusion.weights_hash import text_encoder_hash

    return entries, text_encoder_hash(pipe)


def picture_of(
    token: Token, sample: LiveSample, trace: Trace
) -> NDArray[np.uint8] | None:
    """Return a preview; None where the token does not fit the image's model."""
    from napari_ovam.attention.trace import ModelMismatchError
    from napari_ovam.project.token_library.entry import preview_picture
    from napari_ovam.segmentation.class_maps import class_map

    try:
        return preview_picture(sample.image, class_map(trace, token))
    except ModelMismatchError:
        return None
