"""The benchmark's scenes and their traces."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image

from napari_ovam import (
    GenerationSettings,
    Trace,
    TraceSettings,
    generate,
    labels_to_target,
    load_trace,
    save_trace,
    trace_image,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).parent
WORK = HERE / "work"
GENERATED = HERE / "generated.zip"


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture (128, 128, 3) with masks of its classes that no map had a part in.

    A generated one has its prompt and seed; a composed one has none.
    """

    number: int
    split: str
    background: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    classes: dict[str, int]
    prompt: str = ""
    seed: int = 0

    def mask(self, name: str) -> NDArray[np.uint8]:
        return labels_to_target(self.labels, self.classes[name])


@dataclass(frozen=True)
class Kind:
    """How a scene is traced; what is left out is the program's default.

    `calls`, of a generated scene, are those that are used: their places, 0 to 1, in the
    order of denoising. Empty for all.
    """

    noise_level: int = 100
    noise_seeds: int = 3
    prompted: bool = False
    branch: Literal["uncond", "cond"] = "uncond"
    calls: tuple[float, ...] = ()

    def folder(self, scene: Scene) -> str:
        if scene.prompt:
            return f"generated-{self.branch}"
        parts = [f"t{self.noise_level}", f"n{self.noise_seeds}"]
        parts += ["prompted"] * self.prompted
        return "-".join(parts)

    def make(self, pipe: Any, scene: Scene) -> Trace:
        if scene.prompt:
            keep = TraceSettings(branch=self.branch, layers=None, calls=None)
            made = generate(
                pipe, GenerationSettings(scene.prompt, seed=scene.seed), trace=keep
            )
            worst = np.abs(made.image.astype(int) - scene.image).max()
            if worst > 3:  # rounding differs between machines, pictures do not
                raise RuntimeError(f"scene {scene.number} came out otherwise: {worst}")
            return made.trace
        return trace_image(
            pipe,
            scene.image,
            prompt=" and ".join(f"a {n}" for n in scene.classes) * self.prompted,
            trace=TraceSettings(layers=None, self_attention=True),
            noise_level=self.noise_level,
            noise_seeds=self.noise_seeds,
        ).trace


PLAIN = Kind()


@dataclass(frozen=True)
class Data:
    """The scenes and their traces, which are made once and kept on disk."""

    pipe: Any
    key: str
    scenes: tuple[Scene, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({name for scene in self.scenes for name in scene.classes}))

    def of(self, split: str, name: str | None = None) -> list[Scene]:
        """Return the scenes of a split, those that hold a class if one is named.

        Scenes with two objects come first: a token learns from the other object what
        the class is not.
        """
        found = [s for s in self.scenes if s.split == split]
        if name is not None:
            found = [s for s in found if name in s.classes]
        return sorted(found, key=lambda s: -len(s.classes))

    def trace(self, scene: Scene, kind: Kind = PLAIN) -> Trace:
        """Return a scene's trace in float32."""
        folder = WORK / self.key / kind.folder(scene)
        path = folder / f"{scene.number:03d}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_trace(kind.make(self.pipe, scene), path)
        trace = load_trace(path)
        if scene.prompt and kind.calls:
            last = len(trace.calls) - 1
            chosen = [trace.calls[round(place * last)] for place in kind.calls]
            trace = trace.select(calls=chosen)
        return trace.to("cpu", torch.float32)


def read_scenes(path: Path = HERE / "scenes.zip") -> tuple[Scene, ...]:
    def picture(archive: zipfile.ZipFile, name: str) -> NDArray[np.uint8]:
        return np.array(Image.open(io.BytesIO(archive.read(name))))

    with zipfile.ZipFile(path) as archive:
        return tuple(
            Scene(
                number,
                entry["split"],
                entry["background"],
                picture(archive, f"{number:03d}.image.png"),
                picture(archive, f"{number:03d}.labels.png"),
                entry["classes"],
                entry.get("prompt", ""),
                entry["seed"],
            )
            for number, entry in enumerate(json.loads(archive.read("scenes.json")))
        )


def weights_hash(pipe: Any) -> str:
    """Return a fingerprint of all weights: traces of another model are no use."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (pipe.text_encoder, pipe.unet, pipe.vae):
        for weight in part.state_dict().values():
            digest.update(weight.float().cpu().numpy().tobytes())
    return digest.hexdigest()
