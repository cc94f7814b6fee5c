"""Where the mouse is on a layer of instances, and what a line cuts."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Labels

    from napari_ovam.segmentation.instances import Instances

Place = tuple[float, float]  # row, column
_LINE = 65_535  # what a line is drawn with while the mouse is down


def place_of(layer: Labels, event: Any) -> Place:
    """Return where a mouse event is."""
    row, column = layer.world_to_data(event.position)
    return float(row), float(column)


def _along(start: Place, end: Place, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the pixels (rows, columns) of a line that are in an image."""
    from skimage.draw import line

    corners = [round(v) for v in (*start, *end)]
    rows, columns = line(*corners)
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return rows[inside], columns[inside]


def draw_line(layer: Labels, start: Place, end: Place) -> None:
    """Draw a line on the layer until it is shown anew."""
    layer.data[_along(start, end, layer.data.shape)] = _LINE
    layer.refresh()


def object_at(instances: Instances, place: Place) -> int:
    """Return the instance at a place; 0 where there is none."""
    row, column = (round(value) for value in place)
    height, width = instances.ids.shape
    if not (0 <= row < height and 0 <= column < width):
        return 0
    return int(instances.ids[row, column])


def cut_by_line(
    instances: Instances, places: Sequence[Place], classes: set[int]
) -> Instances:
    """Cut the instance of some classes that a line crosses most of all it can cut.

    Raises
    ------
    InstanceError
        If there is none.
    """
    from napari_ovam.segmentation.instances import InstanceError, split_by_line

    crossed: Counter[int] = Counter()
    for start, end in pairwise(places):
        pixels = instances.ids[_along(start, end, instances.ids.shape)]
        crossed.update(int(number) for number in pixels)
    numbers = [
        n for n, _ in crossed.most_common() if instances.classes.get(n) in classes
    ]
    if not numbers:
        raise InstanceError("the line crosses no object: draw it across one")
    first: InstanceError | None = None
    for number in numbers:
        try:
            return split_by_line(instances, number, places)
        except InstanceError as error:
            first = first or error
    raise first or InstanceError("the line cuts nothing")
