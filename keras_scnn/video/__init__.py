"""Video clips: faces tracked through shots, one shape per face, smooth motion, animated files."""
