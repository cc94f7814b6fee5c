"""Data sets of other programs become samples of a project."""

from __future__ import annotations

import posixpath
import unicodedata
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.ids import IGNORE
from napari_ovam.base.names import safe_name
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.datasets.class_lists import add_classes
from napari_ovam.datasets.importers import ImportSourceError
from napari_ovam.datasets.importers.shapes import number_objects
from napari_ovam.datasets.importers.source import UPRIGHT
from napari_ovam.datasets.returning.kept import Keeper
from napari_ovam.project.references import Reference
from napari_ovam.segmentation.instances import Instances
from napari_ovam.segmentation.instances.files import instances_path, save_instances

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_ovam.datasets.importers import Masks, Picture, Source
    from napari_ovam.project import Project, Sample

_MOST_INSTANCES = 65_535
_DECIDED = ("edited", "accepted", "rejected")
_ORIGIN = ("format", "from", "path", "sha256")
_LOSSY = (".jpg", ".jpeg", ".webp")
_NEAR = 8  # mean difference, of 255, that a JPEG of a picture may have


@dataclass(frozen=True)
class ImportReport:
    """What an import did."""

    labelled: tuple[str, ...]  # names of the samples that got labels
    added: tuple[str, ...]  # those of them whose image is new
    # Names of samples that were there already and are left as they are, and why.
    kept: Mapping[str, str]
    # Pictures that could not be imported, by their paths in the data set, and why.
    failed: Mapping[str, str]
    # What was not understood of the others and of the data set itself, by the paths of
    # pictures and files.
    skipped: Mapping[str, tuple[str, ...]]
    new_classes: tuple[str, ...]  # names of classes that were added
    # Sentences: what was taken for what, classes that have another id here.
    notes: tuple[str, ...]


def import_masks(
    project: Project,
    source: Source,
    *,
    overwrite: bool = False,
    by_reference: bool = False,
    progress: Progress = no_progress,
) -> ImportReport:
    """Import the pictures and masks of a data set.

    Classes are matched by name; new ones keep their id where it is free. A picture is
    known again by its path in the data set and its pixels, and taken for a sample of
    its name that came otherwise only if it shows the same. Labels become "edited", as
    a person made them; proposals are replaced.

    It raises `ClassError` if there are more classes than ids; `OSError` if the project
    cannot be written.

    Parameters
    ----------
    project, source
        From `Project.open` and `open_source`.
    overwrite
        Replace labels that a person edited, accepted or rejected as well.
    by_reference
        Leave new pictures where they are, and point at them; those that are no files
        are copied all the same.
    progress
        Called with (pictures done, all pictures); may raise `Cancelled`. What was
        imported before that stays.
    """
    with project.writing():
        listed = add_classes(project.classes, source.classes)
        project.save()
    own_ids = [listed.ids[c.name] for c in source.classes]
    table = np.array([0, *own_ids, IGNORE], "u2")  # by place; the last: `UNSURE`, -1
    keeper = Keeper(project.path, source, own_ids)
    left_in = source if by_reference else None
    labelled: list[str] = []
    added: list[str] = []
    kept: dict[str, str] = {}
    failed: dict[str, str] = {}
    skipped = defaultdict(list, {k: list(v) for k, v in source.problems.items()})
    notes = [*source.notes, *listed.conflicts]
    pictures = _told_apart(source.pictures, failed)
    names = sample_names(picture.path for picture in pictures)
    here = _find_samples(project, pictures, failed)
    for done, picture in enumerate(pictures):
        progress(done, len(pictures))
        name = here.get(picture.path)
        if picture.path in failed:
            continue
        if name is not None and (why := _why_kept(project, name, picture, overwrite)):
            kept[name] = f"it is there already{why}".strip()
            keeper.mend(project.sample(name).told("imported").get("kept"))
            continue
        wanted = names[picture.path]
        try:
            masks, about = picture.read_masks(), _about(source, picture, keeper.id)
            sample = name or _add(project, picture, masks, wanted, about, left_in)
            if picture.unlabelled:
                skipped[picture.path] += picture.problems
            else:
                skipped[picture.path] += _label(project, sample, masks, table, about)
                labelled.append(sample)
        except ValueError as error:  # its own; a full disk ends the run
            failed[picture.path] = str(error)
            continue
        if name is None:
            added.append(sample)
            if sample != wanted:
                what = f"{picture.path} is {sample!r} here"
                notes.append(f"{what}: {wanted!r} is another image")
    progress(len(pictures), len(pictures))
    return ImportReport(
        tuple(labelled),
        tuple(added),
        kept,
        failed,
        {path: tuple(said) for path, said in skipped.items() if said},
        listed.added,
        tuple(notes),
    )


def sample_names(paths: Iterable[str]) -> dict[str, str]:
    """Return a file name for each path, whatever their order.

    It is made of the path's last part where that is no other's, else of the whole path,
    else of that and a hash. No two are the same without case and Unicode form.
    """
    paths = list(dict.fromkeys(paths))
    common = posixpath.commonpath(map(posixpath.dirname, paths)) if paths else ""
    wanted: dict[str, list[str]] = {}
    for path in paths:
        digest = sha256(path.encode(errors="surrogatepass")).hexdigest()[:12]
        place = PurePosixPath(unicodedata.normalize("NFC", path))
        within = place.relative_to(unicodedata.normalize("NFC", common))
        stem = safe_name(place.stem)
        cut = stem.encode()[:60].decode(errors="ignore")
        whole = (safe_name(str(within.with_suffix(""))), safe_name(str(within)))
        wanted[path] = [stem, *whole, f"{cut}-{digest}"]
    count = Counter(name for names in wanted.values() for name in set(map(_key, names)))
    return {
        path: next((name for name in names if count[_key(name)] == 1), names[-1])
        for path, names in wanted.items()
    }


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _told_apart(pictures: Iterable[Picture], failed: dict[str, str]) -> list[Picture]:
    """Return pictures whose paths differ; others cannot be known by them."""
    pictures = list(pictures)
    count = Counter(picture.path for picture in pictures)
    for path, number in count.items():
        if number > 1:
            failed[path] = f"the data set names it {number} times: which is meant?"
    return [picture for picture in pictures if count[picture.path] == 1]


# -- which sample a picture is -------------------------------------------------------


def _find_samples(
    project: Project, pictures: Iterable[Picture], failed: dict[str, str]
) -> dict[str, str]:
    """Return the samples that pictures are, by their paths; no sample twice.

    First by the path that a sample was imported from, then where one path ends as the
    other does (a part of the data set was given), then by the name.
    """
    found: dict[str, str] = {}
    doubtful: dict[str, str] = {}
    for rule in (_of_path, _of_tail, _of_name):
        taken = set(found.values())
        free = [s for s in project.samples if s.name not in taken]
        claims: dict[str, list[str]] = defaultdict(list)
        left = {p.path: p for p in pictures if p.path not in found}
        for path, name in rule(left, free):
            if _is_same(project, project.sample(name), left[path], rule is _of_name):
                claims[path].append(name)
        claimed = Counter(name for names in claims.values() for name in set(names))
        for path, names in claims.items():
            if len(names) == 1 and claimed[names[0]] == 1:
                found[path] = names[0]
            elif left[path].masks_alone:
                doubtful[path] = f"other masks could be of {' or '.join(names)} too"
    failed |= {path: why for path, why in doubtful.items() if path not in found}
    return found


def _origin(sample: Sample) -> str:
    """Return the path that a sample was imported from; empty if it was not."""
    path = sample.told("imported").get("path")
    return path if isinstance(path, str) else ""


def _of_path(
    pictures: Mapping[str, Picture], samples: Iterable[Sample]
) -> Iterator[tuple[str, str]]:
    for sample in samples:
        if (path := _origin(sample)) in pictures:
            yield path, sample.name


def _of_tail(
    pictures: Mapping[str, Picture], samples: Iterable[Sample]
) -> Iterator[tuple[str, str]]:
    by_last: dict[str, list[str]] = defaultdict(list)
    for path in pictures:
        by_last[path.rpartition("/")[2]].append(path)
    for sample in samples:
        origin = _origin(sample)
        for path in by_last.get(origin.rpartition("/")[2], ()):
            if f"/{path}".endswith(f"/{origin}") or f"/{origin}".endswith(f"/{path}"):
                yield path, sample.name


def _of_name(
    pictures: Mapping[str, Picture], samples: Sequence[Sample]
) -> Iterator[tuple[str, str]]:
    names = {sample.name for sample in samples}
    titles: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        titles[str(sample.provenance.get("title"))].append(sample.name)
    for path, picture in pictures.items():
        stem = PurePosixPath(path).stem
        found = [stem] if stem in names else titles.get(stem, [])
        if not found and not picture.masks_alone:
            plain = unicodedata.normalize("NFC", stem)
            tried = dict.fromkeys((plain, safe_name(plain)))
            found = [name for name in tried if name in names][:1]
        for name in found:
            yield path, name


def _is_same(project: Project, sample: Sample, picture: Picture, by_name: bool) -> bool:
    """Whether a sample shows a picture: pixel by pixel, or nearly if that is a JPEG.

    Without a picture its masks have to have the size. A picture of one colour does not
    tell whether a sample of nearly its name, or imported from elsewhere, is the same.
    """
    try:
        size = project.image_size(sample.name)
        if picture.masks_alone:
            sizes = (picture.mask_size, (picture.mask_size or ())[::-1])
            return size in sizes
        known = sample.told("imported").get("sha256")
        if known and not by_name and known == picture.sha256():
            return True
        image = picture.read_image()
        if image.shape[:2] != size:
            return False
        here = project.load_image(sample.name)
    except (ValueError, OSError):
        return False
    stems = sample.name, sample.provenance.get("title")
    told = not _origin(sample) and PurePosixPath(picture.path).stem in stems
    if by_name and not told and (image == image[0, 0]).all():
        return False
    if np.array_equal(here, image):
        return True
    near = by_name and PurePosixPath(picture.path).suffix.lower() in _LOSSY
    difference = np.abs(here.astype(np.int16) - image)
    return bool(near and difference.mean() <= _NEAR)


def _why_kept(project: Project, name: str, picture: Picture, overwrite: bool) -> str:
    """Return why a sample stays as it is; empty if its labels are to be replaced."""
    reason = ""
    if not overwrite and project.files.labels(name).is_file():
        painted = project.load_painted(name)
        reason = "painted" if painted is not None and painted.any() else ""
        status = project.sample(name).status
        reason = status if status in _DECIDED else reason
    if reason:
        return f"; its labels are kept ({reason})"
    return " " if picture.unlabelled else ""


# -- writing -------------------------------------------------------------------------


def _about(source: Source, picture: Picture, kept_as: str) -> dict[str, Any]:
    about: dict[str, Any] = {
        "format": source.form,
        "from": source.path.name,
        "path": picture.path,
    }
    if digest := picture.sha256():
        about["sha256"] = digest
    if kept_as and picture.record is not None:
        about |= {"kept": kept_as, "record": list(picture.record)}
        about |= {} if picture.turn == UPRIGHT else {"turn": picture.turn}
        if picture.file is not None and source.root is not None:
            with suppress(ValueError):  # it is elsewhere
                place = picture.file.relative_to(source.root)
                about["file"] = place.as_posix()
    return about


def _check_size(size: tuple[int, ...], masks: Masks) -> None:
    if masks.places.shape != size:
        raise ImportSourceError(
            f"its image is {size} pixels and its masks are {masks.places.shape}"
        )


def _add(
    project: Project,
    picture: Picture,
    masks: Masks,
    wanted: str,
    about: dict[str, Any],
    left_in: Source | None,
) -> str:
    """Add the image of a picture, or point at it; return the name of its sample."""
    image = picture.read_image()
    _check_size(image.shape[:2], masks)
    name = project.reserve(wanted)
    made: dict[str, Any] = {"title": wanted, "source": picture.path}
    made |= {"imported": about, **picture.about}
    if left_in is not None and picture.file is not None:
        root, file = left_in.path, picture.file
        inside = root.is_dir() and file.resolve().is_relative_to(root.resolve())
        shape = image.shape[0], image.shape[1]
        folder = root if inside else None
        made |= Reference.to(project.path, file, folder=folder, shape=shape).about()
    project.add_sample(image, name=name, provenance=made)
    return name


def _label(
    project: Project,
    name: str,
    masks: Masks,
    table: NDArray[np.uint16],
    about: dict[str, str],
) -> list[str]:
    """Write the labels of a sample; return what of the masks is not in them."""
    _check_size(project.image_size(name), masks)
    ids = table[masks.places]
    # What was painted before is not what a person decided now: all of it is.
    painted = project.files.painted(name).is_file()
    project.save_labels(
        name,
        ids,
        "edited",
        painted=np.ones(ids.shape, bool) if painted else None,
        provenance={"imported": about},
        made_by={"by": "import", **{k: about[k] for k in _ORIGIN if k in about}},
    )
    return [*masks.problems, *_save_objects(project, name, masks, ids)]


def _save_objects(
    project: Project, name: str, masks: Masks, ids: NDArray[np.uint16]
) -> list[str]:
    """Write which pixels are one object; without that, connected parts are."""
    instances_path(project.path, name).unlink(missing_ok=True)
    if masks.objects is None:
        return []
    inside = (ids != 0) & (ids != IGNORE)
    numbers, found = number_objects(masks.objects, ids, inside)
    if len(found) > _MOST_INSTANCES:
        return [f"{len(found)} objects are not told apart: {_MOST_INSTANCES} can be"]
    if found:
        classes = {number: c for number, (_, c) in enumerate(found, start=1)}
        save_instances(project.path, name, Instances(numbers, classes))
    return []
