"""Objects of a class."""
