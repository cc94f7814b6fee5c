"""Traces, maps, tokens and their optimization: no pipeline, no picture."""
