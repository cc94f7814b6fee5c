"""The whole job on the embedded model, with figures: `napari-ovam demo`.

Every IoU is against a mask that no attention map produced: the outlines of the scenes
that the package ships, and, for generated pictures, colour, where the object is far
more colourful than the place it is in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_fill_holes
from skimage import color, filters, measure
from skimage.morphology import disk, opening

from napari_ovam.attention.optimize import optimize_token
from napari_ovam.attention.targets import iou, labels_to_target
from napari_ovam.attention.token_files import save_token
from napari_ovam.base.generation_settings import GenerationSettings
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.datasets.exporters import ExportItem, LabelClass, export_dataset
from napari_ovam.diffusion.generation import generate
from napari_ovam.diffusion.image_traces import trace_image
from napari_ovam.diffusion.phrases import encode_phrase
from napari_ovam.diffusion.pipelines import load_pipeline
from napari_ovam.images.overlay import overlay, sheet
from napari_ovam.scenes import Scene, load_scenes
from napari_ovam.segmentation.class_maps import class_labels, class_map, class_maps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.images.overlay import Panel

_PROMPT, _PHRASES, _SEED = "a cat and a hat on the grass", ("cat", "hat"), 1
_SCENE_CLASSES = ("cat", "car", "owl", "flower")
# Colourful objects, and a place without colour: a mask by colour is beyond dispute.
_CONTRASTS = (("apple", "in the snow"), ("frog", "in the snow"))
_OPTIONS = {"min_size": 60, "fill_holes": True}
_COLOURS = ((230, 97, 1), (26, 133, 255), (0, 158, 115), (212, 17, 89), (240, 200, 40))


@dataclass(frozen=True)
class Score:
    """IoU of a class on an image that its token was not optimized on."""

    name: str
    image: str
    masks_by: str
    # IoU of the labels made with the plain phrase, and with the optimized token and its
    # phrase together. The image's other classes are looked for by their phrases.
    phrase: float
    token: float


@dataclass(frozen=True, eq=False)
class _Picture:
    """An image with its trace, and the mask of one class that no map made.

    `others` are the classes that a person would say are in it as well.
    """

    name: str
    image: NDArray[np.uint8]
    trace: Trace
    mask: NDArray[np.uint8]
    others: tuple[str, ...] = ()


def run_demo(out: Path, *, progress: Progress = no_progress) -> list[Score]:
    """Run the whole job and write its results into a folder.

    It raises `FileExistsError` if the folder holds something.

    Parameters
    ----------
    out
        A folder that does not exist or is empty. It gets `overview.png`,
        `scores.json`, and the folders `images`, `maps`, `labels`, `tokens` and
        `masks` (exported as indexed PNG and COCO).
    progress
        Called with (parts done, all parts); may raise `Cancelled`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"{out} exists and is not an empty folder: name another with --out"
        )
    for part in ("images", "maps", "labels", "tokens"):
        (out / part).mkdir(parents=True, exist_ok=True)
    total = 2 + len(_SCENE_CLASSES) + len(_CONTRASTS)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    progress(done, total)
    pipe = load_pipeline("tiny")
    run = _Run(pipe, out)
    run.open_vocabulary()
    advance()
    for name in _SCENE_CLASSES:
        scenes = [s for s in load_scenes() if name in s.classes.values()]
        run.annotate_one(name, "outline", [run.traced(s, name) for s in scenes])
        advance()
    for name, place in _CONTRASTS:
        run.annotate_one(name, "colour", run.generated(name, place))
        advance()
    run.finish()
    advance()
    return run.scores


class _Run:
    """What one run of the demonstration has made so far."""

    def __init__(self, pipe: Any, out: Path) -> None:
        self.pipe = pipe
        self.out = out
        self.scores: list[Score] = []
        self.rows: list[tuple[str, list[Panel]]] = []
        self.items: list[ExportItem] = []
        names = dict.fromkeys(
            (*_PHRASES, *_SCENE_CLASSES, *(name for name, _ in _CONTRASTS))
        )
        self.classes = [
            LabelClass(i, name, _COLOURS[i % len(_COLOURS)])
            for i, name in enumerate(names, start=1)
        ]

    def open_vocabulary(self) -> None:
        """Prompt, image, maps of two phrases, labels."""
        made = generate(self.pipe, GenerationSettings(_PROMPT, seed=_SEED))
        classes = [self._class(name) for name in _PHRASES]
        ids = [each.id for each in classes]
        sources = {
            i: [encode_phrase(self.pipe, phrase)]
            for i, phrase in zip(ids, _PHRASES, strict=True)
        }
        found = class_maps(made.trace, sources)
        labels = _labels(found, made.image)
        name = "generated-cat-hat"
        self._keep(name, made.image, labels)
        for i, phrase in zip(ids, _PHRASES, strict=True):
            self._save_map(f"{name}.{phrase}", found[i])
        panels = [(f'"{_PROMPT}"', made.image)]
        colours = {c.id: c.color for c in classes if c.color}
        panels += [
            (f'map of "{p}"', overlay(made.image, labels, colours, maps={i: found[i]}))
            for i, p in zip(ids, _PHRASES, strict=True)
        ]
        panels.append(("labels", overlay(made.image, labels, colours)))
        self.rows.append(("A prompt, an image, two phrases", panels))

    def traced(self, scene: Scene, name: str) -> _Picture:
        """Show a scene to the model; its outline is the mask."""
        label = next(i for i, other in scene.classes.items() if other == name)
        trace = trace_image(self.pipe, scene.image).trace
        mask = labels_to_target(scene.labels, label)
        others = tuple(other for other in scene.classes.values() if other != name)
        return _Picture(scene.name, scene.image, trace, mask, others)

    def generated(self, name: str, place: str) -> list[_Picture]:
        """Generate three pictures of a colourful object; colour is the mask."""
        pictures: list[_Picture] = []
        for seed in range(3):
            settings = GenerationSettings(f"{_a(name)} {place}", seed=seed)
            made = generate(self.pipe, settings)
            pictures.append(
                _Picture(
                    f"generated-{name}-{seed}",
                    made.image,
                    made.trace,
                    colour_mask(made.image),
                )
            )
        return pictures

    def annotate_one(self, name: str, masks_by: str, pictures: list[_Picture]) -> None:
        """Optimize a token on the first picture, compare it on the others."""
        annotated, *others = pictures
        phrase = encode_phrase(self.pipe, name)
        token = optimize_token(annotated.trace.fine(), phrase, annotated.mask)
        save_token(token, self.out / "tokens" / f"{name}.safetensors")
        # A token finds whole objects, and its word tells which.
        both = [token, phrase]
        chosen = self._class(name)
        colours = {chosen.id: chosen.color or (255, 255, 255)}
        panels: list[Panel] = [
            (
                f"annotated ({masks_by})",
                overlay(annotated.image, annotated.mask * chosen.id, colours),
            )
        ]
        for picture in others:
            words = [[encode_phrase(self.pipe, other)] for other in picture.others]
            before = _mask(picture, [[phrase], *words])
            after = _mask(picture, [both, *words])
            score = Score(
                name,
                picture.name,
                masks_by,
                iou(before, picture.mask),
                iou(after, picture.mask),
            )
            self.scores.append(score)
            self._keep(picture.name, picture.image, after.astype(np.uint8) * chosen.id)
            self._save_map(f"{picture.name}.{name}", class_map(picture.trace, both))

        # the last picture is shown, all of them are in the scores
        def shown(mask: NDArray[Any], *tokens: Token) -> NDArray[np.uint8]:
            maps = {chosen.id: class_map(picture.trace, tokens)} if tokens else None
            return overlay(picture.image, mask * chosen.id, colours, maps=maps)

        panels += [
            (f"another image\nits mask ({masks_by})", shown(picture.mask)),
            (f'map of "{name}"', shown(before, phrase)),
            (f"before: the word\nIoU {score.phrase:.2f}", shown(before)),
            ("map of the token\nwith its word", shown(after, *both)),
            (f"after: the token\nIoU {score.token:.2f}", shown(after)),
        ]
        kind = "A generated" if masks_by == "colour" else "A composed"
        self.rows.append((f"{kind} image of {_a(name)} is annotated", panels))

    def finish(self) -> None:
        """Export the masks, and write the scores and the overview."""
        export_dataset(
            self.items, self.classes, self.out / "masks", formats=("indexed", "coco")
        )
        scores = [asdict(score) for score in self.scores]
        (self.out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
        sheet(self.rows).save(self.out / "overview.png")

    def _class(self, name: str) -> LabelClass:
        return next(c for c in self.classes if c.name == name)

    def _save_map(self, name: str, values: NDArray[np.float32]) -> None:
        path = self.out / "maps" / f"{name}.png"
        Image.fromarray((values * 65535).round().astype(np.uint16)).save(path)

    def _keep(self, name: str, image: NDArray[np.uint8], labels: NDArray[Any]) -> None:
        Image.fromarray(image).save(self.out / "images" / f"{name}.png")
        Image.fromarray(labels.astype(np.uint8)).save(
            self.out / "labels" / f"{name}.png"
        )
        self.items.append(ExportItem(name, image, labels))


def _labels(
    maps: Mapping[int, NDArray[np.float32]], image: NDArray[np.uint8]
) -> NDArray[Any]:
    return class_labels(maps, dict.fromkeys(maps), image, options=_OPTIONS)


def _mask(picture: _Picture, sources: Sequence[Sequence[Token]]) -> NDArray[np.bool_]:
    """Return the first class's pixels, with all of the image's classes looked for."""
    maps = class_maps(picture.trace, dict(enumerate(sources, 1)))
    found: NDArray[np.bool_] = _labels(maps, picture.image) == 1
    return found


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def colour_mask(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Separate the one colourful object of an image (H, W, 3) from a pale place.

    Otsu's threshold on the chroma (CIE Lab), the largest connected part, its holes
    filled. (H, W), 0 or 1.
    """
    lab = color.rgb2lab(image)
    chroma = filters.gaussian(np.hypot(lab[..., 1], lab[..., 2]), 0.7)
    mask = chroma > filters.threshold_otsu(chroma)
    parts = measure.label(opening(mask, disk(1)))
    if parts.max() > 0:
        mask = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    filled: NDArray[np.uint8] = binary_fill_holes(mask).astype(np.uint8)
    return filled
