"""Labels from maps."""
