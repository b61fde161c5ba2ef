"""Labels: landmarks and parameters of photos, identity labels from a face recognizer."""
