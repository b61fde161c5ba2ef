"""Training runs: settings, objectives, checkpoints, and the initialization of networks."""
