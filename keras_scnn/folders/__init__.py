"""Folders with any number of photos, reconstructed to Parquet."""
