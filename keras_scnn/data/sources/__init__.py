"""Readers of data sets; each hands on ``LabeledPhoto`` objects."""
