"""Exports, read by programs that this project did not write."""
