"""Make items: an image, its labels and its scores, as the plan says."""

from __future__ import annotations

import platform
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_ovam import __version__
from napari_ovam.base.hashing import hash_file
from napari_ovam.images.files import read
from napari_ovam.workflows.dataset.plan import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.workflows.dataset.plan import Item, Plan


@dataclass(frozen=True, eq=False)
class Made:
    """What was made of an item.

    Attributes
    ----------
    image
        (H, W, 3) uint8.
    labels
        (H, W) class ids.
    scores
        As JSON: "blank", "unsure", "clip"; under "classes", by id, "area" (share of
        the image), "presence", "agreement".
    settings
        How the image was generated; None for a picture.
    """

    image: NDArray[np.uint8]
    labels: NDArray[Any]
    scores: Mapping[str, Any]
    settings: Mapping[str, Any] | None


class Maker(Protocol):
    """Makes items of one plan."""

    device: str

    def make(self, items: Sequence[Item]) -> list[Made]:
        """Make items at once; raise `OutOfMemory` if they are too many for that."""


def check_version(plan: Plan) -> None:
    """Raise `PlanError` if this program is not of the version that made a plan."""
    if plan.program != __version__:
        raise PlanError(
            f"{platform.node()} has napari-ovam {__version__}, and the plan was made "
            f"with {plan.program}: install that one there, or plan again"
        )


class ModelMaker:
    """Makes items with a diffusion model.

    It raises `PlanError` if this is another version of the program or another model
    than the plan's, or a token is.

    Parameters
    ----------
    plan
        The plan.
    folder
        Of the plan, with its tokens.
    device
        As for `load_pipeline`.
    pipe
        The plan's model, where it is loaded already.
    """

    def __init__(
        self, plan: Plan, folder: Path, device: str = "auto", pipe: Any = None
    ) -> None:
        from napari_ovam.attention.trace_settings import TraceSettings
        from napari_ovam.diffusion.phrases import encode_phrase
        from napari_ovam.diffusion.pipelines import load_pipeline
        from napari_ovam.diffusion.weights_hash import model_hash
        from napari_ovam.segmentation.presence import REFERENCES
        from napari_ovam.workflows.dataset.scores import ClipScorer

        check_version(plan)
        self._plan = plan
        self._pipe = pipe or load_pipeline(plan.model, device=device, dtype=plan.dtype)
        if model_hash(self._pipe) != plan.model_hash:
            raise PlanError(
                f"{plan.model} on {platform.node()} has other weights than the plan's "
                "model: get the same one there"
            )
        self.device = describe_device(self._pipe.device)
        self._trace = TraceSettings()
        phrases = {e.id: encode_phrase(self._pipe, e.phrase) for e in plan.classes}
        self._sources = {
            entry.id: (*self._tokens(folder, entry), phrases[entry.id])
            for entry in plan.classes
        }
        self._references = [encode_phrase(self._pipe, word) for word in REFERENCES]
        self._clip = None
        if plan.clip_model:
            self._clip = ClipScorer(plan.clip_model, self._pipe.device)
            if self._clip.hash != plan.clip_hash:
                raise PlanError(
                    f"{plan.clip_model} on {platform.node()} has other weights than "
                    "the plan's CLIP model: get the same one there"
                )

    def _tokens(self, folder: Path, entry: Any) -> tuple[Token, ...]:
        from napari_ovam.attention.token_files import load_token

        if not entry.file:
            return ()
        token = load_token(folder / "tokens" / entry.file)
        if sha256(token.embedding.numpy().tobytes()).hexdigest() != entry.token:
            raise PlanError(
                f"the token {folder / 'tokens' / entry.file} is another than the "
                f"plan's of {entry.name!r}: put that one back"
            )
        return (token,)

    def make(self, items: Sequence[Item]) -> list[Made]:
        """Make items at once; raise `OutOfMemory` if they are too many for that."""
        with _reproducible(self._pipe.device), warnings.catch_warnings():
            # that prompts are cut off was said when it was planned
            warnings.simplefilter("ignore", UserWarning)
            return [
                self._label(item, made)
                for item, made in zip(items, self._pictures(items), strict=True)
            ]

    def _pictures(self, items: Sequence[Item]) -> Iterator[Any]:
        """Yield images with their traces."""
        from napari_ovam.base.generation_settings import GenerationSettings
        from napari_ovam.diffusion.generation import generate_batch
        from napari_ovam.diffusion.image_traces import trace_image

        if self._plan.pictures:
            for item in items:
                image = read_picture(self._plan, item)
                yield trace_image(self._pipe, image, seed=item.seed, trace=self._trace)
            return
        settings = [
            GenerationSettings(
                item.prompt.text,
                item.prompt.negative,
                item.seed,
                **self._plan.settings,
            )
            for item in items
        ]
        yield from generate_batch(self._pipe, settings, trace=self._trace)

    def _label(self, item: Item, made: Any) -> Made:
        from napari_ovam.segmentation.class_maps import (
            class_maps,
            label_maker,
            labels_and_doubt,
        )
        from napari_ovam.segmentation.presence import presence
        from napari_ovam.workflows.dataset import scores

        image, expected = made.image, item.prompt.classes
        words = {i: self._sources[i][-1] for i in self._plan.looked_for(item.prompt)}
        here = presence(made.trace, words, self._references)
        # One that no prompt speaks of is not looked for where it seems not to be.
        least = self._plan.filters.presence or 0.0
        ids = expected or tuple(i for i, score in here.items() if score >= least)
        labels = np.zeros(image.shape[:2], np.uint8)
        alike: dict[int, float] = {}
        unsure = 0.0
        if ids:
            sources = {i: self._sources[i] for i in ids}
            limits = {i: self._plan.by_id[i].threshold for i in ids}
            maker = label_maker(class_maps(made.trace, sources), image)
            labels, unsure = labels_and_doubt(maker, limits)
            if self._plan.agreement != "none":
                one, other = scores.two_looks(
                    self._plan.agreement, made.trace, sources, maker, limits, image
                )
                alike = scores.agreement(one, other, ids)
                labels = scores.undecided(labels, one, other)
        by_class = {
            str(i): {
                "area": round(float((labels == i).mean()), 6),
                "presence": round(here[i], 4),
                **({"agreement": round(alike[i], 4)} if i in alike else {}),
            }
            for i in ids
        }
        found: dict[str, Any] = {
            "blank": round(scores.blank_share(image), 4),
            "unsure": round(unsure, 4),
            "classes": by_class,
        }
        if self._clip is not None and item.prompt.text:
            found["clip"] = round(self._clip(image, item.prompt.text), 4)
        settings = None
        if item.picture is None:
            settings = {"model": self._plan.model, **asdict(made.settings)}
        return Made(image, labels, found, settings)


def read_picture(plan: Plan, item: Item) -> NDArray[np.uint8]:
    """Read the picture of an item, (H, W, 3).

    It raises `ValueError` if it is gone, broken or another than it was; `PlanError` if
    the folder of the plan's pictures is not there.
    """
    picture = item.picture
    if picture is None:
        raise PlanError(f"item {item.number} is no picture")
    path = Path(plan.folder) / picture.file
    if not Path(plan.folder).is_dir():
        raise PlanError(f"{platform.node()} does not see the folder {plan.folder}")
    if not path.is_file():
        raise ValueError(f"{path} is gone")
    if hash_file(path) != picture.sha256:
        raise ValueError(f"{path} is another picture than when it was planned")
    return read(path)


def describe_device(device: Any) -> str:
    """Return the kind of a device: the same kind makes the same bytes."""
    import torch

    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{torch.device(device).type} {platform.machine()}"


@contextmanager
def _reproducible(device: Any) -> Iterator[None]:
    """Compute what does not depend on how many cores there are, nor on chance."""
    import torch

    threads = torch.get_num_threads()
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = before
