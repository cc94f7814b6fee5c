"""Token files: `.safetensors` of our own, and the `.npy` files of OVAM's reference.

Nothing is unpickled as it comes: of the reference's dictionaries only dicts, strings
and plain number arrays are read, and everything else is refused by name.
"""

from __future__ import annotations

import json
import pickle
import tokenize
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from napari_ovam.attention.tokens import TextSpace, Token, check_token
from napari_ovam.base.atomic import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam.attention.trace import Trace

_FORMAT = "napari-ovam token 1"
_OWN_KEYS = ("format", "name", "model", "text_dim", "span", "pieces")
_READ_ERRORS = (
    SafetensorError,
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,  # from numpy, for a header that is damaged
)


class TokenFileError(ValueError):
    """A file that holds no token; the message names its path."""


def save_token(token: Token, path: str | Path) -> Path:
    """Write a token; a file of that name is replaced only by a whole new one.

    Parameters
    ----------
    token
        Any token; its `info` has to be JSON.
    path
        Ending in `.safetensors`, or in `.npy` for the reference's format, which takes
        the two rows of an optimized token and nothing else.

    Raises
    ------
    ValueError
        If the ending is another, or the token does not fit the format.
    OSError
        If the file cannot be written, such as on a full disk.
    """
    path = Path(path)
    if path.suffix == ".npy":
        if len(token.embedding) != 2 or token.span != (1, 2):
            raise ValueError(
                f"{path}: a .npy token has the rows [background, class] and "
                f"{token.name!r} has {len(token.embedding)}: save it as .safetensors"
            )
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, token.embedding.numpy())
        return path
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} ends in neither .safetensors nor .npy")
    if taken := set(token.info) & set(_OWN_KEYS):
        raise ValueError(f"info of {token.name!r} holds {min(taken)!r}: rename it")
    metadata = {
        "format": _FORMAT,
        "name": token.name,
        "model": token.model,
        "text_dim": str(token.text_dim),
        "span": json.dumps(token.span),
        "pieces": json.dumps(token.pieces),
        **{str(key): _to_text(key, value) for key, value in token.info.items()},
    }
    data = to_safetensors({"embedding": token.embedding.contiguous()}, metadata)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return path


def load_token(
    path: str | Path,
    target: Trace | TextSpace | None = None,
    *,
    confirm: bool = False,
) -> Token:
    """Read one token.

    Parameters
    ----------
    path
        A `.safetensors` file of ours, or a `.npy` of shape (2, text_dim), whose text
        encoder is unknown: a warning says so.
    target
        What the token has to fit; see `check_token`.
    confirm
        Accept a token of another text encoder of the same size.

    Raises
    ------
    TokenFileError
        If the file holds no token, or several.
    ModelMismatchError
        If the token does not fit the target.
    FileNotFoundError
        If there is no such file.
    """
    tokens = load_tokens(path)
    if len(tokens) != 1:
        raise TokenFileError(
            f"{path} holds {len(tokens)} tokens {sorted(tokens)}: load_tokens reads all"
        )
    (token,) = tokens.values()
    return token if target is None else check_token(token, target, confirm=confirm)


def load_tokens(
    path: str | Path, *, target: TextSpace | None = None
) -> dict[str, Token]:
    """Read all tokens of a file by their names.

    Parameters
    ----------
    path
        As for `load_token`, or the reference's dictionary in a `.npy`: class name ->
        (text_dim,), or (2, text_dim).
    target
        A dictionary's (text_dim,) rows have no background. With the space of the model
        that they belong to, its start row becomes that. Without, such a token has one
        row, which has to be joined with a background before it can make maps.

    Raises
    ------
    TokenFileError
        If the file is corrupt, truncated, of another kind, or holds objects that are
        not arrays.
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no token file {path}")
    try:
        with path.open("rb") as file:
            is_numpy = file.read(6) == b"\x93NUMPY"
        if not is_numpy:
            token = _read_safetensors(path)
            return {token.name: token}
        with path.open("rb") as file:
            content = _read_npy(file)
        arrays = content if isinstance(content, dict) else {path.stem: content}
        tokens = {name: _from_array(name, rows) for name, rows in arrays.items()}
    except _READ_ERRORS as error:
        raise TokenFileError(f"{path} is not a whole token file: {error}") from error
    if target is not None:
        background = target.start()
        tokens = {name: _with_start(t, background) for name, t in tokens.items()}
        tokens = {name: check_token(token, target) for name, token in tokens.items()}
    warnings.warn(
        f"{path} does not say which text encoder its tokens belong to: only their size "
        "can be checked",
        stacklevel=2,
    )
    return tokens


def _read_safetensors(path: Path) -> Token:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        if metadata.get("format") != _FORMAT:
            raise ValueError(
                f"its format is {metadata.get('format')!r}, {_FORMAT!r} is wanted"
            )
        embedding = file.get_tensor("embedding")
    if str(embedding.shape[-1]) != metadata["text_dim"]:
        raise ValueError(
            f"it says text_dim {metadata['text_dim']} and has {tuple(embedding.shape)}"
        )
    start, stop = json.loads(metadata["span"])
    return Token(
        name=metadata["name"],
        model=metadata["model"],
        embedding=embedding,
        span=(int(start), int(stop)),
        pieces=tuple(json.loads(metadata["pieces"])),
        info={k: _from_text(v) for k, v in metadata.items() if k not in _OWN_KEYS},
    )


def _from_array(name: object, rows: object) -> Token:
    if not isinstance(name, str):
        raise TypeError(f"the name {name!r} is no string")
    if not isinstance(rows, np.ndarray) or not np.issubdtype(rows.dtype, np.floating):
        raise TypeError(f"{name!r} is no array of floats")
    if not (rows.ndim == 1 or (rows.ndim == 2 and len(rows) == 2)):
        raise ValueError(f"{name!r} has the shape {rows.shape}, not (2, text_dim)")
    embedding = torch.from_numpy(np.atleast_2d(rows).astype(np.float32))
    count = len(embedding)
    return Token(name, "", embedding, (count - 1, count), info={"phrase": name})


def _with_start(token: Token, background: torch.Tensor) -> Token:
    if len(token.embedding) == 2 or token.text_dim != len(background):
        return token
    rows = torch.stack([background, token.embedding[0]])
    return Token(token.name, token.model, rows, info=token.info)


def _to_text(key: object, value: object) -> str:
    """Return a string as it stands, unless it reads like JSON, and others as JSON."""
    if isinstance(value, str) and _from_text(value) is value:
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"info {key!r} cannot be saved as JSON: {error}") from error


def _from_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_npy(file: IO[bytes]) -> Any:
    """Return the array in a .npy file, or its dictionary of arrays."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format is not known")
    shape, _, dtype = readers[version](file)
    if not dtype.hasobject:
        file.seek(0)
        return np.load(file, allow_pickle=False)
    content = _ArraysOnly(file).load()
    if shape != () or not isinstance(content, _PickledArray):
        raise ValueError("it holds neither an array nor a dictionary of arrays")
    (objects,) = content.items
    if not isinstance(objects, dict):
        raise TypeError(f"it holds a {type(objects).__name__}, not a dictionary")
    return {
        name: value.array() if isinstance(value, _PickledArray) else value
        for name, value in objects.items()
    }


class _PickledType:
    """Stands for numpy.dtype in a pickle."""

    def __init__(self, name: str, *_: object) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _PickledArray:
    """Stands for numpy.ndarray in a pickle: numpy's own takes states on trust."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.type, self.fortran, self.data = state

    @property
    def items(self) -> list[Any]:
        if self.type.name.lstrip("|")[:1] != "O" or not isinstance(self.data, list):
            raise TypeError("an array of numbers where one of objects is wanted")
        return self.data

    def array(self) -> NDArray[Any]:
        if self.type.name not in ("f2", "f4", "f8") or not isinstance(self.data, bytes):
            raise TypeError(f"an array of {self.type.name!r} where floats are wanted")
        order = "=" if self.type.order == "|" else self.type.order
        dtype = np.dtype(self.type.name).newbyteorder(order)
        flat = np.frombuffer(self.data, dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: object) -> _PickledArray:
    return _PickledArray()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand for codecs.encode, through which old pickles carry bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is not expected")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy", "dtype"): _PickledType,
    ("numpy", "ndarray"): _PickledArray,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _latin1,
}


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays, dictionaries and strings; runs nothing that a file names."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, and only arrays are read"
            ) from None
