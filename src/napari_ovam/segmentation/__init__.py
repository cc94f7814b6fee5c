"""From attention maps to labels."""

THRESHOLD = 0.5
"""The probability from which a pixel is a class's, unless told."""
