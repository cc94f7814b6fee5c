"""Ids and names, progress, whole files, locks: the standard library only."""
