"""Generating and loading images."""
