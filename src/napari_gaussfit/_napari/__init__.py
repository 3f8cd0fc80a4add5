"""Everything that imports napari or Qt."""
