"""Engines that start, watch and restart the processes of a training run on several hosts."""
