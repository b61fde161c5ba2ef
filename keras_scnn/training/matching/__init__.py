"""Function matching on an accelerator: a recognizer embeds endless blends of photos (JAX).

All photos, the recognizer and the network lie in the accelerator's memory, where the batches are
made too: there is no end of people (Beyer et al., "Knowledge Distillation: A Good Teacher Is
Patient and Consistent", 2022). The modules but ``pack`` import JAX; ``training.run`` imports them
when a run asks for it.
"""
