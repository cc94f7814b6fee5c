"""What the token library does in a thread: without Qt, napari and the session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ovam.project.token_library import TokenLibrary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam import Token
    from napari_ovam._qt.session.models import Models
    from napari_ovam._qt.session.state import LiveSample, ModelChoice
    from napari_ovam.attention.trace import Trace
    from napari_ovam.project.token_library.compare import Comparison
    from napari_ovam.project.token_library.entry import TokenEntry


@dataclass(frozen=True, eq=False)
class Compared:
    """Two tokens of the library beside one another.

    Attributes
    ----------
    names
        What the tokens are called.
    title
        What the image is called that the maps are of.
    label
        The class that the IoU is with; empty without one.
    pictures
        The map of each beside the image, (h, 2w, 3); none without an image.
    """

    names: tuple[str, str]
    result: Comparison
    title: str = ""
    label: str = ""
    pictures: tuple[NDArray[np.uint8], ...] = ()


def compared(
    first: Path,
    second: Path,
    sample: LiveSample | None,
    labels: NDArray[Any] | None,
    classes: Sequence[tuple[int, str, str]],
    find_trace: Callable[[LiveSample], Trace | None],
) -> Compared:
    """Compare two tokens of the library, on an image where there is one.

    Parameters
    ----------
    first, second
        Their files.
    sample
        What is shown.
    labels
        Its labels, (H, W).
    classes
        Id, name and phrase of each; one that is called like a token is scored.
    find_trace
        Returns the trace of the sample, or None; called only if the tokens fit one
        another.
    """
    from napari_ovam import labels_to_target
    from napari_ovam.project.token_library.compare import compare_tokens
    from napari_ovam.project.token_library.entry import preview_picture

    library = TokenLibrary()
    one, two = library.load(first), library.load(second)
    called = first.stem, second.stem
    result = compare_tokens(one, two)
    trace = None if sample is None else find_trace(sample)
    if sample is None or trace is None:
        return Compared(called, result)
    target, label = None, ""
    wanted = {one.name.casefold(), two.name.casefold()}
    for number, *texts in classes:
        known = wanted.intersection(text.casefold() for text in texts)
        if labels is not None and known and (labels == number).any():
            target, label = labels_to_target(labels, number), texts[0]
            break
    result = compare_tokens(one, two, trace, target)
    pictures = tuple(
        preview_picture(sample.image, values) for values in result.maps or ()
    )
    return Compared(called, result, sample.name, label, pictures)


def read_entries(
    models: Models,
    choice: ModelChoice,
    trace: Trace | None,
    wanted: Mapping[str, Any],
) -> tuple[list[TokenEntry], str]:
    entries, pipe = TokenLibrary().entries(**wanted), models.loaded(choice)
    if pipe is None:
        return entries, "" if trace is None else trace.model
    from napari_ovam.diffusion.phrases import text_encoder_hash

    return entries, text_encoder_hash(pipe)


def picture_of(
    token: Token, sample: LiveSample, trace: Trace | None
) -> NDArray[np.uint8] | None:
    """Return a preview; None where the token does not fit the image's model."""
    from napari_ovam.attention.trace import ModelMismatchError
    from napari_ovam.project.token_library.entry import preview_picture
    from napari_ovam.segmentation.class_maps import class_map

    if trace is None:
        return None
    try:
        return preview_picture(sample.image, class_map(trace, token))
    except ModelMismatchError:
        return None
