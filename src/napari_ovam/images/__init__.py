"""Image files, and what they say of how they were made."""
