"""The token library: tokens of all projects in one folder, with previews.

    NAME.safetensors   NAME.png    removed/NAME.safetensors ...

No token replaces another: a second of the same name gets a number. What is removed
waits in `removed`.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_ovam.base.names import numbered, safe_name
from napari_ovam.base.user_folders import library_folder
from napari_ovam.images.png import write_png
from napari_ovam.project.token_library.entry import TokenEntry, read_entry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import TextSpace, Token

REMOVED = "removed"
_ENDING = ".safetensors"

SortKey = Literal["name", "model", "phrase", "images", "iou", "date"]


class TokenLibraryError(ValueError):
    """What a token library cannot do; the message names the token or file."""


class TokenLibrary:
    """A folder of tokens; the user's own by default.

    Each file is whole at any moment. Several programs may use a library at once.
    """

    def __init__(self, folder: str | PathLike[str] | None = None) -> None:
        self.folder = library_folder() if folder is None else Path(folder)

    def entries(
        self,
        text: str = "",
        *,
        model: str | None = None,
        sort: SortKey = "name",
        descending: bool = False,
    ) -> list[TokenEntry]:
        """List the tokens; damaged files come last.

        Parameters
        ----------
        text
            What name, phrase or file name shall hold, in any case.
        model
            The hash that tokens shall have, or "" for those without one; None takes
            all.
        sort, descending
            The order; what does not know its value comes after what does.

        Raises
        ------
        TokenLibraryError
            If `sort` is no such name.
        OSError
            If the folder cannot be read.
        """
        if sort not in get_args(SortKey):
            raise TokenLibraryError(
                f"sort is {sort!r}: give one of {', '.join(get_args(SortKey))}"
            )
        found = [
            entry
            for entry in map(read_entry, self._files(self.folder))
            if text.casefold()
            in f"{entry.name}\n{entry.phrase}\n{entry.path.stem}".casefold()
            and (model is None or (entry.model == model and not entry.damaged))
        ]

        def value(entry: TokenEntry) -> Any:
            key = getattr(entry, sort)
            return key.casefold() if isinstance(key, str) else key

        unknown = [e for e in found if value(e) in ("", None) and not e.damaged]
        damaged = [e for e in found if e.damaged]
        rest = [e for e in found if value(e) not in ("", None) and not e.damaged]
        rest.sort(key=value, reverse=descending)  # else by file name, as they are
        return [*rest, *unknown, *damaged]

    def add(
        self,
        token: Token,
        *,
        images: int | None = None,
        iou: float | None = None,
        preview: NDArray[np.uint8] | None = None,
    ) -> TokenEntry:
        """Add a token; one of the same name stays, and this one gets a number.

        Parameters
        ----------
        token
            Any token. What its info says of phrase, images, iou and date stays.
        images, iou
            As in `TokenEntry`, where the info does not say.
        preview
            (H, W, 3) uint8: what to show, such as the map on an image.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        from napari_ovam.attention.token_files import save_token

        scores = token.info.get("scores")
        known: dict[str, Any] = {
            "phrase": token.name,
            "images": images,
            "iou": scores.get("after") if isinstance(scores, dict) else None,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        given = {"images": images, "iou": iou}
        info = {**known, **token.info, **_known(given)}
        token = replace(token, info=_known(info))
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting = self.folder / f".{uuid.uuid4().hex}{_ENDING}"
        try:
            save_token(token, waiting)
            name = safe_name(token.name, "token")
            path = _move_new(waiting, self.folder / f"{name}{_ENDING}")
        finally:
            waiting.unlink(missing_ok=True)
        if preview is not None:
            self.set_preview(path, preview)
        return read_entry(path)

    def set_preview(
        self, token: str | PathLike[str], picture: NDArray[np.uint8]
    ) -> Path:
        """Write the picture beside a token, (H, W, 3) uint8; return its path."""
        path = self.find(token).with_suffix(".png")
        write_png(path, picture)
        return path

    def find(self, token: str | PathLike[str]) -> Path:
        """Return the file of a token of this library.

        Parameters
        ----------
        token
            Its path, file name or stem; or its name, if only one has that.

        Raises
        ------
        TokenLibraryError
            If there is none, several have the name, or it is elsewhere.
        """
        path = Path(token)
        if path.is_absolute() or path.parent != Path():
            if path.parent.resolve() == self.folder.resolve() and path.is_file():
                return path
            raise TokenLibraryError(f"{path} is no token of {self.folder}")
        files = self._files(self.folder)
        for file in files:
            if path.name in (file.name, file.stem):
                return file
        named = [e.path for e in map(read_entry, files) if e.name == str(token)]
        if len(named) == 1:
            return named[0]
        if named:
            raise TokenLibraryError(
                f"{len(named)} tokens are named {str(token)!r}: give one of "
                f"{', '.join(file.stem for file in named)}"
            )
        raise TokenLibraryError(f"there is no token {str(token)!r} in {self.folder}")

    def load(self, token: str | PathLike[str]) -> Token:
        """Return a token.

        Raises
        ------
        TokenFileError
            If its file is damaged.
        TokenLibraryError
            As `find`.
        """
        from napari_ovam.attention.token_files import load_token

        return load_token(self.find(token))

    def remove(self, token: str | PathLike[str]) -> Path:
        """Move a token, damaged or not, to `removed`; return where it is now."""
        return self._move(self.find(token), self.folder / REMOVED)

    def removed(self) -> list[TokenEntry]:
        """Return what was removed, by file name."""
        return [read_entry(path) for path in self._files(self.folder / REMOVED)]

    def restore(self, path: str | PathLike[str]) -> TokenEntry:
        """Put back what `remove` took away.

        Parameters
        ----------
        path
            What `remove` returned, or the file name.

        Raises
        ------
        TokenLibraryError
            If there is no such file.
        """
        source = self.folder / REMOVED / Path(path).name
        if not source.is_file():
            raise TokenLibraryError(f"there is no removed token {source.name!r}")
        return read_entry(self._move(source, self.folder))

    def export(self, token: str | PathLike[str], path: str | PathLike[str]) -> Path:
        """Write a token to a new file elsewhere.

        Parameters
        ----------
        token
            As for `find`.
        path
            Ending in `.safetensors`, or `.npy` for the reference's format, which
            holds the two rows of an optimized token and nothing else.

        Raises
        ------
        FileExistsError
            If there is such a file.
        ValueError
            If the ending is another, or the token does not fit the format.
        """
        from napari_ovam.attention.token_files import save_token

        path = Path(path)
        if path.exists():
            raise FileExistsError(f"{path} exists: choose another name")
        return save_token(self.load(token), path)

    def import_file(
        self, path: str | PathLike[str], *, target: TextSpace | None = None
    ) -> list[TokenEntry]:
        """Add all tokens of a file.

        Parameters
        ----------
        path
            A `.safetensors` token; the reference's `.npy` of shape (2, text_dim); or
            its dictionary, of which arrays are read and nothing is unpickled.
        target
            The space of the model that a dictionary's single rows belong to: its start
            row becomes their background.

        Raises
        ------
        TokenFileError
            If the file is damaged or holds something else.
        TokenLibraryError
            If tokens lack a background and `target` is None. Nothing is added then.
        ModelMismatchError
            If they do not fit the model.
        """
        from napari_ovam.attention.token_files import load_tokens

        tokens = load_tokens(Path(path), target=target)
        if lacking := [name for name, t in tokens.items() if len(t.embedding) < 2]:
            raise TokenLibraryError(
                f"{path}: {len(lacking)} tokens have no background row, such as "
                f"{lacking[0]!r}: name the model that they belong to"
            )
        return [self.add(token) for token in tokens.values()]

    def _files(self, folder: Path) -> list[Path]:
        # A dot in front: what is being written, or was when the program was killed.
        return sorted(p for p in folder.glob(f"*{_ENDING}") if p.name[0] != ".")

    def _move(self, source: Path, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        picture = source.with_suffix(".png")
        target = _move_new(source, folder / source.name)
        if picture.is_file():
            picture.replace(target.with_suffix(".png"))
        return target


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _move_new(source: Path, target: Path) -> Path:
    """Move a file to `target`, or with a number behind it; replace nothing.

    Another program may take the same name at the same time: a link is made or not.
    """
    for path in islice(numbered(target), 10_000):
        try:
            os.link(source, path)
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            if path.exists():
                continue
            source.rename(path)
            return path
        source.unlink()
        return path
    raise TokenLibraryError(
        f"there are too many tokens like {target.name}: remove some"
    )
