"""Everything that needs Qt or napari: the panel, its session and its layers."""
