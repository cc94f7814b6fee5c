"""Models on disk: found, downloaded, checked, measured and loaded."""
