"""From parameters to what a user sees: meshes, textures, pictures, persons."""
