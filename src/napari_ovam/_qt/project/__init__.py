"""The project's dock: review, proposals."""
