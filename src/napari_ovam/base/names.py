"""File names that every usual system takes."""

import unicodedata


def check_name(name: str) -> None:
    """Raise ValueError where `name` is not a file name on every usual system."""
    reserved = {"con", "prn", "aux", "nul"} | {
        f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10)
    }
    if (
        not name
        or name[0] == "."
        or name[-1] in ". "
        or any(c in '<>:"/\\|?*' or unicodedata.category(c)[0] == "C" for c in name)
        or len(name.encode(errors="replace")) > 200
        or name.partition(".")[0].lower() in reserved
    ):
        msg = (
            f"item name {name!r} cannot be a file name; use up to 200 bytes without "
            '/ \\ < > : " | ? * and control characters, and no dot in front'
        )
        raise ValueError(msg)
