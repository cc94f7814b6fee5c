"""Class ids that mean the same everywhere."""

BACKGROUND = 0
IGNORE = 255
"""The label of pixels that nobody decided: "unsure" in the panel."""
LARGEST_ID = 65_535


def is_class_id(number: object) -> bool:
    """Whether a class may have it: a whole number that means nothing else."""
    return (
        isinstance(number, int)
        and not isinstance(number, bool)
        and 0 < number <= LARGEST_ID
        and number != IGNORE
    )
