"""The `data.yaml` of YOLO's formats."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .dataset import SPLITS, save_lines


def save_data_yaml(
    folder: Path,
    names: Sequence[str],
    splits: Iterable[str],
    more: Mapping[str, str] | None = None,
) -> None:
    """Write `data.yaml`: where the images are, and the classes from 0 on.

    There is no `path`: readers take the folder of the file. A trainer refuses a file
    without `val`: where no image validates, it is the training images.
    """
    used = set(splits)
    lines = ["# napari-ovam"]
    for split in SPLITS:
        if split in used or split != "test":
            at = split if split in used else next(s for s in SPLITS if s in used)
            lines.append(f"{split}: images/{at}")
    lines += [f"{key}: {value}" for key, value in (more or {}).items()]
    lines.append("names:" if names else "names: {}")
    lines += [f"  {i}: {_quoted(name)}" for i, name in enumerate(names)]
    save_lines(folder / "data.yaml", lines)


def _quoted(name: str) -> str:
    """Return a double-quoted YAML text; what YAML takes for a line break is escaped."""
    plain = name.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else _escape(c) for c in plain) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
