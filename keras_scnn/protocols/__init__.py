"""What the field measures: networks and data in, metrics of ``keras_scnn.evaluation`` out."""
