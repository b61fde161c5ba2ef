"""Training runs: settings, objectives, checkpoints, and what starts a network."""
