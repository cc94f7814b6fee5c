"""The plan of a dataset: all that decides what its items become, in one file.

    plan.json     shards/NUMBER.json     shards/NUMBER/NAME.png ...

An item is a prompt with a seed, or a picture. It is known by a hash of all that makes
it, and its noise comes of its prompt, seed and settings alone: whatever worker makes
it, in whatever order, it is the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from napari_ovam import __version__
from napari_ovam.base.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

PLAN = "plan.json"
FORMAT = 1


class PlanError(ValueError):
    """A plan that cannot be made, read or gone on with; the message says why."""


@dataclass(frozen=True)
class Filters:
    """What makes an image rejected; None leaves a filter out. Scores are kept anyway.

    Attributes
    ----------
    blank
        The share of its pixels that have nearly one colour, from which it is blank.
    area
        Percentiles of the area of a class over all images, in per cent.
    presence
        As `segmentation.presence.ABSENT`: the least of each class.
    agreement
        The least IoU of a class by two looks.
    unsure
        The doubtful pixels for each labelled one, from which labels are not believed.
    clip
        The least cosine of image and prompt, by `clip_model`.
    """

    blank: float | None = 0.98
    area: tuple[float, float] | None = (5.0, 95.0)
    presence: float | None = 0.95
    agreement: float | None = 0.75
    unsure: float | None = 0.4
    clip: float | None = None

    def __post_init__(self) -> None:
        # Of a plan nothing can be changed later: it would end in an error at night.
        if self.area is not None and not 0 <= self.area[0] < self.area[1] <= 100:
            raise PlanError(
                f"the filter area is {self.area}: give two percentiles of 0 to 100, "
                "the smaller first"
            )


@dataclass(frozen=True)
class PlannedClass:
    """A class as it is looked for: with what finds it, and from which probability."""

    id: int
    name: str
    phrase: str
    source: str
    threshold: float | None
    file: str = ""  # of its token
    token: str = ""  # the SHA-256 of its token's rows


@dataclass(frozen=True)
class PlannedPrompt:
    """A prompt, and the ids of the classes that it names.

    Only these are looked for in its images; all, if it names none.
    """

    text: str
    negative: str
    classes: tuple[int, ...]


_NOTHING = PlannedPrompt("", "", ())


@dataclass(frozen=True)
class Picture:
    """A picture that exists: its path in the plan's `folder`, and its SHA-256."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Item:
    """What becomes one image: a prompt with a seed, or a picture.

    Attributes
    ----------
    number
        Its place in the plan.
    key
        The SHA-256 of all that makes it.
    seed
        Of its noise.
    """

    number: int
    key: str
    prompt: PlannedPrompt
    seed: int
    picture: Picture | None = None

    @property
    def name(self) -> str:
        """What its sample is called."""
        return f"{self.number:06d}-{self.key[:10]}"


@dataclass(frozen=True)
class Plan:
    """All that decides a dataset.

    Attributes
    ----------
    model, folder
        Where the model and pictures are: these may move. What they hold counts.
    model_hash, text_encoder
        From `diffusion.weights_hash.model_hash` and `text_encoder_hash`.
    dtype
        As for `load_pipeline`.
    settings
        Of `GenerationSettings`, without prompt and seed.
    classes, prompts, seeds, pictures
        Items are all prompts with the first seed, then with the next; or pictures.
    quotas
        How many images are to be kept of a class, by its id. Empty keeps all.
    densities
        How many are to be kept with so many classes. Empty keeps all.
    filters
        What is rejected.
    clip_model, clip_hash
        A folder of a CLIP model, or "", and the fingerprint of its weights.
    agreement
        Which two looks are compared: "thresholds" or "calls".
    shard, batch
        Items of a shard, and images that are made at once.
    program
        The version that made the plan; a worker has the same.
    """

    model: str
    model_hash: str
    dtype: str
    settings: Mapping[str, Any]
    classes: tuple[PlannedClass, ...]
    prompts: tuple[PlannedPrompt, ...] = ()
    seeds: tuple[int, ...] = (0,)
    folder: str = ""
    pictures: tuple[Picture, ...] = ()
    quotas: Mapping[int, int] = field(default_factory=dict)
    densities: Mapping[int, int] = field(default_factory=dict)
    filters: Filters = field(default_factory=Filters)
    text_encoder: str = ""
    clip_model: str = ""
    clip_hash: str = ""
    agreement: str = "calls"
    shard: int = 32
    batch: int = 1
    program: str = __version__

    def __len__(self) -> int:
        return len(self.pictures) or len(self.prompts) * len(self.seeds)

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of all that decides a result, in hexadecimal."""
        return _hash(_decisive(self.to_json()))

    @cached_property
    def _basis(self) -> str:
        """What all items have in common."""
        of = ("model_hash", "dtype", "settings", "clip_hash", "agreement", "program")
        content = self.to_json()
        return _hash({key: content[key] for key in of})

    @cached_property
    def by_id(self) -> dict[int, PlannedClass]:
        """The classes by their ids."""
        return {entry.id: entry for entry in self.classes}

    def prompt(self, number: int) -> PlannedPrompt:
        """Return the prompt of an item by its place; an empty one for a picture."""
        return self.prompts[number % len(self.prompts)] if self.prompts else _NOTHING

    def item(self, number: int) -> Item:
        """Return an item by its place."""
        prompt, picture = self.prompt(number), None
        if self.pictures:
            picture = self.pictures[number]
            made_of: list[Any] = [picture.sha256]
        else:
            seed = self.seeds[number // len(self.prompts)]
            made_of = [prompt.text, prompt.negative, seed, dict(self.settings)]
        noise = int(_hash([self.model_hash, *made_of])[:15], 16)
        sources = [asdict(self.by_id[i]) for i in self.looked_for(prompt)]
        key = _hash([self._basis, *made_of, sources])
        return Item(number, key, prompt, noise, picture)

    def looked_for(self, prompt: PlannedPrompt) -> tuple[int, ...]:
        """Return the ids of the classes that are looked for in a prompt's images."""
        return prompt.classes or tuple(self.by_id)

    def items(self, numbers: Iterable[int]) -> list[Item]:
        """Return items by their places."""
        return [self.item(number) for number in numbers]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        content = {"format": FORMAT} | {
            f.name: getattr(self, f.name) for f in fields(self)
        }
        content |= {"settings": dict(self.settings), "seeds": list(self.seeds)}
        content["filters"] = asdict(self.filters)
        content["classes"] = [asdict(entry) for entry in self.classes]
        content["prompts"] = [[p.text, p.negative, p.classes] for p in self.prompts]
        content["pictures"] = [[p.file, p.sha256] for p in self.pictures]
        for name in ("quotas", "densities"):
            counts = getattr(self, name)
            content[name] = {str(i): counts[i] for i in sorted(counts)}
        return content

    def save(self, folder: Path) -> None:
        """Write the plan to a folder."""
        content = {"hash": self.hash, **self.to_json()}
        with replacing(folder / PLAN) as temporary:
            temporary.write_text(json.dumps(content, indent=0), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the plan of a folder.

        It raises `PlanError` if there is none, it is damaged or was changed by hand, or
        another version of the program made it.
        """
        path = folder / PLAN
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            stored, kind = content.pop("hash"), content.pop("format")
            if kind != FORMAT:
                raise PlanError(
                    f"{path} is of another version of the program "
                    f"({content.get('program')}), this is {__version__}"
                )
            plan = cls._of(content)
        except FileNotFoundError:
            raise PlanError(
                f"there is no plan in {folder}: 'napari-ovam dataset plan' makes one"
            ) from None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"{path} is damaged ({error!r}): plan again") from error
        if plan.hash != stored:
            raise PlanError(
                f"{path} was changed since it was made: what is done of it was made by "
                "the old one. Plan again, in another folder"
            )
        return plan

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Self:
        filters = content["filters"]
        if filters["area"] is not None:
            filters["area"] = tuple(filters["area"])
        counts = {
            name: {int(i): n for i, n in content[name].items()}
            for name in ("quotas", "densities")
        }
        return cls(
            **{
                **content,
                **counts,
                "filters": Filters(**filters),
                "classes": tuple(PlannedClass(**c) for c in content["classes"]),
                "prompts": tuple(
                    PlannedPrompt(text, negative, tuple(classes))
                    for text, negative, classes in content["prompts"]
                ),
                "pictures": tuple(Picture(*each) for each in content["pictures"]),
                "seeds": tuple(content["seeds"]),
            }
        )

    def differences(self, other: Plan) -> list[str]:
        """Return the names of what decides a result and differs in another plan."""
        mine, theirs = _decisive(self.to_json()), _decisive(other.to_json())
        return [name for name in mine if _hash(mine[name]) != _hash(theirs[name])]


def _decisive(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a result: not where models and pictures are."""
    places = ("model", "folder", "clip_model")
    return {name: value for name, value in content.items() if name not in places}


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return sha256(text.encode()).hexdigest()
