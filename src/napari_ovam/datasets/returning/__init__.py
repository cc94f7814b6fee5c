"""Data sets that were imported, written again as they came, with what was corrected."""

AS_IMPORTED = "as-imported"
"""The name of the format, beside those of `exporters.FORMATS`."""

RETURNED = "images that were not imported are left out; splits stay as they came"
"""What it does not hold, as in `exporters.LOSSES`."""
