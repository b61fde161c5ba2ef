"""From parameters to users' results: meshes, textures, pictures, people."""
