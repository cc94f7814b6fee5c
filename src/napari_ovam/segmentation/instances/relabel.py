"""Find instances in labels, and keep their ids when the labels are edited."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.measure import label as connected
from skimage.segmentation import watershed

from napari_ovam.base.ids import IGNORE
from napari_ovam.segmentation.instances import InstanceError, Instances, check_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def find_instances(labels: NDArray[Any]) -> Instances:
    """Make each connected part of a class an instance.

    Parameters
    ----------
    labels
        (H, W) class ids; 0 and 255 (unsure) belong to no instance.

    Raises
    ------
    InstanceError
        If they are no (H, W) integers, or there are more than 65535 parts.
    """
    shape = np.shape(labels)
    empty = Instances(np.zeros(shape, np.int32), {}) if len(shape) == 2 else None
    if empty is None:
        raise InstanceError(f"labels have the shape {shape}: give (H, W)")
    return follow_labels(empty, labels)


def follow_labels(instances: Instances, labels: NDArray[Any]) -> Instances:
    """Return the instances after the labels were edited.

    A pixel whose class is still that of its instance stays in it. Pixels that a class
    gained join the instance of that class that they are connected to, the nearest
    one; where there is none they are a new instance. Instances that a stroke
    connects become one, with the id of the larger, unless they touched before: what a
    person split stays split. What erasing cuts apart are several instances, and the
    largest keeps the id; parts that a person merged stay one.

    Parameters
    ----------
    instances
        As they were.
    labels
        (H, W) class ids as they are now, of the same size.

    Raises
    ------
    InstanceError
        If the sizes differ, `labels` are no integers, or ids run out.
    """
    labels = np.asarray(labels)
    if labels.shape != instances.ids.shape or not np.issubdtype(
        labels.dtype, np.integer
    ):
        raise InstanceError(
            f"the labels are {labels.shape} {labels.dtype} and the instances "
            f"{instances.ids.shape}: give integers of that size"
        )
    wanted = np.where(labels == IGNORE, 0, labels).astype(np.int32)
    old = instances.ids
    parts = _parts(old)
    kept = np.where(instances.labels() == wanted, old, 0)
    kept = _adopt_recoloured(kept, old, wanted)
    pieces = _pieces(kept, wanted, _touching(old))
    return _name_pieces(pieces, wanted, old, parts, instances.last)


def replace_classes(instances: Instances, changes: Mapping[int, int]) -> Instances:
    """Return the instances after classes became others, or background (0).

    Those that were apart stay apart, in their new class.

    Parameters
    ----------
    instances
        As they were.
    changes
        The new id of each class that has one.
    """
    classes = {i: changes.get(c, c) for i, c in instances.classes.items()}
    gone = [i for i, c in classes.items() if c == 0]
    ids = np.where(np.isin(instances.ids, gone), 0, instances.ids).astype(np.int32)
    return Instances(ids, {i: c for i, c in classes.items() if c}, instances.last)


def _parts(ids: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the connected parts of equal ids, counted from 1; 0 stays 0."""
    parts: NDArray[np.int64] = connected(ids, connectivity=2, background=0)
    return parts


def _touching(ids: NDArray[np.int32]) -> set[tuple[int, int]]:
    """Return the pairs (smaller, larger) of instances that touch, corners included."""
    pairs: set[tuple[int, int]] = set()
    whole, cut, shifted = slice(None), slice(None, -1), slice(1, None)
    for a, b in (
        (ids[cut, whole], ids[shifted, whole]),
        (ids[whole, cut], ids[whole, shifted]),
        (ids[cut, cut], ids[shifted, shifted]),
        (ids[cut, shifted], ids[shifted, cut]),
    ):
        different = (a != b) & (a > 0) & (b > 0)
        low, high = np.minimum(a, b)[different], np.maximum(a, b)[different]
        found = np.unique(np.stack([low, high], 1), axis=0)
        pairs |= {(int(i), int(j)) for i, j in found.tolist()}
    return pairs


def _adopt_recoloured(
    kept: NDArray[np.int32], old: NDArray[np.int32], wanted: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Keep the ids of instances that have another class as a whole now.

    Not where they are connected to an instance that had that class before: there a
    person painted over what was wrong.
    """
    lost = np.setdiff1d(np.unique(old), np.unique(kept))
    if not len(lost):
        return kept
    components = connected(wanted, connectivity=2, background=0)
    joined = np.isin(components, np.unique(components[kept > 0]))
    kept = kept.copy()
    for number in lost.tolist():
        inside = (old == number) & (wanted > 0) & ~joined
        if inside.any():
            most = int(np.bincount(wanted[inside]).argmax())
            kept[inside & (wanted == most)] = number
    return kept


def _pieces(
    kept: NDArray[np.int32],
    wanted: NDArray[np.int32],
    touched: set[tuple[int, int]],
) -> NDArray[np.int64]:
    """Divide the labels into connected pieces that hold one instance each."""
    components = connected(wanted, connectivity=2, background=0)
    seeds = _parts(kept)
    owner = np.zeros(int(seeds.max()) + 1, np.int64)
    owner[seeds.ravel()] = kept.ravel()
    within: dict[int, list[int]] = {}
    for component, seed, _ in _overlaps(components, seeds):
        within.setdefault(component, []).append(seed)
    group = np.zeros(len(owner), np.int64)  # of each seed: its piece
    count = 0
    alone: list[int] = []
    for component in range(1, int(components.max()) + 1):
        inside = within.get(component, [])
        numbers = {int(owner[seed]) for seed in inside}
        split = any((a, b) in touched for a in numbers for b in numbers if a < b)
        if not inside:
            alone.append(component)
        elif not split:
            count += 1
            group[inside] = count
        else:
            for number in sorted(numbers):
                count += 1
                group[[seed for seed in inside if owner[seed] == number]] = count
    pieces: NDArray[np.int64] = group[seeds]
    table = np.zeros(int(components.max()) + 1, np.int64)
    table[alone] = np.arange(count + 1, count + 1 + len(alone))
    pieces = np.where(table[components] > 0, table[components], pieces)
    # What a class gained joins what it is connected to: its parts do not touch.
    for class_id in np.unique(wanted[(wanted > 0) & (pieces == 0)]).tolist():
        inside = wanted == class_id
        grown = watershed(
            np.zeros(wanted.shape),
            np.where(inside, pieces, 0),
            connectivity=2,
            mask=inside,
        )
        pieces[inside] = grown[inside]
    return pieces


def _name_pieces(
    pieces: NDArray[np.int64],
    wanted: NDArray[np.int32],
    old: NDArray[np.int32],
    parts: NDArray[np.int64],
    last: int,
) -> Instances:
    """Give each piece the id that it inherits, or a new one.

    The heir of an old part is the piece that overlaps it most. A piece takes the id
    that it is heir of with the largest overlap.
    """
    count = int(pieces.max(initial=0))
    class_of = np.zeros(count + 1, np.int64)
    class_of[pieces.ravel()] = wanted.ravel()
    owner = np.zeros(int(parts.max(initial=0)) + 1, np.int64)
    owner[parts.ravel()] = old.ravel()
    best: dict[int, tuple[int, int]] = {}  # of each old part: (pixels, piece)
    for piece, part, overlap in _overlaps(pieces, parts):
        if overlap > best.get(part, (0, 0))[0]:
            best[part] = overlap, piece
    claims: dict[int, Counter[int]] = {}
    for part, (overlap, piece) in best.items():
        claims.setdefault(piece, Counter())[int(owner[part])] += overlap
    table = np.zeros(count + 1, np.int32)
    classes: dict[int, int] = {}
    # The surest first: parts of one instance may have different classes by now.
    for piece in sorted(claims, key=lambda p: -max(claims[p].values())):
        number, _ = max(claims[piece].items(), key=lambda item: (item[1], -item[0]))
        if classes.setdefault(number, int(class_of[piece])) == class_of[piece]:
            table[piece] = number
    for piece in dict.fromkeys(pieces.ravel().tolist()):
        if piece and not table[piece]:
            last += 1
            table[piece] = last
            classes[last] = int(class_of[piece])
    return Instances(table[pieces], classes, check_count(last))


def _overlaps(a: NDArray[Any], b: NDArray[Any]) -> list[tuple[int, int, int]]:
    """Return (of a, of b, pixels) for what overlaps, without 0, in their order."""
    inside = (a > 0) & (b > 0)
    width = int(b.max(initial=0)) + 1
    keys, pixels = np.unique(
        a[inside].astype(np.int64) * width + b[inside], return_counts=True
    )
    both = zip(keys.tolist(), pixels.tolist(), strict=True)
    return [(key // width, key % width, count) for key, count in both]
