"""Class ids that mean the same everywhere."""

BACKGROUND = 0
IGNORE = 255
"""The label of pixels that nobody decided: "unsure" in the panel."""
LARGEST_ID = 65_535
