"""Make the plan of a dataset of a project's classes, and the folder that it fills."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.base.folder_lock import lock_folder
from napari_ovam.base.hashing import hash_file
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.diffusion.generation import (
    TruncatedPromptWarning,
    check_prompt,
    resolve_settings,
)
from napari_ovam.diffusion.weights_hash import model_hash, text_encoder_hash
from napari_ovam.images.files import PICTURE_SUFFIXES
from napari_ovam.project import Project
from napari_ovam.workflows.adding import pictures_in
from napari_ovam.workflows.dataset.plan import (
    PLAN,
    Picture,
    Plan,
    PlanError,
    PlannedClass,
    PlannedPrompt,
)
from napari_ovam.workflows.proposals import class_sources, named_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from napari_ovam.base.generation_settings import GenerationSettings
    from napari_ovam.datasets.project_class import ProjectClass
    from napari_ovam.workflows.dataset.prompts import Prompt


def plan_prompts(
    project: Project,
    pipe: Any,
    prompts: Sequence[Prompt],
    settings: GenerationSettings,
    *,
    quotas: Mapping[str, int] | None = None,
    progress: Progress = no_progress,
    note: Callable[[str], object] = str,
    **how: Any,
) -> Plan:
    """Plan images of prompts.

    Parameters
    ----------
    project
        Its active classes are looked for, with their tokens and thresholds.
    pipe
        What makes the images.
    prompts
        In the order in which they are made, each with all seeds at least.
    settings
        Of all of them, but the prompt; None in it is the model's own default.
    quotas
        Images to be kept of each class, by its name; "" stands for all others.
    progress
        Called with (prompts done, all); may raise `Cancelled`.
    note
        Called with what a person should know, a sentence each.
    **how
        Further fields of `Plan`: model, dtype, seeds, densities and so on.

    Raises
    ------
    PlanError
        If there is nothing to make, a class is unknown, or a quota has no prompt.
    ProposalError
        If a class cannot be looked for.
    ValueError
        If a setting is out of its range.
    """
    classes = _classes(project, pipe)
    active = [entry for entry in project.classes if entry.active]
    resolved = replace(settings, prompt=prompts[0].text) if prompts else settings
    resolved = resolve_settings(pipe, resolved)
    planned: dict[PlannedPrompt, None] = {}
    cut: list[str] = []
    for done, prompt in enumerate(prompts):
        progress(done, len(prompts))
        if _is_cut(pipe, prompt.text):
            cut.append(prompt.text)
        ids = _named(project, active, prompt)
        negative = prompt.negative or settings.negative_prompt
        planned[PlannedPrompt(prompt.text, negative, ids)] = None
    names = ("steps", "guidance_scale", "height", "width")
    plan = _plan(
        pipe,
        settings={name: getattr(resolved, name) for name in names},
        classes=classes,
        prompts=tuple(planned),
        quotas=_quotas(classes, quotas or {}),
        **how,
    )
    for sentence in _notes(plan, cut):
        note(sentence)
    return plan


def plan_pictures(
    project: Project,
    pipe: Any,
    folder: Path,
    *,
    progress: Progress = no_progress,
    note: Callable[[str], object] = str,
    **how: Any,
) -> Plan:
    """Plan labels for the pictures of a folder and of those in it.

    All else as for `plan_prompts`. It raises `PlanError` if there is no picture.
    """
    paths = pictures_in(folder)
    pictures: dict[str, Picture] = {}
    for done, path in enumerate(paths):
        progress(done, len(paths))
        digest = hash_file(path)
        name = path.relative_to(folder).as_posix()
        pictures.setdefault(digest, Picture(name, digest))
    if not pictures:
        raise PlanError(f"{folder} holds no picture ({', '.join(PICTURE_SUFFIXES)})")
    plan = _plan(
        pipe,
        settings={},
        classes=_classes(project, pipe),
        folder=str(folder.resolve()),
        pictures=tuple(pictures.values()),
        **how,
    )
    if twice := len(paths) - len(pictures):
        note(f"{twice} pictures are there more than once.")
    return plan


def start_folder(plan: Plan, project: Project, folder: Path) -> bool:
    """Make the folder of a plan: a project with the same classes, and `plan.json`.

    It is there whole, or not at all.

    It returns False where it was there already, with this plan.

    It raises `PlanError` if the folder holds another plan, or anything else; `OSError`
    if it cannot be written.
    """
    if (folder / PLAN).is_file():
        there = Plan.load(folder)
        if there.hash == plan.hash:
            if (there.model, there.folder) != (plan.model, plan.folder):
                _move_places(plan, folder)
            return False
        raise PlanError(
            f"{folder} holds another plan; they differ in "
            f"{', '.join(there.differences(plan))}. What it holds was made by that "
            "one: choose another folder"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PlanError(f"{folder} is not empty: choose a new folder for the dataset")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".dataset-") as made:
        new = Project.create(Path(made) / "project")
        ids = {entry.id for entry in plan.classes}
        with new.writing():
            new.classes.take_over(project.classes)
            new.save()
        for entry in new.classes:
            if entry.token is not None and entry.id in ids:
                shutil.copyfile(
                    project.files.token(entry.token), new.files.token(entry.token)
                )
            elif entry.token is not None:
                new.classes.change(entry.id, token=None, source="phrase")
        new.save()
        plan.save(new.path)
        if folder.exists():
            folder.rmdir()
        new.path.rename(folder)
    return True


def _move_places(plan: Plan, folder: Path) -> None:
    """Note where model and pictures of a plan are now, while nobody runs it."""
    lock = lock_folder(folder)
    if lock is None:
        raise PlanError(f"{folder} is being run, or open in a window: close it there")
    with lock:
        plan.save(folder)


def _plan(pipe: Any, **how: Any) -> Plan:
    """Return a plan with its models' fingerprints; CLIP's shows that it can be had."""
    clip_hash = ""
    if folder := how.get("clip_model"):
        from napari_ovam.workflows.dataset.scores import ClipScorer

        clip_hash = ClipScorer(folder).hash
    model, encoder = model_hash(pipe), text_encoder_hash(pipe)
    return Plan(model_hash=model, text_encoder=encoder, clip_hash=clip_hash, **how)


def _classes(project: Project, pipe: Any) -> tuple[PlannedClass, ...]:
    planned = []
    for number, tokens in class_sources(project, pipe).items():
        entry = project.classes[number]
        rows = b"".join(t.embedding.numpy().tobytes() for t in tokens[:-1])
        planned.append(
            PlannedClass(
                number,
                entry.name,
                entry.phrase,
                entry.source,
                entry.threshold,
                entry.token or "" if rows else "",
                sha256(rows).hexdigest() if rows else "",
            )
        )
    return tuple(planned)


def _named(
    project: Project, active: Sequence[ProjectClass], prompt: Prompt
) -> tuple[int, ...]:
    """Return the ids of the classes of a prompt: those it is said to have, or names."""
    if prompt.classes is None:
        return tuple(sorted(named_in(prompt.text, active)))
    ids = {entry.id for entry in active}
    found = []
    for name in prompt.classes:
        entry = project.classes.by_name(name) or project.classes.find(name)
        if entry is None or entry.id not in ids:
            raise PlanError(
                f"{prompt.text!r} has the class {name!r}, and {project.path} has no "
                "active class of that name: add it there"
            )
        found.append(entry.id)
    return tuple(sorted(set(found)))


def _is_cut(pipe: Any, prompt: str) -> bool:
    """Whether a model reads only the beginning of a prompt."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_prompt(pipe, "prompt", prompt)
    return any(issubclass(each.category, TruncatedPromptWarning) for each in caught)


def _quotas(
    classes: Iterable[PlannedClass], quotas: Mapping[str, int]
) -> dict[int, int]:
    known = {entry.name: entry.id for entry in classes}
    for name, count in quotas.items():
        if name and name not in known:
            raise PlanError(
                f"the quota of {name!r}: there are the classes {', '.join(known)}"
            )
        if count < 0:
            raise PlanError(f"the quota of {name or 'all'} is {count}: give 0 or more")
    rest = dict.fromkeys(known.values(), quotas[""]) if "" in quotas else {}
    return rest | {known[name]: n for name, n in quotas.items() if name}


def _notes(plan: Plan, cut: Sequence[str]) -> Iterable[str]:
    """Say what a person may not have meant; refuse a quota without prompts."""
    if not plan.prompts:
        raise PlanError("there is no prompt: give a file or a template")
    named = {number for prompt in plan.prompts for number in prompt.classes}
    without = [entry for entry in plan.classes if entry.id not in named]
    unfilled = [entry.name for entry in without if plan.quotas.get(entry.id)]
    if unfilled:
        raise PlanError(
            f"no prompt names {', '.join(map(repr, unfilled))}: no image can fill "
            "the quota. Add prompts, or give these the quota 0"
        )
    if without and named:
        names = ", ".join(repr(entry.name) for entry in without)
        yield f"No prompt names {names}: there will be no images of it."
    nameless = sum(not prompt.classes for prompt in plan.prompts)
    if nameless and plan.quotas:
        yield f"{nameless} prompts name no class of the quotas, and are not made."
    elif nameless:
        yield f"{nameless} prompts name no class: all are looked for in their images."
    if cut:
        yield (
            f"{len(cut)} prompts are longer than what the model reads, such as "
            f"{cut[0][:60]!r}: their ends are left out."
        )
