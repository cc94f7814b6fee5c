"""Pictures that are planes of one stack: in time, in depth, or frames of a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STACK = "stack"
"""What the provenance of a sample calls it."""


@dataclass(frozen=True)
class Plane:
    """A picture of a stack.

    Attributes
    ----------
    id
        The same for all planes of one stack, and for those of no other.
    name
        Of the stack.
    at
        Which plane it is, along each axis that is not in the picture; from 0.
    shape
        How many planes there are along each.
    axes
        What the axes are called, such as "t".
    scale, translate, units
        Where the planes are in the world, along each axis.
    """

    id: str
    name: str
    at: tuple[int, ...]
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    scale: tuple[float, ...]
    translate: tuple[float, ...]
    units: tuple[str, ...]

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> Self | None:
        """Return what the provenance of a sample says; None where it is no plane."""
        found = provenance.get(STACK)
        try:
            fields: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list | tuple) else value
                for name, value in found.items()  # type: ignore[union-attr]
            }
            plane = cls(**fields)
            along = plane.at, plane.shape, plane.axes, plane.translate, plane.units
            known = bool(plane.at) and all(float(scale) for scale in plane.scale)
            inside = all(0 <= at < n for at, n in zip(plane.at, plane.shape))  # noqa: B905
            same = {len(each) for each in along} == {len(plane.scale)}
        except (AttributeError, TypeError, ValueError):
            return None  # none, or of a project.json that somebody wrote
        return plane if known and inside and same else None

    @classmethod
    def frame(cls, stack: str, name: str, number: int, count: int) -> Self:
        """Return a frame of a video, of which there are `count`."""
        along = (number,), (count,), ("t",), (1.0,), (0.0,), ("pixel",)
        return cls(stack, name, *along)

    def as_json(self) -> dict[str, Any]:
        """Return what `of` reads."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()
        }

    @property
    def ending(self) -> str:
        """What the names of its sample and files end with, such as "_t003"."""
        return "".join(
            f"_{axis}{at:0{max(3, len(str(n - 1)))}}"
            for axis, at, n in zip(self.axes, self.at, self.shape, strict=True)
        )

    @property
    def place(self) -> tuple[float, ...]:
        """Where it is in the world, along each axis."""
        each = zip(self.at, self.scale, self.translate, strict=True)
        return tuple(at * scale + start for at, scale, start in each)

    def nearest(self, place: Sequence[float]) -> tuple[int, ...]:
        """Return the plane of the stack at a place; it may be outside of it."""
        each = zip(place, self.scale, self.translate, strict=True)
        return tuple(round((x - start) / scale) for x, scale, start in each)
