"""Pure geometry: cameras, rotations, alignment, crops, meshes and rasterization in NumPy."""
