"""How annotations of each format get another mask, go, or are added."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from napari_ovam.datasets.class_lists import whole
from napari_ovam.datasets.exporters.polygons import outlines
from napari_ovam.datasets.exporters.tools import cvat, datumaro, label_studio, labelme
from napari_ovam.datasets.importers.tools import cvat as read_cvat
from napari_ovam.datasets.importers.tools import datumaro as read_datumaro
from napari_ovam.datasets.importers.tools import label_studio as read_label_studio
from napari_ovam.datasets.importers.tools import labelme as read_labelme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_ovam.datasets.exporters.dataset import LabelClass
    from napari_ovam.datasets.exporters.tools.objects import Object
    from napari_ovam.datasets.importers.annotated import Annotated, AnnotationFile


@dataclass(frozen=True)
class Edits:
    """What can be done with the annotations of a format."""

    # Reads a file below a folder, by its place.
    read: Callable[[Path, str], AnnotationFile]
    # Gives a record the pixels of an object.
    set_mask: Callable[[Annotated, Any, Object], None]
    # Gives a record another class.
    set_class: Callable[[AnnotationFile, Any, LabelClass], None]
    # Returns the record of a new object, `order` above what lies above all others.
    make: Callable[[AnnotationFile, Annotated, Object, int], Any]
    # Makes what holds the records of a picture that has none.
    make_container: Callable[[Annotated], Any]
    unsure: bool = False  # whether there is a label for unsure pixels


def remove(about: Annotated, record: Any) -> None:
    """Take a record out of what holds it."""
    if isinstance(about.container, list):
        about.container[:] = [each for each in about.container if each is not record]
    else:
        about.container.remove(record)


# -- CVAT ----------------------------------------------------------------------------


def _mask_cvat(_: Annotated, record: Any, each: Object) -> None:
    record.tag = "mask"
    record.attrib.pop("points", None)
    cvat.set_mask(record, each)


def _class_cvat(file: AnnotationFile, record: Any, entry: LabelClass) -> None:
    """Name a class, which has to be a label of the task."""
    labels = file.content.find("meta//labels")
    names = [name.text for name in file.content.iterfind("meta//labels/label/name")]
    if labels is not None and entry.name not in map(str.strip, filter(None, names)):
        labels.append(cvat.encode_label(entry))
    record.set("label", entry.name)


def _make_cvat(file: AnnotationFile, _: Annotated, each: Object, order: int) -> Any:
    record = cvat.encode_mask(each)
    _class_cvat(file, record, each.entry)
    record.set("z_order", str(order))
    return record


# -- LabelMe -------------------------------------------------------------------------


def _mask_labelme(_: Annotated, record: Any, each: Object) -> None:
    labelme.set_mask(record, each)


def _class_labelme(_: AnnotationFile, record: Any, entry: LabelClass) -> None:
    record["label"] = entry.name


def _make_labelme(_: AnnotationFile, __: Annotated, each: Object, order: int) -> Any:
    del order  # the last one lies above
    return labelme.encode_shape(each)


# -- Label Studio --------------------------------------------------------------------


def _class_label_studio(_: AnnotationFile, record: Any, entry: LabelClass) -> None:
    value = record["value"]
    kinds = (record["type"], "labels", "brushlabels", "polygonlabels")
    value[next((k for k in kinds if k in value), record["type"])] = [entry.name]


def _mask_label_studio(about: Annotated, record: Any, each: Object) -> None:
    value = record["value"]
    if str(record["type"]).startswith("brush"):
        value["format"] = "rle"
        value["rle"] = label_studio.encode_result(each)["value"]["rle"]
        return
    # A polygon stays one: its control of the project draws nothing else.
    first, *others = outlines(each.whole())
    value["points"] = _percent(first, each)
    value.setdefault("closed", True)
    if others:
        meta = record.get("meta")
        meta = meta if isinstance(meta, dict) else {}
        record["meta"] = {**meta, "object": meta.get("object", record.get("id"))}
    for number, points in enumerate(others, start=2):
        part = copy.deepcopy(record)
        part["id"] = uuid5(NAMESPACE_URL, f"{record.get('id')}/{number}").hex[:10]
        part["value"]["points"] = _percent(points, each)
        about.container.append(part)


def _percent(points: Any, each: Object) -> list[list[float]]:
    height, width = each.size
    found: list[list[float]] = (points * (100 / width, 100 / height)).tolist()
    return found


def _make_label_studio(
    file: AnnotationFile, about: Annotated, each: Object, order: int
) -> Any:
    del order  # the last one lies above
    record = label_studio.encode_result(each, about.name)
    shapes = (s.record for p in (about, *file.pictures) for s in p.shapes)
    # A brush, where the project has one; else a polygon, as its other objects are.
    likes: dict[str, dict[str, Any]] = {}
    for shape in shapes:
        likes.setdefault(shape["type"], shape)
        if "brushlabels" in likes:
            break
    like = likes.get("brushlabels", likes.get("polygonlabels", record))
    record |= {key: like.get(key) for key in ("type", "from_name", "to_name")}
    if record["type"] == "polygonlabels":
        record["value"] = {"points": [], "polygonlabels": [each.entry.name]}
        _mask_label_studio(about, record, each)
    return record


def _container_label_studio(about: Annotated) -> Any:
    results: list[Any] = []
    about.record.setdefault("annotations", []).append({"result": results})
    return results


# -- Datumaro ------------------------------------------------------------------------


def _mask_datumaro(_: Annotated, record: Any, each: Object) -> None:
    record.pop("points", None)
    datumaro.set_mask(record, each)


def _class_datumaro(file: AnnotationFile, record: Any, entry: LabelClass) -> None:
    labels = file.content["categories"]["label"]["labels"]
    names = [str(label.get("name")).strip() for label in labels]
    if entry.name not in names:
        labels.append({"name": entry.name, "parent": "", "attributes": []})
        names.append(entry.name)
    record["label_id"] = names.index(entry.name)


def _make_datumaro(
    file: AnnotationFile, about: Annotated, each: Object, order: int
) -> dict[str, Any]:
    records = (record for record in about.container if isinstance(record, dict))
    ids = [whole(record.get("id")) or 0 for record in records]
    record = {"id": max(ids, default=-1) + 1, "type": "mask", "attributes": {}}
    record |= {"group": 0, "label_id": 0, "z_order": order}
    _class_datumaro(file, record, each.entry)
    datumaro.set_mask(record, each)
    return record


def _container_datumaro(about: Annotated) -> Any:
    about.record["annotations"] = []
    return about.record["annotations"]


EDITS = {
    "cvat": Edits(
        read_cvat.read,
        *(_mask_cvat, _class_cvat, _make_cvat),
        lambda about: about.record,
    ),
    "labelme": Edits(
        read_labelme.read,
        *(_mask_labelme, _class_labelme, _make_labelme),
        lambda about: about.record["shapes"],
        unsure=True,
    ),
    "label-studio": Edits(
        read_label_studio.read,
        *(_mask_label_studio, _class_label_studio, _make_label_studio),
        _container_label_studio,
    ),
    "datumaro": Edits(
        read_datumaro.read,
        *(_mask_datumaro, _class_datumaro, _make_datumaro),
        _container_datumaro,
    ),
}
"""By the name of the format."""
