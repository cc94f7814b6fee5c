"""Pictures and labels as OME-Zarr: a store each, or labels beside the picture."""
