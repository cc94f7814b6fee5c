"""Models with joint attention: what is kept of a run, and how they are asked again."""
