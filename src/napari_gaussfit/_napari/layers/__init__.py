"""Layers of napari: from them to stacks, and from fits to them."""
