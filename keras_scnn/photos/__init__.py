"""Photos to face crops: the detectors, and the standard square cut around a face."""
