"""Masks from clicks on the picture."""
