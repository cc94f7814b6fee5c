"""The one way to give a class of a project a token; the one that it had is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_ovam.project.token_library import TokenLibrary

if TYPE_CHECKING:
    from napari_ovam.attention.tokens import Token
    from napari_ovam.datasets.project_class import Source
    from napari_ovam.project import Project


def give_token(
    project: Project,
    number: int,
    token: Token,
    *,
    library: TokenLibrary | None = None,
    source: Source | None = "token",
) -> bool:
    """Give a class a token; the token that it had goes into the library.

    It raises `OSError` if a file cannot be written; the class has its old token then.

    It returns False where the class is gone by now.

    Parameters
    ----------
    project, number
        The class.
    token
        Its new token.
    library
        Where the old one is kept; by default the user's.
    source
        What makes the maps of the class from now on, and the threshold of its token
        is 0.5; None leaves both as they are.
    """
    with project.writing():
        old = project.classes.get(number)
        if old is None:
            return False
        _keep(project, number, token, library or TokenLibrary())
        if source is not None:
            # With the token, so that the index never speaks of one without the other.
            limits = {**old.thresholds, "token": None}
            project.classes.change(number, source=source, thresholds=limits)
        try:
            project.save_token(number, token)
        except BaseException:
            values = {"source": old.source, "thresholds": old.thresholds}
            project.classes.change(number, **values)
            raise
    return True


def _keep(project: Project, number: int, new: Token, library: TokenLibrary) -> None:
    """Put the token of a class into the library, unless it is there or stays."""
    from napari_ovam.attention.token_files import TokenFileError  # which imports torch

    try:
        old = project.load_token(number)
    except (TokenFileError, FileNotFoundError):
        return  # damaged or gone: there is nothing to keep
    if old is None or _same(old, new):
        return
    for entry in library.entries():
        if (entry.rows, entry.text_dim) == tuple(old.embedding.shape) and _same(
            library.load(entry.path), old
        ):
            return
    library.add(replace(old, name=project.classes[number].name))


def _same(one: Token, other: Token) -> bool:
    rows = one.embedding.shape == other.embedding.shape
    return (
        rows
        and one.model == other.model
        and bool((one.embedding == other.embedding).all())
    )
