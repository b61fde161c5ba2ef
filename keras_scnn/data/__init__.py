"""Data sets, pairs of photos, and batches for training."""
