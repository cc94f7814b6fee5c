"""Instances on the disk: `instances/NAME.png` in a project folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_ovam.images.files import ImageFileError
from napari_ovam.images.png import read_ids, write_png
from napari_ovam.segmentation.instances import Instances, check_count
from napari_ovam.segmentation.instances.relabel import follow_labels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def instances_path(folder: Path, name: str) -> Path:
    """Return the file of an image's instances in a project folder."""
    return folder / "instances" / f"{name}.png"


def save_instances(folder: Path, name: str, instances: Instances) -> Path:
    """Write instances as `instances/NAME.png` of a project folder.

    16-bit grey, with the class of each instance in the PNG's text.

    Raises
    ------
    InstanceError
        If an id is above 65535.
    OSError
        If it cannot be written.
    """
    check_count(instances.last)
    path = instances_path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    classes = {str(number): c for number, c in sorted(instances.classes.items())}
    about = {"classes": classes, "last": instances.last}
    write_png(path, instances.ids.astype(np.uint16), {"instances": about})
    return path


def load_instances(
    folder: Path, name: str, labels: NDArray[Any] | None = None
) -> Instances | None:
    """Read instances of a project folder; None if there are none.

    Parameters
    ----------
    folder, name
        As for `save_instances`.
    labels
        The labels of the image as they are now: what is returned follows them, since
        they may have been saved later.

    Raises
    ------
    ImageFileError
        If the file is broken.
    InstanceError
        If it is of another size than the labels.
    """
    path = instances_path(folder, name)
    if not path.is_file():
        return None
    ids = read_ids(path).astype(np.int32)
    try:
        about = _read_about(path)["instances"]
        classes = {int(i): int(c) for i, c in about["classes"].items()}
        instances = Instances(ids, classes, int(about["last"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ImageFileError(
            f"{path} does not say what its instances are: {error}"
        ) from None
    return instances if labels is None else follow_labels(instances, labels)


def _read_about(path: Path) -> dict[str, Any]:
    with Image.open(path) as picture:
        text = picture.info.get("ovam")
    content = json.loads(text) if isinstance(text, str) else None
    if not isinstance(content, dict):
        raise TypeError("it has no text of this program")
    return content
