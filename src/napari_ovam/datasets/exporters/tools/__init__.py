"""Formats of annotation tools: one exact mask for each object."""
