"""From photos to face crops: the detectors, and the standard square crop around a face."""
