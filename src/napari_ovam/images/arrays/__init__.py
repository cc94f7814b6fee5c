"""Pictures in arrays: planes of stacks, levels of pyramids, channels."""
