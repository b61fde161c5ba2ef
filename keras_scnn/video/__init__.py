"""Video clips: faces tracked through shots, one shape a face, smooth motion, files that animate."""
