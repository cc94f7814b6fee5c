"""Maps of phrases."""
