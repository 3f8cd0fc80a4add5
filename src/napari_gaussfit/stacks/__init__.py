"""Files in, voxels out: stacks from TIFF and OME-Zarr, and what their voxels tell."""
