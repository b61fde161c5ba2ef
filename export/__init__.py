"""Export of trained networks; installed as ``keras_scnn.export``."""
