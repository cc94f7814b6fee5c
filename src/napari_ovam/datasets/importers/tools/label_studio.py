"""Label Studio: a JSON of tasks ("JSON", not "JSON-MIN") or several.

Brush masks and polygons are read; pictures are beside or below the files.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from napari_ovam.datasets.class_lists import ListedClass, plain
from napari_ovam.datasets.exporters.tools.label_studio import decode_result
from napari_ovam.datasets.importers.annotated import (
    Annotated,
    AnnotationFile,
    draw_outline,
    parse_color,
    read_json,
    read_xml,
)
from napari_ovam.datasets.importers.named_pictures import path_of, read_size
from napari_ovam.datasets.importers.search import PICTURES
from napari_ovam.datasets.importers.shapes import Size, exact
from napari_ovam.datasets.importers.source import ImportSourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CONFIG = "label_config.xml"
"""The labels of a project with their colours: Label Studio's JSON has none."""

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")
_WHOLE = ("choices", "textarea", "rating", "number", "taxonomy", "datetime", "pairwise")
_MASKS = ("brushlabels", "polygonlabels", "brush", "polygon")


def read(root: Path, place: str) -> AnnotationFile:
    """Read a JSON of tasks.

    It raises `ImportSourceError` if it is none.
    """
    content = read_json(root / place)
    tasks = content if isinstance(content, list) else [content]
    if not tasks or not all(_is_task(task) for task in tasks):
        raise ImportSourceError(
            "it is no list of tasks, each with data and annotations (export as JSON, "
            "not as JSON-MIN)"
        )
    file = AnnotationFile(place, content)
    labels = {entry.name: entry for entry in _read_config((root / place).parent, file)}
    guessed = []
    for number, task in enumerate(tasks, start=1):
        which = str(task.get("id", f"#{number}"))
        name = _picture_of(task)
        if not name:
            file.problems.append(f"task {which} names no picture")
            continue
        about = Annotated(_find_upload(root / place, name), record=task)
        results, predicted = _results(task, about)
        if predicted:
            guessed.append(which)
        _take(results, about, labels)
        file.pictures.append(about)
    if guessed:
        file.notes.append(
            f"{len(guessed)} tasks of {place} have predictions and no annotations: the "
            "predictions are taken"
        )
    file.classes = list(labels.values())
    return file


def _is_task(task: Any) -> bool:
    return (
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and isinstance(task.get("annotations", task.get("predictions")), list)
    )


def _read_config(folder: Path, file: AnnotationFile) -> Iterator[ListedClass]:
    """Yield the classes of the label config beside a JSON."""
    if not (folder / CONFIG).is_file():
        return
    try:
        tree = read_xml(folder / CONFIG)
    except ImportSourceError as error:
        file.problems.append(f"{CONFIG} is not read: {error}")
        return
    for kind in ("BrushLabels", "PolygonLabels"):
        for label in tree.iterfind(f".//{kind}/Label"):
            if name := (label.get("value") or "").strip():
                color = parse_color(label.get("background"))
                yield ListedClass(plain(name), color=color)


def _picture_of(task: dict[str, Any]) -> str:
    """Return what a task calls its picture, as a path; "" if it names none."""
    data = task["data"]
    keys = sorted(data, key=lambda key: key not in ("image", "img", "picture"))
    texts = [data[key] for key in keys if isinstance(data[key], str)]
    for text in texts:
        path = _path_of(text)
        if any(path.lower().endswith(ending) for ending in PICTURES):
            return path
    return (
        _path_of(texts[0]) if texts and keys[0] in ("image", "img", "picture") else ""
    )


def _path_of(text: str) -> str:
    """Return the path of a picture in what a task says of it."""
    if local := re.search(r"local-files/?\?(?:.*&)?d=([^&]+)", text):
        return path_of(unquote(local[1]))
    if text.startswith("/data/"):  # an address of the server, with quoted signs
        text = unquote(re.sub(r"[?#].*", "", text))
        return path_of(text.removeprefix("/data/upload/").removeprefix("/data/"))
    return path_of(text) if text.strip() else ""


def _find_upload(json: Path, name: str) -> str:
    """Return the name of an uploaded picture without the mark that uploading adds.

    As it stands where a picture of that name lies beside or in `images`.
    """
    folder, _, last = name.rpartition("/")
    if not _UPLOAD.match(last):
        return name
    for near in (json.parent, json.parent / "images"):
        if (near / last).is_file() or (near / name).is_file():
            return name
    plain_name = _UPLOAD.sub("", last, count=1)
    # the folder of an upload is the number of a project
    return plain_name if folder.isdigit() or not folder else f"{folder}/{plain_name}"


def _results(
    task: dict[str, Any], about: Annotated
) -> tuple[list[dict[str, Any]], bool]:
    """Return the results of a task, and whether they are predictions."""
    made = [a for a in task.get("annotations") or () if isinstance(a, dict)]
    made = [a for a in made if not a.get("was_cancelled")]
    predicted = not made
    if predicted:
        made = [p for p in task.get("predictions") or () if isinstance(p, dict)]
    if not made:
        return [], False
    if len(made) > 1:
        about.problems.append(
            f"{len(made)} {'predictions' if predicted else 'annotations'}: the one "
            "marked as ground truth is taken, else the last one"
        )
    chosen = max(
        enumerate(made),
        key=lambda pair: (
            bool(pair[1].get("ground_truth")),
            str(pair[1].get("updated_at") or ""),
            pair[0],
        ),
    )[1]
    results = chosen.get("result")
    about.container = results if isinstance(results, list) else None
    return about.container or [], predicted


def _take(
    results: Sequence[dict[str, Any]], about: Annotated, labels: dict[str, ListedClass]
) -> None:
    """Add the results of a picture to its shapes."""
    turned = 0
    # Where one region has a brush and labels of their own, the id joins them.
    named = {
        result.get("id"): name
        for result in results
        if isinstance(result, dict) and (name := _label_of(result))
    }
    for number, result in enumerate(results, start=1):
        if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
            about.others["results of another kind"] += 1
            continue
        kind = result.get("type")
        if kind not in _MASKS:
            if not (kind == "labels" and result.get("id") in named):
                counts = about.whole if kind in _WHOLE else about.others
                counts[f"results of the kind {str(kind)[:40]!r}"] += 1
            continue
        sides = (result.get(f"original_{side}") for side in ("height", "width"))
        about.size = about.size or read_size(*sides)
        name = _label_of(result) or named.get(result.get("id"))
        if name is not None and result.get("image_rotation"):
            turned += 1
            continue
        brush, meta = kind.startswith("brush"), result.get("meta")
        about.add(
            name,
            result.get("id", f"#{number}"),
            partial(exact(decode_result) if brush else draw_percent, result),
            labels=labels,
            # the object of which it is a part, as we write those of several
            group=meta.get("object") if isinstance(meta, dict) else None,
            record=result,
        )
    if turned:
        about.problems.append(f"{turned} masks of a turned picture are left out")


def _label_of(result: dict[str, Any]) -> str | None:
    value = result.get("value")
    for kind in ("brushlabels", "polygonlabels", "labels"):
        names = value.get(kind) if isinstance(value, dict) else None
        if isinstance(names, list) and names:
            try:
                return plain(names[0])
            except ValueError:
                return None
    return None


def draw_percent(
    result: dict[str, Any], size: Size
) -> tuple[NDArray[np.bool_], Sequence[str]]:
    """Return the mask of a polygon in percent of the sides."""
    points = np.array(result["value"].get("points"), float)
    if points.shape[-1:] == (2,):
        # Rounded, as shares of 100 are not exact, and a border may run between pixels.
        points = (points * (size[1] / 100, size[0] / 100)).round(6)
    return draw_outline(points, size)
