"""Readers, writers, sample data and opening files."""
