"""Function matching on an accelerator: a recognizer embeds endless blends of photos (JAX).

All photos, the recognizer and the network are in the accelerator's memory, where the batches are
made too, so the supply of people never ends (Beyer et al., "Knowledge Distillation: A Good Teacher
Is Patient and Consistent", 2022). All modules but ``pack`` import JAX; ``training.run`` imports
them only when a run needs them.
"""
