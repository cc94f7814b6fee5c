"""Data sets that were imported, written again as they came, with what was corrected."""
