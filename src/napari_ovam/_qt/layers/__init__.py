"""napari layers, strokes, keys and mouse tools."""
