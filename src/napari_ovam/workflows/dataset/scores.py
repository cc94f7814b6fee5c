"""How good an image and its labels are likely to be: scores, without a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.ids import IGNORE
from napari_ovam.diffusion.weights_hash import weights_hash
from napari_ovam.segmentation.class_maps import (
    class_maps,
    label_maker,
    labels_and_doubt,
)
from napari_ovam.segmentation.thresholds import THRESHOLD
from napari_ovam.workflows.dataset.plan import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.segmentation.labels import LabelMaker

LOOKS = ("calls", "thresholds", "none")
"""Which two looks at an image are compared."""

_ALIKE = 8  # of 255, how much a colour may differ in each channel
_BAND = 0.2  # how far the two thresholds are from a class's own


def blank_share(image: NDArray[np.uint8]) -> float:
    """Return the share of pixels, 0 to 1, that have nearly the image's median colour.

    1 for an image of one colour, such as the black one of a safety checker.
    """
    pixels = image.reshape(-1, 3).astype(np.int16)
    far = np.abs(pixels - np.median(pixels, 0).astype(np.int16)).max(1)
    return float((far <= _ALIKE).mean())


def two_looks(
    look: str,
    trace: Trace,
    sources: Mapping[int, Sequence[Token]],
    maker: LabelMaker,
    thresholds: Mapping[int, float | None],
    image: NDArray[np.uint8],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the labels of an image by two looks, (H, W) each.

    Parameters
    ----------
    look
        "thresholds": of one below and one above each class's own. "calls": of the
        first and of the last denoising call of the trace.
    trace, sources
        What `class_maps` takes.
    maker
        Of the maps of all calls.
    thresholds, image
        As for `class_labels`.
    """
    if look == "calls" and len(trace.calls) > 1:
        makers = (
            label_maker(class_maps(trace.select(calls=[call]), sources), image)
            for call in (trace.calls[0], trace.calls[-1])
        )
        first, last = (labels_and_doubt(each, thresholds)[0] for each in makers)
        return first, last
    own = {i: THRESHOLD if t is None else t for i, t in thresholds.items()}
    low, high = (
        {i: float(np.clip(t + by, 0.05, 0.95)) for i, t in own.items()}
        for by in (-_BAND, _BAND)
    )
    return labels_and_doubt(maker, low)[0], labels_and_doubt(maker, high)[0]


def agreement(
    one: NDArray[Any], other: NDArray[Any], classes: Iterable[int]
) -> dict[int, float]:
    """Return the IoU of each class in two labellings (H, W); 1 where both lack it."""
    found = {}
    for number in classes:
        mine, theirs = one == number, other == number
        union = int((mine | theirs).sum())
        found[number] = int((mine & theirs).sum()) / union if union else 1.0
    return found


def undecided(
    labels: NDArray[Any], one: NDArray[Any], other: NDArray[Any]
) -> NDArray[Any]:
    """Return labels (H, W) with 255, "unsure", where two looks differ."""
    result: NDArray[Any] = np.where(one == other, labels, IGNORE).astype(labels.dtype)
    return result


class ClipScorer:
    """How well images fit their prompts, by a CLIP model on this machine.

    Hessel et al., "CLIPScore", EMNLP 2021, without its factor of 2.5.

    It raises `PlanError` if there is no such model.

    Parameters
    ----------
    folder
        Of the model and its processor, as transformers save them.
    device
        Where it runs.

    Attributes
    ----------
    hash
        A fingerprint of its weights.
    """

    def __init__(self, folder: str, device: Any = "cpu") -> None:
        from transformers import CLIPModel, CLIPProcessor

        try:
            self._model = CLIPModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
            self._process = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise PlanError(
                f"there is no CLIP model in {folder} ({str(error)[:200]}): give the "
                "folder of one, as transformers save it, or leave out --clip"
            ) from error
        self._model.eval().to(device)
        self.hash = weights_hash(self._model)

    def __call__(self, image: NDArray[np.uint8], prompt: str) -> float:
        """Return the cosine, -1 to 1, of an image (H, W, 3) and a prompt."""
        import torch

        given = self._process(
            text=[prompt], images=[image], return_tensors="pt", truncation=True
        ).to(self._model.device)
        with torch.no_grad():
            found = self._model(**given)
        seen, said = found.image_embeds[0].float(), found.text_embeds[0].float()
        return float(torch.nn.functional.cosine_similarity(seen, said, dim=0))
