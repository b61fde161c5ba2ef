"""Evaluation protocols: from networks and data to the metrics of ``keras_scnn.evaluation``."""
